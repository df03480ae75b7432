/** What the queries answer. No clock: an instant that matters is an argument. */
import type { Doc } from "../../_generated/dataModel";
import type { QueryCtx } from "../../_generated/server";
import { requireRow, type Row } from "./agents";
import { instant, spoken } from "./checks";
import { consecutiveFailures, failAfterOf } from "./failures";
import type { History, PastHeartbeat } from "./heartbeatValidators";
import { deliveredLateMs } from "./history";
import { expectedAfter, firstMissOf, isDegraded, RANKS } from "./liveness";
import { paged, pageSize } from "./pages";
import { lasted } from "./runs";
import type { AgentDetail, AgentRow, Dashboard, Schedule, ShownFlip } from "./validators";

/**
 * Rows in one answer, by default and at most. Who asks once asks for the most: a fleet of a thousand comes in one call. Who subscribes asks for
 * few: each heartbeat runs the page of its agent again, and all rows of that page are read for it.
 */
const DASHBOARD_PAGE = { default: 100, max: 1_000 };
const HISTORY_PAGE = { default: 50, max: 200 };

/** Enough to see the pattern of a schedule, and of an agent's troubles. */
const EXPECTED_SHOWN = 5;
const FLIPS_SHOWN = 20;

/** Agents, worst first, without the retired; totals are those of this page. */
export async function agentDashboard(
  ctx: QueryCtx,
  request: { cursor?: string | null; limit?: number },
): Promise<Dashboard> {
  const { page, isDone, continueCursor } = await paged(pageSize(request, DASHBOARD_PAGE), (options) =>
    ctx.db
      .query("agentLiveness")
      .withIndex("by_rank_and_agent", (q) => q.gte("rank", RANKS.degraded).lt("rank", RANKS.retired))
      .paginate(options),
  );
  const totals = { agents: page.length, new: 0, ok: 0, failing: 0, degraded: 0, paused: 0 };
  for (const row of page) totals[row.control === "paused" ? "paused" : row.health] += 1;
  return { agents: page.map(shownRow), totals, isDone, continueCursor };
}

/** One agent with when it is expected next and what changed lately. */
export async function agentDetail(
  ctx: QueryCtx,
  request: { agent: string; at: number },
): Promise<AgentDetail> {
  const at = instant(request.at, "at");
  const row = await requireRow(ctx, request.agent);
  const flips = await ctx.db
    .query("agentFlips")
    .withIndex("by_agent_and_becameAt", (q) => q.eq("agent", row.agent))
    .order("desc")
    .take(FLIPS_SHOWN);
  return {
    row: shownRow(row),
    nextExpectedAt: expectedAfter(row, at, EXPECTED_SHOWN),
    flips: await Promise.all(flips.map((flip) => shownFlip(ctx, flip))),
  };
}

/** The heartbeats of an agent, newest liveness instant first. */
export async function agentHistory(
  ctx: QueryCtx,
  request: { agent: string; cursor?: string | null; limit?: number },
): Promise<History> {
  const { agent } = await requireRow(ctx, request.agent);
  const { page, isDone, continueCursor } = await paged(pageSize(request, HISTORY_PAGE), (options) =>
    ctx.db
      .query("agentHeartbeats")
      .withIndex("by_agent_and_livenessAt", (q) => q.eq("agent", agent))
      .order("desc")
      .paginate(options),
  );
  return { heartbeats: page.map(pastHeartbeat), isDone, continueCursor };
}

function shownRow(row: Row): AgentRow {
  return {
    agent: row.agent,
    purpose: row.purpose,
    linked: row.linked,
    schedule: row.schedule,
    scheduleText: scheduleText(row.schedule),
    graceMs: row.graceMs,
    misses: row.misses,
    failAfter: failAfterOf(row),
    maxRunMs: row.maxRunMs,
    actWithinMs: row.actWithinMs,
    plannedStatus: row.plannedStatus,
    plannedHost: row.plannedHost,
    control: row.control,
    controlSince: row.controlSince,
    health: row.health,
    degraded: isDegraded(row),
    reason: row.reason,
    healthSince: row.healthSince,
    noticedAt: row.noticedAt,
    status: row.status,
    rawStatus: row.rawStatus,
    statusSince: row.statusSince,
    summary: row.summary,
    result: row.result,
    lastHeartbeatAt: row.lastHeartbeatAt,
    lastSentAt: row.lastSentAt,
    lastReceivedAt: row.lastReceivedAt,
    skewMs: row.skewMs,
    lastActedAt: row.lastActedAt,
    runsSinceActed: row.runsSinceActed,
    lastError: row.lastError,
    consecutiveFailures: consecutiveFailures(row),
    openTasks: row.openTasks,
    staleTasks: row.staleTasks,
    countedAt: row.countedAt,
    countsCapped: row.countsCapped,
    hosts: row.hosts,
    clientVersion: row.clientVersion,
    dueAt: row.dueAt,
    firstMissAt: row.dueAt === undefined ? undefined : (firstMissOf(row, row.dueAt) ?? undefined),
    degradeAt: row.degradeAt,
    runningSince: row.openRuns[0]?.startedAt,
    openRuns: row.openRuns.map(({ runId, startedAt, deadlineAt }) => ({ runId, startedAt, deadlineAt })),
    lastRun: row.lastRun && { ...row.lastRun, durationMs: lasted(row.lastRun) },
    sweepError: row.sweepError,
  };
}

function scheduleText(schedule: Schedule): string {
  if (schedule.kind === "interval") return `every ${spoken(schedule.everyMs)}`;
  return `${schedule.expression} ${schedule.timeZone}`;
}

/**
 * A flip with what explains it: a heartbeat from within the silence that led to it, delivered only afterwards. Looked up here and not written,
 * so that it does not matter when it arrives.
 */
async function shownFlip(ctx: QueryCtx, flip: Doc<"agentFlips">): Promise<ShownFlip> {
  const { from, to, reason, becameAt, noticedAt, gapNote, silentSince } = flip;
  const shown: ShownFlip = { from, to, reason, becameAt, noticedAt, gapNote };
  if (silentSince === undefined) return shown;
  const explains = await ctx.db
    .query("agentHeartbeats")
    .withIndex("by_agent_and_livenessAt", (q) =>
      q.eq("agent", flip.agent).gt("livenessAt", silentSince).lte("livenessAt", becameAt),
    )
    .order("desc")
    .first();
  if (explains !== null) {
    const deliveredLateMs = explains.receivedAt - explains.livenessAt;
    shown.explainedBy = { heartbeatId: explains.heartbeatId, deliveredLateMs };
  }
  return shown;
}

function pastHeartbeat(heartbeat: Doc<"agentHeartbeats">): PastHeartbeat {
  return {
    heartbeatId: heartbeat.heartbeatId,
    sentAt: heartbeat.sentAt,
    receivedAt: heartbeat.receivedAt,
    livenessAt: heartbeat.livenessAt,
    deliveredLateMs: deliveredLateMs(heartbeat),
    status: heartbeat.status,
    rawStatus: heartbeat.rawStatus,
    summary: heartbeat.summary,
    error: heartbeat.error,
    result: heartbeat.result,
    openTasks: heartbeat.openTasks,
    staleTasks: heartbeat.staleTasks,
    countedBy: heartbeat.countedBy,
    host: heartbeat.host,
    clientVersion: heartbeat.clientVersion,
    run: heartbeat.run,
  };
}
