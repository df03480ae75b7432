/** Recording a heartbeat: checked, stored exactly once, judged, shown. */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { findRow, type Row, store } from "./agents";
import * as check from "./checks";
import { type Heard, hear, isDegraded, otherHalfOf } from "./liveness";
import { gapNote, isHeld, monitorAt } from "./monitor";
import { invalid, refusal, unknownAgent } from "./refusal";
import { shown } from "./shown";
import { countTasks } from "./tasks";
import type { HeartbeatArgs, Recorded } from "./validators";

type Stored = Omit<Doc<"agentHeartbeats">, "_id" | "_creationTime">;
type Run = NonNullable<Stored["run"]>;
type Counted = "openTasks" | "staleTasks" | "countsCapped" | "countedBy";
type Checked = Omit<Stored, "receivedAt" | "livenessAt" | Counted> & {
  openTasks?: number;
  staleTasks?: number;
};

/**
 * Record a heartbeat, in one transaction; whatever is retried, replayed or sent twice is recorded once.
 *
 * Reads, besides open tasks, and writes do not depend on history: at most 12 and 5 documents.
 * @throws ConvexError `invalid`, `conflict` (the id is another agent's), `unknown_agent`
 */
export async function recordHeartbeat(ctx: MutationCtx, args: HeartbeatArgs): Promise<Recorded> {
  const receivedAt = Date.now();
  const checked = checkHeartbeat(args);
  const { heartbeatId, agent } = checked;
  const known = await ctx.db
    .query("agentHeartbeats")
    .withIndex("by_heartbeatId", (q) => q.eq("heartbeatId", heartbeatId))
    .unique();
  if (known !== null && known.agent !== agent) {
    throw refusal("conflict", `The heartbeat id ${heartbeatId} is that of a heartbeat of another agent.`);
  }
  const row = await findRow(ctx, agent);
  if (row === null) throw unknownAgent(agent);
  if (known !== null) return answer("duplicate", known, row);

  const heartbeat: Stored = {
    ...checked,
    receivedAt,
    livenessAt: livenessAtOf(checked, receivedAt),
    ...(await countsOf(ctx, checked, receivedAt)),
  };
  const heard = await heardOf(ctx, row, heartbeat);
  let move = hear(row, heard, receivedAt, false);
  let note: string | undefined;
  if (move.flip?.to === "degraded") {
    const monitor = await monitorAt(ctx, receivedAt);
    if (isHeld(monitor, receivedAt)) move = hear(row, heard, receivedAt, true);
    else note = gapNote(monitor, move.flip.becameAt);
  }
  await ctx.db.insert("agentHeartbeats", heartbeat);
  const flip = move.flip && { ...move.flip, gapNote: note };
  const next = await store(ctx, row, { ...move.changes, ...shown(row, heartbeat) }, flip);
  return answer("recorded", heartbeat, next, move.flip?.from);
}

/**
 * The instant the heartbeat is a sign of life for, on our clock: its age is taken between two instants of the sender's clock, so that
 * neither a wrong clock nor a late delivery counts as life.
 */
function livenessAtOf(
  { sentAt, deliveredAt }: { sentAt: number; deliveredAt: number },
  receivedAt: number,
): number {
  const ageMs = Math.max(0, deliveredAt - sentAt);
  return Math.max(0, receivedAt - ageMs);
}

/** An instant that the sender stated beside `sentAt`, on our clock; never after the heartbeat itself. */
function onOurClock(
  heartbeat: { sentAt: number; livenessAt: number },
  at: number | undefined,
): number | undefined {
  if (at === undefined) return undefined;
  return Math.max(0, heartbeat.livenessAt - Math.max(0, heartbeat.sentAt - at));
}

async function countsOf(ctx: MutationCtx, checked: Checked, now: number): Promise<Pick<Stored, Counted>> {
  const { openTasks, staleTasks } = checked;
  if (openTasks !== undefined && staleTasks !== undefined) {
    return { openTasks, staleTasks, countsCapped: false, countedBy: "sender" };
  }
  const counts = await countTasks(ctx, checked.agent, now);
  return {
    openTasks: counts.openTasks,
    staleTasks: counts.staleTasks,
    countsCapped: counts.capped,
    countedBy: "server",
  };
}

async function heardOf(ctx: MutationCtx, row: Row, heartbeat: Stored): Promise<Heard> {
  const { heartbeatId, livenessAt, status, result, run } = heartbeat;
  const heard: Heard = { heartbeatId, livenessAt, failing: status === "error" || result === "error" };
  if (run === undefined) return heard;
  heard.run = {
    ...run,
    startedAt: onOurClock(heartbeat, run.startedAt),
    finishedAt: onOurClock(heartbeat, run.finishedAt),
  };
  const phase = otherHalfOf(row, run);
  if (phase === undefined) return heard;
  const other = await ctx.db
    .query("agentHeartbeats")
    .withIndex("by_run", (q) => q.eq("agent", row.agent).eq("run.runId", run.runId).eq("run.phase", phase))
    .first();
  if (other !== null) {
    const startedAt = onOurClock(other, other.run?.startedAt) ?? other.livenessAt;
    heard.run.otherHalf = { livenessAt: other.livenessAt, startedAt };
  }
  return heard;
}

function answer(
  outcome: Recorded["outcome"],
  heartbeat: Stored,
  row: Row,
  healthBefore?: Recorded["health"],
): Recorded {
  return {
    outcome,
    agent: row.agent,
    health: row.health,
    healthBefore,
    degraded: isDegraded(row),
    reason: row.reason,
    control: row.control,
    dueAt: row.dueAt,
    degradeAt: row.degradeAt,
    livenessAt: heartbeat.livenessAt,
    receivedAt: heartbeat.receivedAt,
    skewMs: heartbeat.receivedAt - heartbeat.deliveredAt,
    openTasks: heartbeat.openTasks,
    staleTasks: heartbeat.staleTasks,
    countsCapped: heartbeat.countsCapped,
    countedBy: heartbeat.countedBy,
    linked: row.linked,
  };
}

function checkHeartbeat(args: HeartbeatArgs): Checked {
  const { TEXT_LIMITS: limits } = check;
  const checked: Checked = {
    heartbeatId: check.heartbeatId(args.heartbeatId),
    agent: check.agentName(args.agent),
    sentAt: check.instant(args.sentAt, "sentAt"),
    deliveredAt: check.instant(args.deliveredAt, "deliveredAt"),
    ...check.statusWord(args.status),
  };
  if (args.summary !== undefined) checked.summary = check.text(args.summary, "summary", limits.summary);
  if (args.error !== undefined) checked.error = check.text(args.error, "error", limits.error);
  if (args.result !== undefined) checked.result = check.resultWord(args.result);
  if (args.host !== undefined) checked.host = check.text(args.host, "host", limits.host);
  if (args.clientVersion !== undefined) {
    checked.clientVersion = check.text(args.clientVersion, "clientVersion", limits.clientVersion);
  }
  if (args.run !== undefined) checked.run = checkRun(args.run);
  return { ...checked, ...checkCounts(args) };
}

function checkCounts({ openTasks, staleTasks }: HeartbeatArgs): { openTasks?: number; staleTasks?: number } {
  if (openTasks === undefined && staleTasks === undefined) return {};
  if (openTasks === undefined) throw invalid("openTasks", "missing; both counts are given or neither");
  if (staleTasks === undefined) throw invalid("staleTasks", "missing; both counts are given or neither");
  const open = check.taskCount(openTasks, "openTasks");
  const stale = check.taskCount(staleTasks, "staleTasks");
  if (stale > open)
    throw invalid("staleTasks", `${stale} of ${open} open tasks; a stale task is an open one`);
  return { openTasks: open, staleTasks: stale };
}

function checkRun(args: NonNullable<HeartbeatArgs["run"]>): Run {
  const run: Run = { runId: check.runId(args.runId), phase: check.phaseWord(args.phase) };
  if (args.startedAt !== undefined) run.startedAt = check.instant(args.startedAt, "run.startedAt");
  if (args.finishedAt !== undefined) run.finishedAt = check.instant(args.finishedAt, "run.finishedAt");
  if (args.durationMs !== undefined) run.durationMs = check.duration(args.durationMs, "run.durationMs");
  if (args.exitCode !== undefined) run.exitCode = check.exitCode(args.exitCode);
  if (args.output !== undefined) run.output = check.text(args.output, "run.output", check.TEXT_LIMITS.output);
  if (args.outputCut !== undefined) run.outputCut = args.outputCut;
  return run;
}
