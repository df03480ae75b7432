/** Recording a heartbeat: checked, stored exactly once, judged, shown. */
import type { Doc } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { requireRow, type Row, type RowChanges, store, type StoredFlip } from "./agents";
import { takeOne } from "./allowance";
import * as check from "./checks";
import type { HeartbeatArgs, Recorded } from "./heartbeatValidators";
import { endsOf, firstOfPhase } from "./history";
import { type Heard, hear, isDegraded } from "./liveness";
import { gapNote, isHeld, monitorAt } from "./monitor";
import { invalid, refusal, slowDown } from "./refusal";
import { otherHalfOf } from "./runs";
import { shown } from "./shown";
import { taskCounter } from "./tasks";

type Stored = Omit<Doc<"agentHeartbeats">, "_id" | "_creationTime">;
type Run = NonNullable<Stored["run"]>;
type Counted = "openTasks" | "staleTasks" | "countsCapped" | "countedBy";
type Checked = Omit<Stored, "receivedAt" | "livenessAt" | "runAt" | Counted> & {
  openTasks?: number;
  staleTasks?: number;
};

/** Counts of an agent's open tasks, as of now; null where they cannot be counted. */
type Count = ReturnType<typeof taskCounter>;

/** A heartbeat that nothing speaks against: there already, or with what storing it changes. */
type Judged =
  | { outcome: "duplicate"; heartbeat: Stored; row: Row }
  | { outcome: "recorded"; heartbeat: Stored; row: Row; changes: RowChanges; flip?: StoredFlip };

/**
 * Record a heartbeat, in one transaction; whatever is retried, replayed or sent twice is recorded once.
 *
 * Reads, besides open tasks, and writes do not depend on history: with the token at most 12 and 5 documents.
 * @throws Refusal `invalid`, `conflict` (the id is another agent's), `unknown_agent`, `slow_down`
 */
export async function recordHeartbeat(ctx: MutationCtx, args: HeartbeatArgs): Promise<Recorded> {
  const now = Date.now();
  return await record(ctx, await judge(ctx, args, now, taskCounter(ctx, now)));
}

/**
 * Everything that can be refused about a heartbeat that arrives at `now`, and everything that follows from it. It is handed no context that
 * could write: whoever catches its refusal, as a batch does, catches it before anything was written.
 * @throws Refusal as recordHeartbeat
 */
export async function judge(ctx: QueryCtx, args: HeartbeatArgs, now: number, count: Count): Promise<Judged> {
  const checked = checkHeartbeat(args);
  const { heartbeatId, agent } = checked;
  const known = await ctx.db
    .query("agentHeartbeats")
    .withIndex("by_heartbeatId", (q) => q.eq("heartbeatId", heartbeatId))
    .unique();
  if (known !== null && known.agent !== agent) {
    throw refusal("conflict", `The heartbeat id ${heartbeatId} is that of a heartbeat of another agent.`);
  }
  const row = await requireRow(ctx, agent);
  if (known !== null) return { outcome: "duplicate", heartbeat: known, row };
  const taken = takeOne(row.allowance, now);
  if (!("left" in taken)) throw slowDown(agent, taken.retryAfterMs);

  const livenessAt = livenessAtOf(checked, now);
  const { counts, countedAt } = await countsOf(checked, row, livenessAt, count);
  const heartbeat: Stored = { ...checked, receivedAt: now, livenessAt, ...counts };
  const heard = await heardOf(ctx, row, heartbeat);
  heartbeat.runAt = runAtOf(row, heard);
  let move = hear(row, heard, now, false);
  let note: string | undefined;
  if (move.flip?.to === "degraded") {
    const monitor = await monitorAt(ctx, now);
    if (isHeld(monitor, now)) move = hear(row, heard, now, true);
    else note = gapNote(monitor, move.flip.becameAt);
  }
  const changes = { ...move.changes, ...shown(row, heartbeat, countedAt), allowance: taken.left };
  return { outcome: "recorded", heartbeat, row, changes, flip: move.flip && { ...move.flip, gapNote: note } };
}

/** Store what was judged, in the same transaction; refuses nothing any more. */
export async function record(ctx: MutationCtx, judged: Judged): Promise<Recorded> {
  const { outcome, heartbeat, row } = judged;
  if (outcome === "duplicate") return answer(outcome, heartbeat, row);
  await ctx.db.insert("agentHeartbeats", heartbeat);
  const next = await store(ctx, row, judged.changes, judged.flip);
  return answer(outcome, heartbeat, next, judged.flip?.from);
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

/** The counts that the sender gave, else the server's, else the row's last ones, as at their limit: it is not known how many more there are. */
async function countsOf(
  { openTasks, staleTasks }: Checked,
  row: Row,
  livenessAt: number,
  count: Count,
): Promise<{ counts: Pick<Stored, Counted>; countedAt: number | undefined }> {
  if (openTasks !== undefined && staleTasks !== undefined) {
    const counts = { openTasks, staleTasks, countsCapped: false, countedBy: "sender" as const };
    return { counts, countedAt: livenessAt };
  }
  const counted = await count(row);
  const known = counted ?? { openTasks: row.openTasks ?? 0, staleTasks: row.staleTasks ?? 0, capped: true };
  const counts = { openTasks: known.openTasks, staleTasks: known.staleTasks, countsCapped: known.capped };
  return { counts: { ...counts, countedBy: "server" }, countedAt: (counted ?? row).countedAt };
}

async function heardOf(ctx: QueryCtx, row: Row, heartbeat: Stored): Promise<Heard> {
  const { heartbeatId, livenessAt, status, result, run } = heartbeat;
  const heard: Heard = { heartbeatId, livenessAt, failing: status === "error" || result === "error" };
  if (run === undefined) return heard;
  const { runId, phase, durationMs, exitCode } = run;
  heard.run = { runId, phase, durationMs, exitCode, status, ...endsOf(heartbeat) };
  const otherPhase = otherHalfOf(row, run);
  if (otherPhase === undefined) return heard;
  const other = await firstOfPhase(ctx, row.agent, runId, otherPhase);
  if (other !== null) {
    heard.run.otherHalf = { livenessAt: other.livenessAt, startedAt: endsOf(other).startedAt };
  }
  return heard;
}

/** What lists the run of a heartbeat: its start, or its finish as long as the start is not known. */
function runAtOf(row: Row, { livenessAt, run }: Heard): number | undefined {
  if (run === undefined) return undefined;
  const listed =
    run.phase === "finish" && (run.otherHalf !== undefined || otherHalfOf(row, run) === undefined);
  return listed ? undefined : (run.startedAt ?? livenessAt);
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

/** What a sender says of a heartbeat, in its stored form. */
export function checkHeartbeat(args: HeartbeatArgs): Checked {
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
