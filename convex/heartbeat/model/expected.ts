/** When a schedule expects its agent, and how much grace it gives. Pure; imports only the cron rules. */
import { type Cron, nextFire, parseCron, prevFire, shortestGapMs } from "./cron";
import type { Schedule } from "./validators";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** Grace where the schedule does not say: this part of its shortest gap, so that quick agents are noticed quickly, ... */
const GRACE_PART = 1 / 10;
/** ... but no less than a busy host needs to start a job and its report to arrive, ... */
const MIN_GRACE_MS = 5 * MINUTE_MS;
/** ... and no more than a person would wait. */
const MAX_GRACE_MS = HOUR_MS;
/** The shortest gap is looked for in the coming week: every weekly pattern once. */
const GRACE_HORIZON_MS = 7 * DAY_MS;

/** How early before a fire a heartbeat still answers it, at least (a minute: cron's own step) and at most. */
const MIN_EARLY_MS = MINUTE_MS;
const MAX_EARLY_MS = 5 * MINUTE_MS;

/** The gap taken for a fire with none before it (a schedule of the far future): longer than any bound it is compared with. */
const NO_GAP_MS = 366 * DAY_MS;

/** Parsed expressions kept; parsing costs more than a fire. A fleet uses far fewer; over it all are dropped. */
const MAX_PARSED = 1_000;

const parsed = new Map<string, Cron>();

function cronOf(expression: string): Cron {
  const known = parsed.get(expression);
  if (known) return known;
  if (parsed.size >= MAX_PARSED) parsed.clear();
  const cron = parseCron(expression);
  parsed.set(expression, cron);
  return cron;
}

/** The first expected instant after `at`, where no heartbeat answers any; null when the schedule never fires again. */
export function firstExpectedAfter(schedule: Schedule, at: number): number | null {
  if (schedule.kind === "interval") return at + schedule.everyMs;
  return nextFire(cronOf(schedule.expression), schedule.timeZone, at);
}

/** The fire that a heartbeat at `at` is about (the first at or after it), and its gap; null when there is none. */
function fireAbout(
  schedule: Schedule & { kind: "cron" },
  at: number,
): { fire: number; gapMs: number } | null {
  const cron = cronOf(schedule.expression);
  const fire = nextFire(cron, schedule.timeZone, at - 1);
  if (fire === null) return null;
  const before = prevFire(cron, schedule.timeZone, fire);
  return { fire, gapMs: before === null ? NO_GAP_MS : fire - before };
}

/**
 * The next expected instant that a heartbeat at `at` leaves unanswered. A cron fire shortly after it is answered by it (a run that reports
 * seconds early must not count as missed), one further off is not (nor may one that ends an hour before answer it).
 */
export function dueAfterHeartbeat(schedule: Schedule, graceMs: number, at: number): number | null {
  if (schedule.kind === "interval") return at + schedule.everyMs;
  const about = fireAbout(schedule, at);
  if (about === null) return null;
  const earlyMs = Math.min(Math.max(graceMs, MIN_EARLY_MS), about.gapMs / 2, MAX_EARLY_MS);
  return about.fire - at <= earlyMs ? firstExpectedAfter(schedule, about.fire) : about.fire;
}

/** Two heartbeats are about one expected instant: two hosts that send them both claim the agent. */
export function sameExpectedInstant(
  schedule: Schedule,
  graceMs: number,
  earlierAt: number,
  laterAt: number,
): boolean {
  if (schedule.kind === "interval") return laterAt - earlierAt < schedule.everyMs;
  return dueAfterHeartbeat(schedule, graceMs, earlierAt) === dueAfterHeartbeat(schedule, graceMs, laterAt);
}

/** Of the expected instants from `due` on, the first after `after`. */
export function firstOfSeries(schedule: Schedule, due: number | null, after: number): number | null {
  if (due === null || due > after) return due;
  if (schedule.kind === "cron") return firstExpectedAfter(schedule, after);
  return due + (Math.floor((after - due) / schedule.everyMs) + 1) * schedule.everyMs;
}

/** The grace of a schedule that states none; computed once, when the schedule is applied. */
export function defaultGraceMs(schedule: Schedule, now: number): number {
  const gapMs =
    schedule.kind === "interval"
      ? schedule.everyMs
      : (shortestGapMs(
          cronOf(schedule.expression),
          schedule.timeZone,
          now,
          GRACE_HORIZON_MS,
          MIN_GRACE_MS / GRACE_PART,
        ) ?? GRACE_HORIZON_MS);
  return Math.min(Math.max(gapMs * GRACE_PART, MIN_GRACE_MS), MAX_GRACE_MS);
}

/** The gap of the expected instant that a heartbeat at `at` is about. */
export function gapAt(schedule: Schedule, at: number): number {
  if (schedule.kind === "interval") return schedule.everyMs;
  return fireAbout(schedule, at)?.gapMs ?? NO_GAP_MS;
}
