/**
 * Who is alive: facts and an instant in, state out. Pure; imports only the rules of schedules, runs and failures. The clock is
 * always an argument.
 *
 * Stored health is one of four; control decides whether it may move at all.
 *
 * | from             | by             | to               | when, and the stored reason                                                   |
 * |------------------|----------------|------------------|-------------------------------------------------------------------------------|
 * | -                | applySchedule  | new              | an agent is registered                                                        |
 * | new, ok, failing | sweep          | degraded         | now >= degradeAt: "never reported", "2 expected runs missed", "overrunning"   |
 * | new, ok, failing | report         | degraded         | it is so old that now >= the degradeAt it leads to; not while the sweep holds |
 * | new, ok, failing | report         | ok, failing      | by the errors in a row: "first report", "recovered", "reported error"         |
 * | ok, failing      | older report   | ok, failing      | it lengthens or breaks that row: "reported error 3 times in a row"            |
 * | degraded         | report         | ok, failing      | now < the degradeAt it leads to: "reported again", "reported error"           |
 * | any              | start          | the same         | a start answers an expected instant and opens a run, no more                  |
 * | ok, failing      | applySchedule  | ok, failing      | another failAfter judges the same errors: "fails after 3 errors now"          |
 * | any              | applySchedule  | the same         | a new schedule counts silence anew, and ends nothing                          |
 * | any              | pause, retire  | the same, frozen | no deadlines; reports are recorded and move nothing                           |
 * | any              | resume         | new, ok, failing | by the errors in a row, which a pause does not break: "resumed"; silence is   |
 * |                  |                |                  | counted from now                                                              |
 * | any              | import         | any              | as it was where a newer report was heard, if it was active there; by all the  |
 * |                  |                |                  | errors in a row, and the failAfter of here: "imported". No flip is stored,    |
 * |                  |                |                  | for flips are imported themselves                                             |
 *
 * A report is a heartbeat that is not a start: a plain one or a finish. It is failing from `failAfter` errors in a row on; with fewer it is ok.
 * `late` is not stored: whoever has a clock sees it from firstMissAt. Only heartbeats newer than what is known end or cause degraded; but
 * whatever the order of arrival, an expected instant once answered stays answered and liveness never moves backward.
 */
import { dueAfterHeartbeat, firstExpectedAfter, firstOfSeries } from "./expected";
import { failAfterOf, isFailing, tallied, whyFailing } from "./failures";
import { answeredFrom, finished, type HeardRun, type Runs, started } from "./runs";
import type { Control, Failures, Health, OpenRun, Status } from "./validators";

/** How many expected instants may pass in silence where the schedule does not say: one miss is a hiccup, two are a pattern. */
export const DEFAULT_MISSES = 2;

/** The order of display, stored: the worst first. Retired agents come last and are left out. */
export const RANKS = { degraded: 0, failing: 1, stuck: 2, new: 3, ok: 4, paused: 5, retired: 6 } as const;

/** What an `agentLiveness` row knows that decides about its health. */
export type Liveness = Runs & {
  graceMs: number;
  misses: number;
  failAfter?: number;
  control: Control;
  controlSince: number;
  health: Health;
  healthSince: number;
  noticedAt: number;
  reason?: string;
  resetAt: number;
  lastReport?: { at: number; heartbeatId: string; failing: boolean };
  failures?: Failures;
  lastHeartbeatAt?: number;
  lastHeartbeatId?: string;
};

/** The rules that a schedule sets. */
type Rules = Pick<Liveness, "schedule" | "graceMs" | "misses" | "failAfter" | "maxRunMs">;

/** When the agent is expected, when it degrades, when the sweep has to look; epoch ms, absent where there is none. */
export type Deadlines = { dueAt?: number; degradeAt?: number; sweepAt?: number };

/** A change of health as it is stored; see `agentFlips` in schema.ts. */
export type Flip = {
  from: Health;
  to: Health;
  reason: string;
  becameAt: number;
  noticedAt: number;
  silentSince?: number;
};

/** What to write: the changed facts with every deadline (an absent deadline stands as undefined, to be removed), and the flip if any. */
export type Move = { changes: Partial<Liveness> & Deadlines; flip?: Flip };

/** A heartbeat as far as liveness is concerned; every instant on the backend's clock. */
export type Heard = {
  heartbeatId: string;
  livenessAt: number;
  failing: boolean;
  run?: HeardRun;
};

/**
 * The due instant of an agent, whatever its control: the first that it has not answered, of those after the count began. An interval keeps
 * the rhythm of the last heartbeat also when the count begins anew.
 */
export function dueOf({ schedule, graceMs, resetAt, answeredFromAt }: Liveness): number | null {
  if (answeredFromAt === undefined) return firstExpectedAfter(schedule, resetAt);
  return firstOfSeries(schedule, dueAfterHeartbeat(schedule, graceMs, answeredFromAt), resetAt);
}

/** The first instants after `at` at which the agent is expected, at most `count`. */
export function expectedAfter(liveness: Liveness, at: number, count: number): number[] {
  const instants: number[] = [];
  let next = firstOfSeries(liveness.schedule, dueOf(liveness), at);
  while (next !== null && instants.length < count) {
    instants.push(next);
    next = firstExpectedAfter(liveness.schedule, next);
  }
  return instants;
}

// --- deadlines ---

/** Silence is counted from here: registration, resume or schedule change, or the newest sign of life. */
function countFrom(liveness: Liveness): number {
  return Math.max(liveness.resetAt, liveness.lastHeartbeatAt ?? 0);
}

/**
 * The first expected instant that the present silence misses, or will, given the agent's due instant: what passed while a run went on is none
 * of it, although no heartbeat answered it.
 */
export function firstMissOf(liveness: Liveness, dueAt: number | null): number | null {
  return firstOfSeries(liveness.schedule, dueAt, countFrom(liveness));
}

/** When silence alone would make the agent degraded: the `misses`-th unanswered expected instant, and the grace. */
function silentTooLongAt(liveness: Liveness): number | null {
  const { schedule, misses, graceMs } = liveness;
  let missed = firstMissOf(liveness, dueOf(liveness));
  for (let nth = 1; nth < misses && missed !== null; nth++) missed = firstExpectedAfter(schedule, missed);
  return missed === null ? null : missed + graceMs;
}

/** When the agent degrades if nothing more is heard: while a run is open, when the first of them overruns; otherwise by silence. */
function degradeAtOf(liveness: Liveness): number | null {
  if (liveness.openRuns.length === 0) return silentTooLongAt(liveness);
  return Math.min(...liveness.openRuns.map((run) => run.deadlineAt));
}

const OVERRUNNING = "overrunning";

function whyDegraded(liveness: Liveness): string {
  if (liveness.openRuns.length > 0) return OVERRUNNING;
  if (liveness.lastHeartbeatAt === undefined) return "never reported";
  return `${liveness.misses} expected ${liveness.misses === 1 ? "run" : "runs"} missed`;
}

/** All deadlines of a row. */
export function deadlinesOf(liveness: Liveness): Deadlines {
  if (liveness.control !== "active") return { dueAt: undefined, degradeAt: undefined, sweepAt: undefined };
  const degradeAt = degradeAtOf(liveness) ?? undefined;
  return {
    dueAt: dueOf(liveness) ?? undefined,
    degradeAt,
    sweepAt: liveness.health === "degraded" ? undefined : degradeAt,
  };
}

/** Where an agent stands in the order of display. */
export function rankOf(liveness: { control: Control; health: Health; status?: Status }): number {
  if (liveness.control !== "active") return RANKS[liveness.control];
  if (liveness.health === "degraded" || liveness.health === "failing") return RANKS[liveness.health];
  if (liveness.status === "blocked" || liveness.status === "waiting") return RANKS.stuck;
  return RANKS[liveness.health];
}

/** The flag that pages act on: an operator who paused or retired an agent does not want to hear of it. */
export function isDegraded(liveness: { control: Control; health: Health }): boolean {
  return liveness.control === "active" && liveness.health === "degraded";
}

/** The open run is known to be past its deadline: what was noticed of it, not what a clock would say by now. */
export function isOverrunning(row: Liveness & Deadlines, { deadlineAt }: OpenRun): boolean {
  if (!isDegraded(row) || row.reason !== OVERRUNNING) return false;
  return deadlineAt <= Math.max(row.noticedAt, row.degradeAt ?? 0);
}

// --- moves ---

/** A row that was changed, with its deadlines; `turn` is a change of health to store with it. */
function settle(
  liveness: Liveness,
  changes: Partial<Liveness>,
  turn?: { to: Health; reason: string; becameAt: number; now: number },
): Move {
  const changed = { ...liveness, ...changes };
  if (turn === undefined || turn.to === liveness.health) {
    return { changes: { ...changes, ...deadlinesOf(changed) } };
  }
  // what is delivered late may tell of before the last flip; the order of flips stays the order of what became true
  const becameAt = Math.max(turn.becameAt, liveness.healthSince);
  const turned = { health: turn.to, healthSince: becameAt, noticedAt: turn.now, reason: turn.reason };
  const flip: Flip = {
    from: liveness.health,
    to: turn.to,
    reason: turn.reason,
    becameAt,
    noticedAt: turn.now,
  };
  if (turn.to === "degraded") flip.silentSince = countFrom(changed);
  return { changes: { ...changes, ...turned, ...deadlinesOf({ ...changed, ...turned }) }, flip };
}

/** The facts of an agent that is registered at `now`. */
export function registered(rules: Rules, now: number): Liveness & Deadlines {
  const liveness: Liveness = {
    ...rules,
    control: "active",
    controlSince: now,
    health: "new",
    healthSince: now,
    noticedAt: now,
    resetAt: now,
    openRuns: [],
  };
  return { ...liveness, ...deadlinesOf(liveness) };
}

/**
 * The same agent under other rules. Only a change of the schedule itself counts silence anew. Who says that one error is not worth a call, or
 * that it is, wants to see it so now and not after the next report.
 */
export function rescheduled(liveness: Liveness, rules: Rules, scheduleChanged: boolean, now: number): Move {
  const changes: Partial<Liveness> = scheduleChanged ? { ...rules, resetAt: now } : rules;
  if (liveness.control !== "active" || !isReported(liveness.health)) return settle(liveness, changes);
  const failAfter = failAfterOf(rules);
  return settle(liveness, changes, {
    to: reportedHealth({ ...liveness, ...changes }),
    reason: `fails after ${failAfter} ${failAfter === 1 ? "error" : "errors"} now`,
    becameAt: now,
    now,
  });
}

/** Health that follows from what reports said, and nothing else. */
function isReported(health: Health): boolean {
  return health === "ok" || health === "failing";
}

function reportedHealth(liveness: Liveness): Health {
  return isFailing(liveness) ? "failing" : "ok";
}

/**
 * A heartbeat arrived at `now`. `held`: the monitor was away itself, nobody is flipped to degraded.
 *
 * The same heartbeats in another order lead to the same liveness, open runs, newest report and errors in a row, and to the same answered
 * instants, but for a finish that is heard before its start and says neither when that was nor how long ago: it answers from its own
 * instant, and what is answered stays so.
 */
export function hear(liveness: Liveness, heard: Heard, now: number, held: boolean): Move {
  const { livenessAt, heartbeatId, run } = heard;
  const newest = isNewer(heard, liveness.lastHeartbeatAt, liveness.lastHeartbeatId);
  const alive: Partial<Liveness> = newest
    ? { lastHeartbeatAt: livenessAt, lastHeartbeatId: heartbeatId }
    : {};
  if (run?.phase === "start") return settle(liveness, { ...alive, ...started(liveness, livenessAt, run) });

  const report = { at: livenessAt, heartbeatId, failing: heard.failing };
  const known = liveness.lastReport;
  const lastReport = isNewer(heard, known?.at, known?.heartbeatId) ? report : (known ?? report);
  const reported: Partial<Liveness> = {
    ...alive,
    ...finished(liveness, livenessAt, run),
    failures: tallied(liveness.failures, livenessAt, heard.failing),
    lastReport,
  };
  const changed: Liveness = { ...liveness, ...reported };
  const newestReport = lastReport === report;
  if (liveness.control !== "active" || !(newestReport || isReported(liveness.health))) {
    return settle(liveness, reported);
  }
  const failing = isFailing(changed);
  const said = {
    to: reportedHealth(changed),
    reason: failing ? whyFailing(changed) : OK_REASONS[liveness.health],
    becameAt: failing ? lastReport.at : livenessAt,
    now,
  };
  if (!newestReport) return settle(liveness, reported, said);
  const degradeAt = degradeAtOf(changed);
  const overdue = degradeAt !== null && now >= degradeAt;
  if (liveness.health === "degraded") {
    if (overdue || (!newest && tooOldAlone(liveness, heard, now))) {
      return settle(liveness, { ...reported, reason: whyDegraded(changed) });
    }
  } else if (overdue && !held) {
    return settle(liveness, reported, {
      to: "degraded",
      reason: whyDegraded(changed),
      becameAt: degradeAt,
      now,
    });
  }
  return settle(liveness, reported, said);
}

/** Without what was heard after it, the report would leave the agent degraded: a start since then must not make it count as life. */
function tooOldAlone(liveness: Liveness, { livenessAt, run }: Heard, now: number): boolean {
  const answeredFromAt = answeredFrom(liveness, livenessAt, run);
  const silentAt = silentTooLongAt({ ...liveness, lastHeartbeatAt: livenessAt, answeredFromAt });
  return silentAt !== null && now >= silentAt;
}

const OK_REASONS: Record<Health, string> = {
  new: "first report",
  ok: "reported",
  failing: "recovered",
  degraded: "reported again",
};

/** By liveness instant, ties by heartbeat id; anything is newer than nothing. */
export function isNewer(
  heard: { livenessAt: number; heartbeatId: string },
  at: number | undefined,
  heartbeatId: string | undefined,
): boolean {
  if (at === undefined || heartbeatId === undefined || heard.livenessAt > at) return true;
  return heard.livenessAt === at && heard.heartbeatId > heartbeatId;
}

/** The sweep looked at the row at `now`: degraded if its deadline, reckoned anew, has passed. */
export function sweep(liveness: Liveness, now: number): Move {
  const degradeAt = liveness.control === "active" ? degradeAtOf(liveness) : null;
  if (degradeAt === null || now < degradeAt) return settle(liveness, {});
  return settle(liveness, {}, { to: "degraded", reason: whyDegraded(liveness), becameAt: degradeAt, now });
}

/** The operator wants `control`, which is not what it is. */
export function setControl(liveness: Liveness, control: Control, now: number): Move {
  const changes: Partial<Liveness> = { control, controlSince: now };
  if (control !== "active" || liveness.control === "active") return settle(liveness, changes);
  const { lastReport, health } = liveness;
  const to = lastReport === undefined ? "new" : reportedHealth(liveness);
  const reason = "resumed";
  changes.resetAt = now;
  changes.openRuns = liveness.openRuns.filter((run) => run.deadlineAt > now);
  if (to === health) changes.reason = reason;
  return settle(liveness, changes, { to, reason, becameAt: now, now });
}

/** What another deployment concluded of an agent, and whether it watched it. */
type Concluded = Pick<Liveness, "control" | "health" | "healthSince" | "noticedAt" | "reason">;

/**
 * What another deployment knew besides takes its place among what is known here; `there`, if the newest report is one that only it knew: what it
 * concluded. Health then comes from there: who was degraded is, until it reports, whatever the rules of here, as after a change of schedule; how many
 * errors make an agent failing, they say. Who was not watched there is as one who is resumed here: nobody counted its silence. Deadlines follow, and
 * one that has passed is the sweep's to notice.
 */
export function takenOver(
  liveness: Liveness,
  facts: Partial<Liveness>,
  there: Concluded | undefined,
  now: number,
): Partial<Liveness> & Deadlines {
  if (liveness.control !== "active") return settle(liveness, facts).changes;
  const changed = { ...liveness, ...facts };
  const reported = reportedHealth(changed);
  const turnTo = (to: Health) => ({ to, reason: "imported", becameAt: now, now });
  if (there === undefined) {
    return settle(liveness, facts, isReported(liveness.health) ? turnTo(reported) : undefined).changes;
  }
  const { control, health, healthSince, noticedAt, reason } = there;
  if (control !== "active") {
    const openRuns = changed.openRuns.filter((run) => run.deadlineAt > now);
    const to = changed.lastReport === undefined ? "new" : reported;
    return settle(liveness, { ...facts, openRuns, resetAt: now }, turnTo(to)).changes;
  }
  const concluded =
    isReported(health) && health !== reported
      ? { health: reported, healthSince, noticedAt: now, reason: "imported" }
      : { health, healthSince, noticedAt, reason };
  return settle(liveness, { ...facts, ...concluded }).changes;
}
