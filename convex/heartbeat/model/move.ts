/**
 * Moving what is recorded from one deployment to another: read out in the order in which it was made, taken in exactly once, whatever is repeated.
 * A heartbeat is known by its id, a flip by all that it says, an agent by its name. Nothing that is imported flips anybody or uses up what an agent
 * may send.
 */
import type { GenericValidator, Infer } from "convex/values";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { findRow, linkAgents, type Row, type RowChanges, store } from "./agents";
import * as check from "./checks";
import { MAX_FAILURES } from "./failures";
import { checkHeartbeat } from "./heartbeats";
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
import { MAX_OPEN_RUNS } from "./runs";
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

/** What an agent reported. The rest of a row is what somebody wants, and stays as it is where the row exists; and what is concluded. */
const REPORTED = [
  ...(["answeredFromAt", "openRuns", "lastRun", "lastReport", "failures"] as const),
  ...(["lastHeartbeatId", "lastHeartbeatAt", "lastSentAt", "lastReceivedAt", "skewMs"] as const),
  ...(["status", "rawStatus", "statusSince", "summary", "result", "clientVersion", "hosts"] as const),
  ...(["lastError", "lastActedAt", "runsSinceActed"] as const),
  ...(["openTasks", "staleTasks", "countedAt", "countsCapped"] as const),
];

// --- out ---

/** A page of the records of one kind, oldest first: what is stored while an export goes on comes at its end. */
export async function exportRecords(ctx: QueryCtx, request: ExportArgs): Promise<Exported> {
  const page = pageSize(request, EXPORT_PAGE);
  const { kind } = request;
  if (kind === "agents") {
    const rows = await paged(page, (options) => ctx.db.query("agentLiveness").paginate(options));
    return { kind, records: rows.page.map((row) => recordOf(agentRecord, row)), ...endOf(rows) };
  }
  if (kind === "heartbeats") {
    const rows = await paged(page, (options) => ctx.db.query("agentHeartbeats").paginate(options));
    return { kind, records: rows.page.map((row) => recordOf(heartbeatRecord, row)), ...endOf(rows) };
  }
  const rows = await paged(page, (options) => ctx.db.query("agentFlips").paginate(options));
  return { kind, records: rows.page.map((row) => recordOf(flipRecord, row)), ...endOf(rows) };
}

/** Of a row what its record has. */
function recordOf<Shape extends GenericValidator & { fields: object }>(
  { fields }: Shape,
  row: Infer<Shape>,
): Infer<Shape> {
  const stored = row as Record<string, unknown>;
  const names = Object.keys(fields).filter((name) => stored[name] !== undefined);
  return Object.fromEntries(names.map((name) => [name, stored[name]]));
}

function endOf({ isDone, continueCursor }: { isDone: boolean; continueCursor: string }) {
  return { isDone, continueCursor };
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
  } else if (request.kind === "heartbeats") await each(request.records, (one) => takeHeartbeat(ctx, one));
  else await each(request.records, (record) => takeFlip(ctx, record));
  return done;
}

/** What became of a record. */
type Taken = "recorded" | "updated" | "known";

async function takeHeartbeat(ctx: MutationCtx, record: HeartbeatRecord): Promise<Taken> {
  const heartbeat = checkedHeartbeat(record);
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
  checkInstants(flip, ["becameAt", "noticedAt", "silentSince"]);
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
 * taken over where the newest heartbeat there is newer than the newest here.
 */
async function takeAgent(ctx: MutationCtx, record: AgentRecord, now: number): Promise<Taken> {
  checkAgent(record, now);
  const row = await findRow(ctx, record.agent);
  if (row === null) {
    await insertRow(ctx, { ...record, ...deadlinesOf(record), linked: false });
    return "recorded";
  }
  const changes = changesOf(row, record, now);
  if (Object.keys(changes).length === 0) return "known";
  await store(ctx, row, changes);
  return "updated";
}

function changesOf(row: Row, record: AgentRecord, now: number): RowChanges {
  const { lastHeartbeatAt: livenessAt, lastHeartbeatId: heartbeatId } = record;
  // these go by their own instants, whichever heartbeat is the newest
  const own: RowChanges = {};
  if ((record.lastError?.at ?? 0) > (row.lastError?.at ?? 0)) own.lastError = record.lastError;
  if ((record.lastActedAt ?? 0) > (row.lastActedAt ?? 0)) own.lastActedAt = record.lastActedAt;
  if (livenessAt === undefined || heartbeatId === undefined) return own;
  if (!isNewer({ livenessAt, heartbeatId }, row.lastHeartbeatAt, row.lastHeartbeatId)) return own;
  const facts = Object.fromEntries(REPORTED.map((name) => [name, record[name]])) as Pick<
    AgentRecord,
    (typeof REPORTED)[number]
  >;
  facts.lastError = own.lastError ?? row.lastError;
  if (own.lastActedAt === undefined && row.lastActedAt !== undefined) {
    facts.lastActedAt = row.lastActedAt;
    facts.runsSinceActed = row.runsSinceActed;
  }
  const { health, healthSince, noticedAt, reason } = record;
  return { ...facts, ...takenOver(row, { ...facts, health, healthSince, noticedAt, reason }, now) };
}

// --- checks: of what the validators leave open; a file may have been written by anybody ---

function checkInstants<Record extends object>(
  record: Record,
  names: readonly (keyof Record & string)[],
): void {
  for (const name of names) {
    const value = record[name];
    if (value !== undefined) duration(value as number, name);
  }
}

function checkedHeartbeat(record: HeartbeatRecord): HeartbeatRecord {
  const { run } = checkHeartbeat(record);
  text(record.rawStatus, "rawStatus", check.TEXT_LIMITS.status);
  checkInstants(record, ["receivedAt", "livenessAt", "runAt"]);
  return { ...record, run };
}

function checkAgent(record: AgentRecord, now: number): void {
  const { agent, schedule, purpose, graceMs, misses, failAfter, maxRunMs, actWithinMs } = record;
  const { TEXT_LIMITS: limits } = check;
  check.filledText(record.source, "source", limits.source);
  const planned = { status: record.plannedStatus, host: record.plannedHost };
  const stated = { agent, schedule, purpose, graceMs, misses, failAfter, maxRunMs, actWithinMs, ...planned };
  const [problem] = checkAgents([stated], record.source, now).problems;
  if (problem !== undefined) throw invalid(problem.field, problem.message);
  checkInstants(record, ["controlSince", "healthSince", "noticedAt", "resetAt", "answeredFromAt"]);
  checkInstants(record, ["lastHeartbeatAt", "lastSentAt", "lastReceivedAt", "statusSince", "countedAt"]);
  checkInstants(record, ["lastActedAt"]);
  for (const name of ["openTasks", "staleTasks"] as const) check.taskCount(record[name] ?? 0, name);
  check.wholeNumber(record.runsSinceActed, "runsSinceActed", 0, Number.MAX_SAFE_INTEGER);
  text(record.reason ?? "", "reason", limits.summary);
  text(record.summary ?? "", "summary", limits.summary);
  text(record.rawStatus ?? "", "rawStatus", limits.status);
  text(record.clientVersion ?? "", "clientVersion", limits.clientVersion);
  text(record.lastError?.message ?? "", "lastError", limits.error);
  checkRuns(record);
  atMost(record.hosts, "hosts", MAX_HOSTS);
  for (const { host } of record.hosts) text(host, "hosts", limits.host);
  atMost(record.failures?.at ?? [], "failures", MAX_FAILURES);
  // every instant that reckoning follows
  const { failures, lastReport, lastError, hosts } = record;
  const others = [failures?.goodAt, ...(failures?.at ?? []), lastReport?.at, lastError?.at];
  for (const at of [...others, ...hosts.map((one) => one.at)]) duration(at ?? 0, "at");
}

function checkRuns({ openRuns, lastRun }: AgentRecord): void {
  atMost(openRuns, "openRuns", MAX_OPEN_RUNS);
  for (const run of openRuns) {
    check.runId(run.runId);
    checkInstants(run, ["startedAt", "answeredFromAt", "deadlineAt"]);
  }
  if (lastRun === undefined) return;
  check.runId(lastRun.runId);
  checkInstants(lastRun, ["startedAt", "finishedAt", "durationMs"]);
  if (lastRun.exitCode !== undefined) check.exitCode(lastRun.exitCode);
}

function atMost(list: unknown[], field: string, most: number): void {
  if (list.length > most) throw invalid(field, `${list.length} of them, at most ${most} are taken`);
}
