/** What a row shows of what its agent said. Pure: the row and a heartbeat in, changes of the row out. */
import type { Doc } from "../../_generated/dataModel";
import { sameExpectedInstant } from "./expected";
import { isNewer } from "./liveness";
import type { ReportingHost } from "./validators";

type Row = Doc<"agentLiveness">;
type Heartbeat = Omit<Doc<"agentHeartbeats">, "_id" | "_creationTime">;

/** Hosts shown for one expected instant; two are a mistake already. */
export const MAX_HOSTS = 5;

/** Shown where an agent says that it failed and not how. */
const NO_MESSAGE = "(no message)";

/**
 * What the row, as it stood before, shows of the heartbeat. The agent's words and counts come from the heartbeat with the latest liveness
 * instant (ties by heartbeat id); what each of several heartbeats adds to (last error, last acted, hosts) goes by its own instant.
 * `countedAt`: what its counts are as of; undefined where nobody can tell.
 */
export function shown(row: Row, heartbeat: Heartbeat, countedAt: number | undefined): Partial<Row> {
  const newest = isNewer(heartbeat, row.lastHeartbeatAt, row.lastHeartbeatId);
  return {
    ...(newest ? { ...words(row, heartbeat), countedAt } : {}),
    ...lastError(row, heartbeat),
    ...acted(row, heartbeat),
    hosts: hosts(row, heartbeat),
  };
}

function isStart(heartbeat: Heartbeat): boolean {
  return heartbeat.run?.phase === "start";
}

function words(row: Row, heartbeat: Heartbeat): Partial<Row> {
  const { livenessAt, sentAt, receivedAt, deliveredAt, status, rawStatus, clientVersion } = heartbeat;
  const { openTasks, staleTasks, countsCapped } = heartbeat;
  // a start has nothing to tell yet: what the last run said stays until this one has
  const kept = isStart(heartbeat) ? row : undefined;
  return {
    lastSentAt: sentAt,
    lastReceivedAt: receivedAt,
    skewMs: receivedAt - deliveredAt,
    status,
    rawStatus,
    statusSince: status === row.status ? row.statusSince : livenessAt,
    summary: heartbeat.summary ?? kept?.summary,
    result: heartbeat.result ?? kept?.result,
    clientVersion,
    openTasks,
    staleTasks,
    countsCapped,
  };
}

function lastError(row: Row, { livenessAt, status, result, error, summary }: Heartbeat): Partial<Row> {
  if (error === undefined && status !== "error" && result !== "error") return {};
  if (livenessAt < (row.lastError?.at ?? 0)) return {};
  return { lastError: { message: error ?? summary ?? NO_MESSAGE, at: livenessAt } };
}

/** Reports since the agent last acted. One that comes after newer ones is not counted back: history is not read for it. */
function acted(row: Row, heartbeat: Heartbeat): Partial<Row> {
  const { lastActedAt = -1, runsSinceActed } = row;
  if (isStart(heartbeat) || heartbeat.livenessAt <= lastActedAt) return {};
  if (heartbeat.result !== "acted") return { runsSinceActed: runsSinceActed + 1 };
  const newest = heartbeat.livenessAt >= (row.lastReport?.at ?? 0);
  return { lastActedAt: heartbeat.livenessAt, runsSinceActed: newest ? 0 : runsSinceActed };
}

/** The hosts that reported for the expected instant of the newest heartbeat, newest first. */
function hosts(row: Row, { host, livenessAt }: Heartbeat): ReportingHost[] {
  const newestAt = Math.max(livenessAt, row.lastHeartbeatAt ?? 0);
  const known = row.hosts.find((one) => one.host === host);
  const mine = host === undefined ? [] : [{ host, at: Math.max(livenessAt, known?.at ?? 0) }];
  return [...row.hosts.filter((one) => one.host !== host), ...mine]
    .filter(({ at }) => at === newestAt || sameExpectedInstant(row.schedule, row.graceMs, at, newestAt))
    .sort((a, b) => b.at - a.at)
    .slice(0, MAX_HOSTS);
}
