/**
 * Moving what is recorded from one deployment to another: read out in the order in which it was made, taken in exactly once, whatever is repeated.
 * A heartbeat is known by its id, a flip by all that it says, an agent by its name. Nothing that is imported flips anybody or uses up what an agent
 * may send.
 */
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { findRow, linkAgents, type Row, type RowChanges, store } from "./agents";
import * as check from "./checks";
import { MAX_FAILURES, merged } from "./failures";
import { checkHeartbeat } from "./heartbeats";
import { firstOfPhase } from "./history";
import { deadlinesOf, isNewer, takenOver } from "./liveness";
import {
  type AgentRecord,
  agentRecord,
  type Exported,
  type ExportArgs,
  type FlipRecord,
  flipRecord,
  type HeartbeatRecord,
  heartbeatRecord,
  type ImportArgs,
  type Imported,
} from "./moveValidators";
import { paged, pageSize } from "./pages";
import { ensureReconciled } from "./reconcile";
import { invalid, Refusal, refusal } from "./refusal";
import { isBefore, MAX_OPEN_RUNS, stillOpen } from "./runs";
import { checkAgents, insertRow } from "./schedules";
import { MAX_HOSTS } from "./shown";

/** Records of one answer: what is read fits into Convex's 16 MiB twice over, so that JSON may escape much of it. */
const EXPORT_PAGE = { default: 200, max: 1_000, bytes: 4 * 1024 * 1024 };

/**
 * Records of one call. Of the longest heartbeats there can be (60 kB), so many are 12 MB to read where all are known, and as many to write where none
 * is: below the 16 MiB that Convex takes of either; and they are looked up one by one, which takes a twentieth of a function's second.
 */
const MAX_IMPORTED = 200;

const { text, duration } = check;

/** What the newest heartbeat said. */
const SAID = [
  ...(["lastHeartbeatId", "lastHeartbeatAt", "lastSentAt", "lastReceivedAt", "skewMs"] as const),
  ...(["status", "rawStatus", "statusSince", "summary", "result", "clientVersion", "hosts"] as const),
  ...(["openTasks", "staleTasks", "countedAt", "countsCapped"] as const),
];

// --- out ---

const TABLES = {
  agents: ["agentLiveness", agentRecord],
  heartbeats: ["agentHeartbeats", heartbeatRecord],
  flips: ["agentFlips", flipRecord],
} as const;

/** A page of the records of one kind, oldest first: what is stored while an export goes on comes at its end. */
export async function exportRecords(ctx: QueryCtx, request: ExportArgs): Promise<Exported> {
  const { kind } = request;
  const [table, { fields }] = TABLES[kind];
  const page = pageSize(request, EXPORT_PAGE);
  const rows = await paged(page, (options) => ctx.db.query(table).paginate(options));
  const { isDone, continueCursor } = rows;
  return { kind, records: rows.page.map((row) => recordOf(fields, row)), isDone, continueCursor } as Exported;
}

/** Of a row what its record has. */
function recordOf(fields: object, row: Record<string, unknown>): Record<string, unknown> {
  const names = Object.keys(fields).filter((name) => row[name] !== undefined);
  return Object.fromEntries(names.map((name) => [name, row[name]]));
}

// --- in ---

/**
 * Take in records of one kind, in their order, in one transaction. One that is refused writes nothing and harms no other.
 * @throws Refusal `invalid` for none or too many
 */
export async function importRecords(ctx: MutationCtx, request: ImportArgs): Promise<Imported> {
  const { length } = request.records;
  if (length === 0 || length > MAX_IMPORTED) {
    throw invalid("records", `${length} in one call; it takes 1 to ${MAX_IMPORTED}`);
  }
  const now = Date.now();
  const done: Imported = { recorded: 0, updated: 0, known: 0, refused: [] };
  const each = async <One>(records: One[], take: (record: One) => Promise<Taken>) => {
    for (const [index, record] of records.entries()) {
      try {
        done[await take(record)] += 1;
      } catch (error) {
        // each is refused before anything of it is written
        if (!(error instanceof Refusal)) throw error;
        done.refused.push({ index, ...error.data });
      }
    }
  };
  if (request.kind === "agents") {
    await each(request.records, (record) => takeAgent(ctx, record, now));
    const whole = await linkAgents(
      ctx,
      request.records.map(({ agent }) => agent),
    );
    await ensureReconciled(ctx, whole);
  } else if (request.kind === "heartbeats")
    await each(request.records, (one) => takeHeartbeat(ctx, one, now));
  else await each(request.records, (record) => takeFlip(ctx, record));
  return done;
}

/** What became of a record. */
type Taken = "recorded" | "updated" | "known";

async function takeHeartbeat(ctx: MutationCtx, record: HeartbeatRecord, now: number): Promise<Taken> {
  const heartbeat = checkedHeartbeat(record, now);
  const { heartbeatId, agent } = heartbeat;
  const known = await ctx.db
    .query("agentHeartbeats")
    .withIndex("by_heartbeatId", (q) => q.eq("heartbeatId", heartbeatId))
    .unique();
  if (known === null) {
    await ctx.db.insert("agentHeartbeats", heartbeat);
    return "recorded";
  }
  if (known.agent === agent) return "known";
  throw refusal("conflict", `The heartbeat id ${heartbeatId} is that of a heartbeat of another agent.`);
}

async function takeFlip(ctx: MutationCtx, flip: FlipRecord): Promise<Taken> {
  check.agentName(flip.agent);
  text(flip.reason, "reason", check.TEXT_LIMITS.summary);
  text(flip.gapNote ?? "", "gapNote", check.TEXT_LIMITS.summary);
  // as they are: a flip is known by all that it says
  withInstants(flip, ["becameAt", "noticedAt", "silentSince"]);
  const names = Object.keys(flipRecord.fields) as (keyof FlipRecord)[];
  const alike = ctx.db
    .query("agentFlips")
    .withIndex("by_agent_and_becameAt", (q) => q.eq("agent", flip.agent).eq("becameAt", flip.becameAt));
  for await (const known of alike) if (names.every((name) => known[name] === flip[name])) return "known";
  await ctx.db.insert("agentFlips", flip);
  return "recorded";
}

/**
 * An agent that nobody watches here is watched from now on, just as it was. One that is watched keeps its schedule and control; what it reported is
 * taken over where it is newer than what is known here, each by its own instant.
 */
async function takeAgent(ctx: MutationCtx, given: AgentRecord, now: number): Promise<Taken> {
  const record = checkedAgent(given, now);
  const row = await findRow(ctx, record.agent);
  if (row === null) {
    await insertRow(ctx, { ...record, ...deadlinesOf(record), linked: false });
    return "recorded";
  }
  const changes = await changesOf(ctx, row, record, now);
  if (Object.keys(changes).length === 0) return "known";
  await store(ctx, row, changes);
  return "updated";
}

async function changesOf(ctx: MutationCtx, row: Row, record: AgentRecord, now: number): Promise<RowChanges> {
  const facts: RowChanges = {};
  const newest = isAhead(heardLast(record), heardLast(row));
  if (newest) Object.assign(facts, Object.fromEntries(SAID.map((name) => [name, record[name]])));
  // as in shown.ts, a start leaves what the last run said
  if (newest && isAhead(row.lastReport, record.lastReport)) {
    facts.summary = row.summary;
    facts.result = row.result;
  }
  if ((record.lastError?.at ?? 0) > (row.lastError?.at ?? 0)) facts.lastError = record.lastError;
  const [actedHere, actedThere] = [row.lastActedAt ?? 0, record.lastActedAt ?? 0];
  if (actedThere > actedHere) facts.lastActedAt = record.lastActedAt;
  if (newest && actedThere >= actedHere) facts.runsSinceActed = record.runsSinceActed;

  const reported = isAhead(record.lastReport, row.lastReport);
  const failures = merged(row.failures, record.failures);
  if (!newest && !reported && failures === row.failures) return facts;
  if (reported) facts.lastReport = record.lastReport;
  if (record.lastRun !== undefined && !isBefore(record.lastRun, row.lastRun)) {
    const known = [...row.openRuns, row.lastRun].find((run) => run?.runId === record.lastRun?.runId);
    facts.lastRun = { startedAt: known?.startedAt, ...record.lastRun };
  }
  facts.failures = failures;
  facts.answeredFromAt = Math.max(row.answeredFromAt ?? 0, record.answeredFromAt ?? 0) || undefined;
  facts.openRuns = await openRunsOf(ctx, row, record, (facts.lastReport ?? row.lastReport)?.at ?? 0);
  const there = reported || (newest && row.lastReport === undefined) ? record : undefined;
  return { ...facts, ...takenOver(row, facts, there, now) };
}

/** What was open here or there; a finish may be known here of a run whose start was heard there. */
async function openRunsOf(ctx: MutationCtx, row: Row, { openRuns }: AgentRecord, reportedAt: number) {
  const over = new Set<string>();
  for (const { runId } of [...row.openRuns, ...openRuns]) {
    if ((await firstOfPhase(ctx, row.agent, runId, "finish")) !== null) over.add(runId);
  }
  return stillOpen(row.openRuns, openRuns, over, reportedAt);
}

/** A heartbeat that is known by its instant and its id. */
type Mark = { at: number; heartbeatId: string };

function heardLast({
  lastHeartbeatAt: at,
  lastHeartbeatId: heartbeatId,
}: AgentRecord | Row): Mark | undefined {
  return at === undefined || heartbeatId === undefined ? undefined : { at, heartbeatId };
}

/** Whether the one is newer than the other, and not the same: an instant that was after the present is none that can be gone by. */
function isAhead(one: Mark | undefined, other: Mark | undefined): boolean {
  if (one === undefined || one.heartbeatId === other?.heartbeatId) return false;
  return isNewer({ livenessAt: one.at, heartbeatId: one.heartbeatId }, other?.at, other?.heartbeatId);
}

// --- checks: of what the validators leave open; a file may have been written by anybody ---

/**
 * The record with these of its instants checked; what is after `latest` becomes that. By the clock of a source that ran ahead, an agent would be
 * alive for as long as it ran ahead, and nothing heard here would count.
 */
function withInstants<One extends object>(
  record: One,
  names: readonly (keyof One & string)[],
  latest = Infinity,
): One {
  const checked: Record<string, unknown> = {};
  for (const name of names) {
    const value = record[name];
    if (value !== undefined) checked[name] = Math.min(duration(value as number, name), latest);
  }
  return { ...record, ...checked };
}

function checkedHeartbeat(record: HeartbeatRecord, now: number): HeartbeatRecord {
  const { run } = checkHeartbeat(record);
  text(record.rawStatus, "rawStatus", check.TEXT_LIMITS.status);
  withInstants(record, ["runAt"]);
  return { ...withInstants(record, ["receivedAt", "livenessAt"], now), run };
}

function checkedAgent(record: AgentRecord, now: number): AgentRecord {
  const { agent, schedule, purpose, graceMs, misses, failAfter, maxRunMs, actWithinMs } = record;
  const { TEXT_LIMITS: limits } = check;
  check.filledText(record.source, "source", limits.source);
  const planned = { status: record.plannedStatus, host: record.plannedHost };
  const stated = { agent, schedule, purpose, graceMs, misses, failAfter, maxRunMs, actWithinMs, ...planned };
  const [problem] = checkAgents([stated], record.source, now).problems;
  if (problem !== undefined) throw invalid(problem.field, problem.message);
  for (const name of ["openTasks", "staleTasks"] as const) check.taskCount(record[name] ?? 0, name);
  check.wholeNumber(record.runsSinceActed, "runsSinceActed", 0, Number.MAX_SAFE_INTEGER);
  duration(Math.abs(record.skewMs ?? 0), "skewMs");
  text(record.reason ?? "", "reason", limits.summary);
  text(record.summary ?? "", "summary", limits.summary);
  text(record.rawStatus ?? "", "rawStatus", limits.status);
  text(record.clientVersion ?? "", "clientVersion", limits.clientVersion);
  text(record.lastError?.message ?? "", "lastError", limits.error);
  const { hosts, failures, lastReport, lastError, lastHeartbeatId } = record;
  for (const id of [lastHeartbeatId, lastReport?.heartbeatId]) if (id !== undefined) check.heartbeatId(id);
  checkList(
    hosts.map(({ host }) => text(host, "hosts", limits.host)),
    "hosts",
    MAX_HOSTS,
  );
  if ((failures?.at.length ?? 0) > MAX_FAILURES)
    throw invalid("failures", `at most ${MAX_FAILURES} are taken`);
  withInstants(record, ["lastSentAt"]);
  const checked: AgentRecord = {
    ...withInstants(record, INSTANTS, now),
    ...checkedRuns(record, now),
    hosts: hosts.map((one) => withInstants(one, ["at"], now)),
  };
  if (lastReport !== undefined) checked.lastReport = withInstants(lastReport, ["at"], now);
  if (lastError !== undefined) checked.lastError = withInstants(lastError, ["at"], now);
  if (failures !== undefined) {
    const at = failures.at.map((one) => withInstants({ failures: one }, ["failures"], now).failures);
    checked.failures = { ...withInstants(failures, ["goodAt"], now), at };
  }
  return checked;
}

/** Of an agent, on the clock of its deployment. */
const INSTANTS = [
  ...(["controlSince", "healthSince", "noticedAt", "resetAt", "answeredFromAt", "lastActedAt"] as const),
  ...(["lastHeartbeatAt", "lastReceivedAt", "statusSince", "countedAt"] as const),
];

function checkedRuns({ openRuns, lastRun }: AgentRecord, now: number): Partial<AgentRecord> {
  const open = openRuns.map((run) => {
    // what a run may take stays what it was
    const aheadMs = Math.max(0, run.startedAt - now);
    const checked = withInstants(run, ["startedAt", "answeredFromAt"], now);
    const deadlineAt = withInstants(run, ["deadlineAt"]).deadlineAt - aheadMs;
    return { ...checked, runId: check.runId(run.runId), deadlineAt };
  });
  checkList(
    open.map(({ runId }) => runId),
    "openRuns",
    MAX_OPEN_RUNS,
  );
  if (lastRun === undefined) return { openRuns: open };
  if (lastRun.exitCode !== undefined) check.exitCode(lastRun.exitCode);
  const ended = withInstants(withInstants(lastRun, ["startedAt", "finishedAt"], now), ["durationMs"]);
  return { openRuns: open, lastRun: { ...ended, runId: check.runId(lastRun.runId) } };
}

/** Not too many, and each once. */
function checkList(names: string[], field: string, most: number): void {
  if (names.length > most) throw invalid(field, `${names.length} of them, at most ${most} are taken`);
  if (new Set(names).size < names.length) throw invalid(field, "the same twice");
}
