/** Applying a schedule: all of it or nothing, the same again without a change. */
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { fleet } from "../fleet";
import { cardOf, findRow, putCard, type Row, type RowChanges, store } from "./agents";
import {
  agentName,
  duration,
  DURATION_LIMITS,
  filledText,
  MAX_MISSES,
  quote,
  statusWord,
  TEXT_LIMITS,
  text,
  wholeNumber,
} from "./checks";
import { CronError, isTimeZone, nextFire, parseCron } from "./cron";
import { defaultGraceMs } from "./expected";
import { failAfterOf, MAX_FAILURES } from "./failures";
import { DEFAULT_MISSES, dueOf, rankOf, registered, rescheduled } from "./liveness";
import { findLinks, linkedRow } from "./links";
import { stopped } from "./monitor";
import { ensureReconciled } from "./reconcile";
import { invalid, Refusal } from "./refusal";
import type {
  Applied,
  Schedule,
  ScheduleArgs,
  ScheduleChange,
  ScheduledAgent,
  ScheduleProblem,
} from "./validators";

/** Agents of one call; the CLI sends a bigger schedule in several. */
const MAX_AGENTS = 200;

/** Names in `listed`, and rows read to find the unlisted: some megabytes, and more agents than one schedule file is read with. */
const MAX_LISTED = 5_000;

/** What a row takes over from the schedule as it stands there. */
type Registered = Pick<
  Row,
  "source" | "schedule" | "misses" | "maxRunMs" | "actWithinMs" | "purpose" | "plannedStatus" | "plannedHost"
> & { graceMs?: number; failAfter: number };

type Planned = { agent: string; wanted: Registered };

/**
 * What is wanted of an agent, its row as it is, and its row in the team's `agents` as it is found now. `relinked`: the link that its row had led
 * nowhere.
 */
type Known = Planned & { row: Row | null; agentRow: Row["agentRow"]; linked: boolean; relinked: boolean };

/** Register and change agents; see `scheduleArgs`. Refused as a whole, with every problem, when any agent's row cannot be used. */
export async function applySchedule(ctx: MutationCtx, args: ScheduleArgs): Promise<Applied> {
  const now = Date.now();
  const source = filledText(args.source, "source", TEXT_LIMITS.source);
  if (args.agents.length > MAX_AGENTS) {
    throw invalid("agents", `${args.agents.length} agents, at most ${MAX_AGENTS} are taken in one call`);
  }
  if (args.listed && args.listed.length > MAX_LISTED) {
    throw invalid("listed", `${args.listed.length} names, at most ${MAX_LISTED} are taken`);
  }
  const { planned, problems } = checkAgents(args.agents, source, now);
  if (problems.length > 0) return { outcome: "refused", problems };
  const write = !args.dryRun;
  const stoppedAt = await stopped(ctx, write);
  const { known, whole } = await knownAgents(ctx, planned, write);
  const changes: ScheduleChange[] = [];
  for (const one of known) changes.push(await applyOne(ctx, one, now, write));
  if (write) await ensureReconciled(ctx, whole);
  const unlisted = args.listed ? await unlistedAgents(ctx, source, args.listed) : [];
  return { outcome: args.dryRun ? "planned" : "applied", changes, unlisted, stoppedAt };
}

/** What there is of these agents; `whole` is false where the team's table could not be looked through to its end. */
async function knownAgents(
  ctx: MutationCtx,
  planned: Planned[],
  write: boolean,
): Promise<{ known: Known[]; whole: boolean }> {
  const known: Known[] = [];
  for (const one of planned) {
    const row = await findRow(ctx, one.agent);
    const team = row === null ? null : await linkedRow(ctx, row);
    known.push({
      ...one,
      row,
      agentRow: team?._id ?? row?.agentRow,
      linked: team !== null,
      relinked: false,
    });
  }
  const missing = known.filter(({ linked }) => !linked);
  // what would be made has no id yet
  const wouldBeMade = fleet.ownTables && !write;
  const { links, whole } = wouldBeMade
    ? { links: new Map<string, undefined>(missing.map(({ agent }) => [agent, undefined])), whole: true }
    : await findLinks(ctx, new Set(missing.map(({ agent }) => agent)));
  for (const one of missing) {
    if (!links.has(one.agent)) continue;
    Object.assign(one, { agentRow: links.get(one.agent), linked: true, relinked: one.row !== null });
  }
  return { known, whole };
}

async function applyOne(
  ctx: MutationCtx,
  { agent, wanted, row, agentRow, linked, relinked }: Known,
  now: number,
  write: boolean,
): Promise<ScheduleChange> {
  if (row === null) {
    const graceMs = wanted.graceMs ?? defaultGraceMs(wanted.schedule, now);
    const fresh = {
      agent,
      ...wanted,
      graceComputed: wanted.graceMs === undefined,
      ...registered({ ...wanted, graceMs }, now),
      agentRow,
      linked,
      hosts: [],
      runsSinceActed: 0,
    };
    if (write) await insertRow(ctx, fresh);
    return { agent, change: "added", fields: [], linked, firstDueAt: dueOf(fresh) ?? now };
  }
  const fields = changedFields(row, wanted);
  if (relinked) fields.push("link");
  const scheduleChanged = fields.includes("schedule");
  const { graceMs: stated, ...plain } = wanted;
  const keepsGrace = stated === undefined && row.graceComputed && !scheduleChanged;
  const graceMs = keepsGrace ? row.graceMs : (stated ?? defaultGraceMs(wanted.schedule, now));
  const move = rescheduled(row, { ...plain, graceMs }, scheduleChanged, now);
  const changes: RowChanges = { ...plain, ...move.changes, graceComputed: stated === undefined, agentRow };
  const outdated = linked !== row.linked || agentRow !== row.agentRow;
  if (write && (fields.length > 0 || outdated)) await store(ctx, row, changes, move.flip);
  return {
    agent,
    change: fields.length > 0 ? "changed" : "unchanged",
    fields,
    linked,
    control: row.control === "active" ? undefined : row.control,
    firstDueAt: dueOf({ ...row, ...changes }) ?? now,
  };
}

/** Store the row of an agent that is not watched yet, and show it on the team's row, if there is one. */
export async function insertRow(
  ctx: MutationCtx,
  fresh: Omit<Row, "_id" | "_creationTime" | "rank">,
): Promise<void> {
  const row = { ...fresh, rank: rankOf(fresh) };
  await ctx.db.insert("agentLiveness", row);
  const team = await linkedRow(ctx, row);
  if (team !== null) await putCard(ctx, team, cardOf(row));
}

/** Which of what the schedule states differs from the row, by the names that the arguments have. */
function changedFields(row: Row, wanted: Registered): string[] {
  const stated = {
    ...row,
    graceMs: row.graceComputed ? undefined : row.graceMs,
    failAfter: failAfterOf(row),
  };
  const names: [keyof Registered, string][] = [
    ["source", "source"],
    ["purpose", "purpose"],
    ["plannedStatus", "status"],
    ["graceMs", "graceMs"],
    ["misses", "misses"],
    ["failAfter", "failAfter"],
    ["maxRunMs", "maxRunMs"],
    ["actWithinMs", "actWithinMs"],
    ["plannedHost", "host"],
  ];
  const fields = names.filter(([key]) => stated[key] !== wanted[key]).map(([, name]) => name);
  return sameSchedule(row.schedule, wanted.schedule) ? fields : ["schedule", ...fields];
}

function sameSchedule(a: Schedule, b: Schedule): boolean {
  if (a.kind === "interval") return b.kind === "interval" && a.everyMs === b.everyMs;
  return b.kind === "cron" && a.expression === b.expression && a.timeZone === b.timeZone;
}

/** Agents that this schedule registered, that nobody retired, and that it no longer lists. */
async function unlistedAgents(ctx: QueryCtx, source: string, listed: string[]): Promise<string[]> {
  const names = new Set(listed);
  const rows = await ctx.db
    .query("agentLiveness")
    .withIndex("by_source_and_agent", (q) => q.eq("source", source))
    .take(MAX_LISTED);
  return rows.filter((row) => row.control !== "retired" && !names.has(row.agent)).map((row) => row.agent);
}

// --- checks: every problem of every agent, so that one look at the file mends it ---

/** What rows take over from the schedule, and every reason why they cannot. */
export function checkAgents(agents: ScheduledAgent[], source: string, now: number) {
  const planned: Planned[] = [];
  const problems: ScheduleProblem[] = [];
  const seen = new Set<string>();
  for (const args of agents) {
    const checker = new Checker(args.agent);
    checker.try(() => agentName(args.agent));
    if (seen.has(args.agent)) checker.problem("agent", `${quote(args.agent)} is listed twice`);
    seen.add(args.agent);
    const wanted = checkAgent(checker, args, source, now);
    problems.push(...checker.problems);
    planned.push({ agent: args.agent, wanted });
  }
  return { planned, problems };
}

function checkAgent(checker: Checker, args: ScheduledAgent, source: string, now: number): Registered {
  checkSchedule(checker, args.schedule, now);
  checker.try(() => args.purpose !== undefined && text(args.purpose, "purpose", TEXT_LIMITS.purpose));
  checker.try(() => args.host !== undefined && text(args.host, "host", TEXT_LIMITS.host));
  for (const field of ["graceMs", "maxRunMs", "actWithinMs"] as const) {
    const value = args[field];
    checker.try(() => value !== undefined && duration(value, field, DURATION_LIMITS[field]));
  }
  const misses = args.misses ?? DEFAULT_MISSES;
  checker.try(() => wholeNumber(misses, "misses", 1, MAX_MISSES));
  const failAfter = failAfterOf(args);
  checker.try(() => wholeNumber(failAfter, "failAfter", 1, MAX_FAILURES));
  const planned = checker.try(() => (args.status === undefined ? undefined : statusWord(args.status)));
  return {
    source,
    schedule: args.schedule,
    graceMs: args.graceMs,
    misses,
    failAfter,
    maxRunMs: args.maxRunMs,
    actWithinMs: args.actWithinMs,
    purpose: args.purpose,
    plannedStatus: planned?.status,
    plannedHost: args.host,
  };
}

function checkSchedule(checker: Checker, schedule: Schedule, now: number): void {
  if (schedule.kind === "interval") {
    checker.try(() => duration(schedule.everyMs, "schedule", DURATION_LIMITS.everyMs));
    return;
  }
  const { expression, timeZone } = schedule;
  if (!isTimeZone(timeZone)) {
    checker.problem("timeZone", `${quote(timeZone)} is no IANA time zone such as "Europe/Berlin"`);
  }
  try {
    const fires = isTimeZone(timeZone)
      ? nextFire(parseCron(expression), timeZone, now)
      : parseCron(expression);
    if (fires === null) checker.problem("schedule", `${quote(expression)} never fires`);
  } catch (error) {
    if (!(error instanceof CronError)) throw error;
    checker.problem("schedule", error.message);
  }
}

/** Collects the problems of one agent. */
class Checker {
  readonly problems: ScheduleProblem[] = [];
  readonly #agent: string;

  constructor(agent: string) {
    this.#agent = agent.slice(0, TEXT_LIMITS.agent);
  }

  problem(field: string, message: string): void {
    this.problems.push({ agent: this.#agent, field, message });
  }

  /** The value of a check, or undefined and a problem where it says `invalid`. */
  try<Value>(check: () => Value): Value | undefined {
    try {
      return check();
    } catch (error) {
      const { field, problem } = error instanceof Refusal ? error.data : {};
      if (field === undefined || problem === undefined) throw error;
      this.problem(field, problem);
      return undefined;
    }
  }
}
