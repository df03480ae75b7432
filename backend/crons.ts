/**
 * When a cron of crons.ts fires next, and the table that remembers it over restarts. Calendar schedules are in UTC.
 * Runs that were missed collapse into one; an interval's first run is at its first deploy.
 */
import { createHash } from "node:crypto";
import { canonicalPath, type App, type CronSpec } from "./functions.ts";
import type { DueDuty } from "./messages.ts";
import type { Store } from "./store.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** Days to look ahead: 29 February comes at the latest after eight years (across 2100). */
const HORIZON_DAYS = 366 * 8 + 2;

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/** Sets of allowed values; days match when either day field does, if both are restricted. */
type Calendar = {
  minutes: Set<number>;
  hours: Set<number>;
  days: Set<number> | null;
  months: Set<number>;
  weekdays: Set<number> | null;
};

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

function field(text: string, first: number, last: number, names: string[] = []): Set<number> {
  const values = new Set<number>();
  const number = (word: string): number => {
    const named = names.indexOf(word.toLowerCase().slice(0, 3));
    const value = named >= 0 ? named + (names === MONTHS ? 1 : 0) : Number(word);
    if (!/^\d+$/.test(word) && named < 0) throw new Error(`"${word}" is not a number`);
    if (value < first || value > last) throw new Error(`${word} is not between ${first} and ${last}`);
    return value;
  };
  for (const part of text.split(",")) {
    const [span = "", stepText] = part.split("/");
    const step = stepText === undefined ? 1 : Number(stepText);
    if (!Number.isInteger(step) || step < 1) throw new Error(`"${part}" has no valid step`);
    const [from = "", to] = span.split("-");
    const low = from === "*" ? first : number(from);
    const high = from === "*" ? last : to !== undefined ? number(to) : stepText === undefined ? low : last;
    for (let value = low; value <= high; value += step) values.add(value);
  }
  return values;
}

/** Reads five cron fields. @throws Error that names the field's fault. */
function parseCron(expression: string): Calendar {
  const parts = expression.trim().split(/\s+/);
  if (parts.length !== 5) throw new Error(`"${expression}" does not have five fields`);
  const [minutes, hours, days, months, weekdays] = parts as [string, string, string, string, string];
  const sundays = [...field(weekdays, 0, 7, WEEKDAYS)].map((day) => day % 7);
  return {
    minutes: field(minutes, 0, 59),
    hours: field(hours, 0, 23),
    days: days === "*" ? null : field(days, 1, 31),
    months: field(months, 1, 12, MONTHS),
    weekdays: weekdays === "*" ? null : new Set(sundays),
  };
}

/** A minute for schedules that leave it to the host: always the same for one cron, spread over the hour. */
function minuteFor(name: string): number {
  return createHash("sha256").update(name).digest().readUInt16BE(0) % 60;
}

function calendarOf(name: string, schedule: CronSpec["schedule"]): Calendar {
  if (schedule.type === "cron") return parseCron(schedule.cron as string);
  const minutes = new Set([(schedule.minuteUTC as number | undefined) ?? minuteFor(name)]);
  const everyHour = schedule.type === "hourly";
  const weekday = WEEKDAYS.indexOf(String(schedule.dayOfWeek).slice(0, 3).toLowerCase());
  return {
    minutes,
    hours: everyHour ? new Set(range(0, 23)) : new Set([schedule.hourUTC as number]),
    days: schedule.type === "monthly" ? new Set([schedule.day as number]) : null,
    months: new Set(range(1, 12)),
    weekdays: schedule.type === "weekly" ? new Set([weekday]) : null,
  };
}

function dayMatches(calendar: Calendar, day: Date): boolean {
  if (!calendar.months.has(day.getUTCMonth() + 1)) return false;
  const byDate = calendar.days?.has(day.getUTCDate());
  const byWeekday = calendar.weekdays?.has(day.getUTCDay());
  if (byDate === undefined || byWeekday === undefined) return byDate ?? byWeekday ?? true;
  return byDate || byWeekday;
}

function nextOnCalendar(calendar: Calendar, after: number): number {
  const start = (Math.floor(after / MINUTE_MS) + 1) * MINUTE_MS;
  const firstDay = Math.floor(start / DAY_MS) * DAY_MS;
  for (let ahead = 0; ahead < HORIZON_DAYS; ahead++) {
    const day = firstDay + ahead * DAY_MS;
    if (!dayMatches(calendar, new Date(day))) continue;
    for (const hour of range(0, 23)) {
      if (!calendar.hours.has(hour)) continue;
      for (const minute of range(0, 59)) {
        const at = day + (hour * 60 + minute) * MINUTE_MS;
        if (at >= start && calendar.minutes.has(minute)) return at;
      }
    }
  }
  return Infinity;
}

function intervalMs(schedule: CronSpec["schedule"]): number {
  const { seconds = 0, minutes = 0, hours = 0 } = schedule as Record<string, number | undefined>;
  return ((hours * 60 + minutes) * 60 + seconds) * 1000;
}

/**
 * When a cron fires next.
 *
 * @param previous the run that just fell due, ms since the epoch; null for a cron that never ran.
 * @param now ms since the epoch; the answer is later, except for an interval's first run.
 */
export function nextFire(name: string, spec: CronSpec, previous: number | null, now: number): number {
  if (spec.schedule.type !== "interval") return nextOnCalendar(calendarOf(name, spec.schedule), now);
  if (previous === null) return now;
  const every = intervalMs(spec.schedule);
  return previous + every * Math.max(1, Math.floor((now - previous) / every) + 1);
}

/**
 * Brings the stored crons in line with the app's: new and changed ones start anew, unknown ones are forgotten.
 *
 * @throws Error that names the cron whose function is missing or whose expression cannot be read.
 */
export function applyCrons(store: Store, app: App, now: number): void {
  const stored = new Map(store.rows("SELECT name, spec FROM crons") as [string, string][]);
  for (const [name, spec] of Object.entries(app.crons)) {
    const path = canonicalPath(spec.name);
    if (!app.functions.has(path)) throw new Error(`the cron "${name}" calls ${path}, which does not exist`);
    const text = JSON.stringify(spec);
    if (stored.get(name) !== text) {
      let next: number;
      try {
        next = nextFire(name, spec, null, now);
      } catch (error) {
        throw new Error(`the cron "${name}" cannot be read: ${(error as Error).message}`);
      }
      store.run("INSERT OR REPLACE INTO crons VALUES (?, ?, ?)", name, text, next);
    }
    stored.delete(name);
  }
  for (const name of stored.keys()) store.run("DELETE FROM crons WHERE name = ?", name);
}

/** Whether its time has come; or lies further off than it can, because a clock that was ahead has been put right. */
function isDue(app: App, name: string, next: number, now: number): boolean {
  return next <= now || next > nextFire(name, app.crons[name] as CronSpec, now, now);
}

/** Crons whose time has come, except those that are still running. */
export function dueCrons(store: Store, app: App, now: number, running: string[]): DueDuty[] {
  const rows = store.rows("SELECT name, next FROM crons ORDER BY next") as [string, number][];
  return rows
    .filter(([name, next]) => !running.includes(name) && isDue(app, name, next, now))
    .map(([name]) => {
      const spec = app.crons[name] as CronSpec;
      const path = canonicalPath(spec.name);
      return {
        duty: { type: "cron", name },
        kind: app.functions.get(path)?.kind ?? "mutation",
        path,
        args: JSON.stringify(spec.args),
      };
    });
}

/** Writes down that a cron's run has been taken up, and when the next one is. @returns false when it was not due any more. */
export function advanceCron(store: Store, app: App, name: string, now: number): boolean {
  const [row] = store.rows("SELECT next FROM crons WHERE name = ?", name) as [number][];
  if (row === undefined || !isDue(app, name, row[0], now)) return false;
  const next = nextFire(name, app.crons[name] as CronSpec, Math.min(row[0], now), now);
  store.run("UPDATE crons SET next = ? WHERE name = ?", next, name);
  return true;
}

/** When the next cron is due, except those that are still running; null when there is none. */
export function nextCronAt(store: Store, app: App, now: number, running: string[]): number | null {
  const rows = store.rows("SELECT name, next FROM crons") as [string, number][];
  const times = rows
    .filter(([name]) => !running.includes(name))
    .map(([name, next]) => (isDue(app, name, next, now) ? Math.min(next, now) : next));
  return times.length > 0 ? Math.min(...times) : null;
}
