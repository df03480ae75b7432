/**
 * Who is alive: facts and an instant in, state out. Pure; imports only the rules of schedules. The clock is
 * always an argument.
 *
 * Stored health is one of four; control decides whether it may move at all.
 *
 * | from             | by             | to               | when, and the stored reason                                                   |
 * |------------------|----------------|------------------|-------------------------------------------------------------------------------|
 * | -                | applySchedule  | new              | an agent is registered                                                        |
 * | new, ok, failing | sweep          | degraded         | now >= degradeAt: "never reported", "2 expected runs missed", "overrunning"   |
 * | new, ok, failing | report         | degraded         | it is so old that now >= the degradeAt it leads to; not while the sweep holds |
 * | new, ok, failing | report         | ok, failing      | by what the newest report says: "first report", "recovered", "reported error" |
 * | degraded         | report         | ok, failing      | now < the degradeAt it leads to: "reported again", "reported error"           |
 * | any              | start          | the same         | a start answers an expected instant and opens a run, no more                  |
 * | any              | applySchedule  | the same         | a new schedule counts silence anew, and ends nothing                          |
 * | any              | pause, retire  | the same, frozen | no deadlines; reports are recorded and move nothing                           |
 * | any              | resume         | new, ok, failing | by the newest report, or none: "resumed"; silence is counted from now         |
 *
 * A report is a heartbeat that is not a start: a plain one or a finish. `late` is not stored: whoever has a clock sees it from dueAt.
 * Only heartbeats newer than what is known move health; but whatever the order of arrival, an expected instant once answered stays
 * answered and liveness never moves backward.
 */
import { dueAfterHeartbeat, firstExpectedAfter, firstOfSeries, gapAt } from "./expected";
import type { Control, Health, LastRun, OpenRun, Phase, Schedule, Status } from "./validators";

const HOUR_MS = 60 * 60_000;

/** How many expected instants may pass in silence where the schedule does not say: one miss is a hiccup, two are a pattern. */
export const DEFAULT_MISSES = 2;

/** The least that a run may take before it is overrunning, where the schedule does not say. */
const MIN_MAX_RUN_MS = HOUR_MS;

/** Open runs remembered per agent; more than ten at once is a loop that loses its finishes. The oldest are forgotten. */
export const MAX_OPEN_RUNS = 10;

/** The order of display, stored: the worst first. Retired agents come last and are left out. */
export const RANKS = { degraded: 0, failing: 1, stuck: 2, new: 3, ok: 4, paused: 5, retired: 6 } as const;

/** What an `agentLiveness` row knows that decides about its health. */
export type Liveness = {
  schedule: Schedule;
  graceMs: number;
  misses: number;
  maxRunMs?: number;
  control: Control;
  controlSince: number;
  health: Health;
  healthSince: number;
  noticedAt: number;
  reason?: string;
  resetAt: number;
  answeredFromAt?: number;
  openRuns: OpenRun[];
  lastRun?: LastRun;
  lastReport?: { at: number; heartbeatId: string; failing: boolean };
  lastHeartbeatAt?: number;
  lastHeartbeatId?: string;
};

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
  run?: {
    runId: string;
    phase: Phase;
    startedAt?: number;
    finishedAt?: number;
    durationMs?: number;
    exitCode?: number;
    /** what is stored of the run's other phase, where the row alone does not know it (see `otherHalfOf`) */
    otherHalf?: { livenessAt: number; startedAt?: number };
  };
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

/** When silence alone would make the agent degraded: the `misses`-th unanswered expected instant, and the grace. */
function silentTooLongAt(liveness: Liveness): number | null {
  const { schedule, misses, graceMs } = liveness;
  let missed = firstOfSeries(schedule, dueOf(liveness), countFrom(liveness));
  for (let nth = 1; nth < misses && missed !== null; nth++) missed = firstExpectedAfter(schedule, missed);
  return missed === null ? null : missed + graceMs;
}

/** When the agent degrades if nothing more is heard: while a run is open, when the first of them overruns; otherwise by silence. */
function degradeAtOf(liveness: Liveness): number | null {
  if (liveness.openRuns.length === 0) return silentTooLongAt(liveness);
  return Math.min(...liveness.openRuns.map((run) => run.deadlineAt));
}

function whyDegraded(liveness: Liveness): string {
  if (liveness.openRuns.length > 0) return "overrunning";
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
export function registered(
  rules: Pick<Liveness, "schedule" | "graceMs" | "misses" | "maxRunMs">,
  now: number,
): Liveness & Deadlines {
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

/** The same agent under other rules. Only a change of the schedule itself counts silence anew. */
export function rescheduled(
  liveness: Liveness,
  rules: Pick<Liveness, "schedule" | "graceMs" | "misses" | "maxRunMs">,
  scheduleChanged: boolean,
  now: number,
): Move {
  return settle(liveness, scheduleChanged ? { ...rules, resetAt: now } : rules);
}

/** Which phase of the run must be looked up in history before `hear` can judge; undefined when the row itself knows. */
export function otherHalfOf(liveness: Liveness, run: { runId: string; phase: Phase }): Phase | undefined {
  if (run.phase === "start") return liveness.lastRun?.runId === run.runId ? undefined : "finish";
  return liveness.openRuns.some((open) => open.runId === run.runId) ? undefined : "start";
}

/**
 * A heartbeat arrived at `now`. `held`: the monitor was away itself, nobody is flipped to degraded.
 *
 * The same heartbeats in another order lead to the same liveness, open runs and newest report, and to the same answered instants, but for
 * a finish that is heard before its start and does not say when that was: it answers from its own instant, and what is answered stays so.
 */
export function hear(liveness: Liveness, heard: Heard, now: number, held: boolean): Move {
  const { livenessAt, heartbeatId, run } = heard;
  const newest = isNewer(heard, liveness.lastHeartbeatAt, liveness.lastHeartbeatId);
  const alive: Partial<Liveness> = newest
    ? { lastHeartbeatAt: livenessAt, lastHeartbeatId: heartbeatId }
    : {};
  if (run?.phase === "start") return settle(liveness, { ...alive, ...started(liveness, livenessAt, run) });

  const reported: Partial<Liveness> = { ...alive, ...finished(liveness, livenessAt, run) };
  if (!isNewer(heard, liveness.lastReport?.at, liveness.lastReport?.heartbeatId)) {
    return settle(liveness, reported);
  }
  reported.lastReport = { at: livenessAt, heartbeatId, failing: heard.failing };
  if (liveness.control !== "active") return settle(liveness, reported);

  const changed: Liveness = { ...liveness, ...reported };
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
  return settle(liveness, reported, {
    to: heard.failing ? "failing" : "ok",
    reason: heard.failing ? "reported error" : OK_REASONS[liveness.health],
    becameAt: livenessAt,
    now,
  });
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

/** The instant that a report answers from: a finish from when its run started, as well as that is known. */
function answeredFrom(liveness: Liveness, livenessAt: number, run: Heard["run"]): number {
  if (run === undefined) return livenessAt;
  const open = liveness.openRuns.find((one) => one.runId === run.runId);
  const from = open?.answeredFromAt ?? run.otherHalf?.livenessAt ?? run.startedAt ?? livenessAt;
  return Math.min(from, livenessAt);
}

/** What a start changes: the expected instant is answered, and the run is open unless it is known to be over. */
function started(liveness: Liveness, livenessAt: number, run: NonNullable<Heard["run"]>): Partial<Liveness> {
  const { runId } = run;
  const startedAt = run.startedAt ?? livenessAt;
  const answeredFromAt = Math.max(liveness.answeredFromAt ?? 0, livenessAt);
  if (liveness.lastRun?.runId === runId) {
    return { answeredFromAt, lastRun: { ...liveness.lastRun, startedAt } };
  }
  const deadlineAt = startedAt + (liveness.maxRunMs ?? defaultMaxRunMs(liveness.schedule, livenessAt));
  const over = run.otherHalf !== undefined || deadlineAt <= (liveness.lastReport?.at ?? 0);
  if (over || liveness.openRuns.some((open) => open.runId === runId)) return { answeredFromAt };
  const openRuns = [...liveness.openRuns, { runId, startedAt, answeredFromAt: livenessAt, deadlineAt }]
    .sort((a, b) => a.startedAt - b.startedAt || (a.runId < b.runId ? -1 : 1))
    .slice(-MAX_OPEN_RUNS);
  return { answeredFromAt, openRuns };
}

/** What a report changes besides health: its own run ends, and with it those that should have ended before it. */
function finished(liveness: Liveness, livenessAt: number, run: Heard["run"]): Partial<Liveness> {
  const answered = answeredFrom(liveness, livenessAt, run);
  const changes: Partial<Liveness> = {
    answeredFromAt: Math.max(liveness.answeredFromAt ?? 0, answered),
    openRuns: liveness.openRuns.filter((open) => open.runId !== run?.runId && open.deadlineAt > livenessAt),
  };
  if (run === undefined) return changes;
  const finishedAt = run.finishedAt ?? livenessAt;
  if (finishedAt < (liveness.lastRun?.finishedAt ?? 0)) return changes;
  const open = liveness.openRuns.find((one) => one.runId === run.runId);
  const startedAt = open?.startedAt ?? run.otherHalf?.startedAt ?? run.startedAt;
  const durationMs = run.durationMs ?? (startedAt === undefined ? undefined : finishedAt - startedAt);
  return {
    ...changes,
    lastRun: { runId: run.runId, startedAt, finishedAt, durationMs, exitCode: run.exitCode },
  };
}

/** A run may take as long as the gap it fills, an hour at least. */
function defaultMaxRunMs(schedule: Schedule, startedAt: number): number {
  return Math.max(MIN_MAX_RUN_MS, gapAt(schedule, startedAt));
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
  const to = lastReport === undefined ? "new" : lastReport.failing ? "failing" : "ok";
  const reason = "resumed";
  changes.resetAt = now;
  changes.openRuns = liveness.openRuns.filter((run) => run.deadlineAt > now);
  if (to === health) changes.reason = reason;
  return settle(liveness, changes, { to, reason, becameAt: now, now });
}
