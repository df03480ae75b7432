/**
 * When a cron schedule fires. Pure: imports nothing (which is why it is one file), reads no clock, runs in Convex's
 * runtime and under Node as it is.
 *
 * The rules are those of Debian's cron (crontab(5), cron(8), and where the pages are silent what the daemon does):
 *
 * - Fields: minute 0-59, hour 0-23, day of month 1-31, month 1-12 or jan-dec, day of week 0-7 or sun-sat (0 and 7 are
 *   Sunday); each a list of `*`, `a`, `a-b`, with `/n` after `*` or a range. Names in any case, also in ranges.
 * - Days: when a day field begins with `*` (also with a step) both must match; otherwise one of the two is enough.
 * - Wildcard: an expression whose minute or hour field begins with `*` fires in each real minute whose wall clock
 *   matches: twice in a repeated hour, not at all in a skipped one.
 * - Otherwise it names fixed times: those in a skipped stretch come once, in the first minute after it; those in a
 *   repeated stretch come once, the first time.
 * - A wall clock that skips 3 hours or more, or repeats more than 3, was set anew (zones that changed sides of the date
 *   line): skipped times do not come, repeated ones come again.
 *
 * Stricter than the daemon, because a monitor must not guess: text after a number, `5/10` (the daemon reads 5, others
 * 5-59/10), ranges that run backwards (older daemons accept them and never fire) and shorthands such as `@daily` are
 * refused. Offsets are taken in whole minutes, which every zone has had since 1972.
 */

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** Characters of an expression: room for a list of every minute (169) besides the other fields. */
const MAX_EXPRESSION_CHARS = 256;

/** How far to look for a fire, in years: 29 February on one given weekday comes at most 40 years apart. */
const HORIZON_YEARS = 41;

/** A change of the wall clock of more than this is a clock set anew for the daemon, a smaller one daylight saving. */
const MAX_DAYLIGHT_CHANGE_MS = 3 * HOUR_MS;

/**
 * Offsets are surveyed one such stretch of time at a time: a quarter of a year. Not whole days, so that boundaries fall on
 * all times of day, also into repeated hours (Berlin's of 2027), where the tests see that they change nothing.
 */
const WINDOW_MS = (365 * DAY_MS + 18 * HOUR_MS) / 4;

/** A survey samples the offset this often; no zone has kept one for less since 1972 (Morocco's Ramadan: four weeks). */
const PROBE_MS = 4 * DAY_MS;

/** Surveyed stretches kept per zone: 41 years both ways. Over it all are dropped and surveyed again when asked for. */
const MAX_WINDOWS = 384;

/** Zones kept; a formatter holds tens of kilobytes, and a fleet uses a handful. Over it the oldest is dropped. */
const MAX_ZONES = 64;

/** Instants further from 1970 than this (ms; about the year 9999) are refused: a Date ends at 8.64e15. */
const MAX_INSTANT_MS = 2.5e14;

/** An expression or a zone that cannot be used; the message is one sentence: field, value, what was expected. */
export class CronError extends Error {
  override name = "CronError";
}

/** A parsed expression; made by `parseCron`, opaque to everyone else. */
export type Cron = {
  readonly expression: string;
  /** ascending */
  readonly minutes: readonly number[];
  /** ascending */
  readonly hours: readonly number[];
  /** bit 0 = the 1st */
  readonly days: number;
  /** bit 0 = January */
  readonly months: number;
  /** by the weekday of a month's 1st: bits of its days on a listed weekday; bits past the month's end mean nothing */
  readonly weekdays: readonly number[];
  /** neither day field begins with `*`: a day that matches one of them is enough */
  readonly eitherDay: boolean;
  /** the minute or hour field begins with `*` */
  readonly wildcard: boolean;
};

type Direction = 1 | -1;

// --- expressions ---

type Field = { name: string; low: number; high: number; names: readonly string[] };

const MONTH_NAMES = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAY_NAMES = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MINUTE: Field = { name: "minute", low: 0, high: 59, names: [] };
const HOUR: Field = { name: "hour", low: 0, high: 23, names: [] };
const DAY: Field = { name: "day of month", low: 1, high: 31, names: [] };
const MONTH: Field = { name: "month", low: 1, high: 12, names: MONTH_NAMES };
const WEEKDAY: Field = { name: "day of week", low: 0, high: 7, names: WEEKDAY_NAMES };

const SHORTHANDS: Record<string, string> = {
  "@yearly": "0 0 1 1 *",
  "@monthly": "0 0 1 * *",
  "@weekly": "0 0 * * 0",
  "@daily": "0 0 * * *",
  "@hourly": "0 * * * *",
};

/**
 * Read a five-field expression; fields are parted by spaces or tabs.
 *
 * An expression for a date that does not exist (`0 0 30 2 *`) is accepted, as cron does; `nextFire` then answers null.
 * @throws CronError with one sentence naming the field, its value, and what was expected
 */
export function parseCron(expression: string): Cron {
  if (expression.length > MAX_EXPRESSION_CHARS) {
    throw new CronError(
      `the cron expression has ${expression.length} characters, expected at most ${MAX_EXPRESSION_CHARS}`,
    );
  }
  const texts = expression.split(/[ \t]+/).filter((text) => text !== "");
  if (texts[0]?.startsWith("@")) {
    const fields = SHORTHANDS[texts[0].toLowerCase()];
    const example = fields ? `: ${quote(fields)}` : ' such as "0 0 * * *"';
    throw new CronError(`the cron shorthand ${quote(texts[0])} is not read, expected five fields${example}`);
  }
  const [minute, hour, day, month, weekday] = texts;
  if (!minute || !hour || !day || !month || !weekday || texts.length > 5) {
    throw new CronError(
      `the cron expression ${quote(expression)} has ${texts.length} field${texts.length === 1 ? "" : "s"}, ` +
        "expected five: minute, hour, day of month, month, day of week",
    );
  }
  return {
    expression,
    minutes: parseField(minute, MINUTE),
    hours: parseField(hour, HOUR),
    days: bits(parseField(day, DAY), DAY.low),
    months: bits(parseField(month, MONTH), MONTH.low),
    weekdays: daysByFirst(parseField(weekday, WEEKDAY)),
    eitherDay: !day.startsWith("*") && !weekday.startsWith("*"),
    wildcard: minute.startsWith("*") || hour.startsWith("*"),
  };
}

/** Times the seven bits of a week: that week five times over (bits 0, 7, 14, 21, 28). */
const WEEKLY = 0x10204081;

/** For each weekday that a month may begin with, the days of it that fall on one of `weekdays` (0 or 7 = Sunday). */
function daysByFirst(weekdays: readonly number[]): number[] {
  return WEEKDAY_NAMES.map(
    (_, first) =>
      bits(
        weekdays.map((weekday) => (weekday - first + 7) % 7),
        0,
      ) * WEEKLY,
  );
}

/** The values that a field lists, ascending, each once. */
function parseField(text: string, field: Field): number[] {
  const listed = new Set<number>();
  for (const item of text.split(",")) {
    const found = /^(?:\*|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:\/([0-9]+))?$/i.exec(item);
    if (!found)
      throw refuse(text, field, `is not a list of *, a, a-b, */n or a-b/n, expected ${range(field)}`);
    const [, first, last, stepText] = found;
    const low = first === undefined ? field.low : parseValue(first, text, field);
    const high = first === undefined ? field.high : last === undefined ? low : parseValue(last, text, field);
    const step = Number(stepText ?? 1);
    if (first !== undefined && last === undefined && stepText !== undefined) {
      const ranged = `${first}-${field.high}/${stepText}`;
      throw refuse(text, field, `has a step without a range, expected ${quote(ranged)}`);
    }
    if (low > high) {
      const wrapped = high === field.low ? high : `${field.low}-${high}`;
      throw refuse(text, field, `runs backwards, expected ${quote(`${low}-${field.high},${wrapped}`)}`);
    }
    if (step < 1) throw refuse(text, field, "has a step of 0, expected 1 or more");
    for (let value = low; value <= high; value += step) listed.add(value);
  }
  return [...listed].sort((a, b) => a - b);
}

function parseValue(text: string, fieldText: string, field: Field): number {
  const named = field.names.indexOf(text.toLowerCase());
  const value = named >= 0 ? named + field.low : /^[0-9]+$/.test(text) ? Number(text) : NaN;
  if (value >= field.low && value <= field.high) return value;
  const why = text === fieldText ? "cannot be read" : `has ${quote(text)}`;
  throw refuse(fieldText, field, `${why}, expected ${range(field)}`);
}

function range(field: Field): string {
  const names =
    field.names.length > 0 ? ` or ${field.names[0]} to ${field.names[field.names.length - 1]}` : "";
  return `${field.low} to ${field.high}${names}`;
}

function refuse(text: string, field: Field, why: string): CronError {
  return new CronError(`the ${field.name} field ${quote(text)} ${why}`);
}

function quote(text: string | undefined): string {
  return JSON.stringify(text);
}

function bits(values: readonly number[], low: number): number {
  return values.reduce((mask, value) => mask | (1 << (value - low)), 0);
}

// --- wall clock: "wall" instants are ms of the wall clock's reading taken as if it were UTC ---

const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/** The matching minute nearest to `wall` (a whole minute), itself included, after or before it; null: none in sight. */
function nearestWall(cron: Cron, wall: number, direction: Direction): number | null {
  const date = new Date(wall);
  const firstMonth = date.getUTCFullYear() * 12 + date.getUTCMonth();
  // bits of the days still ahead in this month, the day of `wall` included
  let ahead = direction > 0 ? -1 << (date.getUTCDate() - 1) : lowest(date.getUTCDate());
  for (let months = 0; months <= HORIZON_YEARS * 12; months++) {
    const year = Math.floor((firstMonth + direction * months) / 12);
    const month = firstMonth + direction * months - year * 12;
    let days = matchingDays(cron, year, month) & ahead;
    while (days !== 0) {
      const day = 31 - Math.clz32(direction > 0 ? days & -days : days);
      const start = Date.UTC(year, month, day + 1);
      const minute = (wall - start) / MINUTE_MS;
      const within = direction > 0 ? Math.max(minute, 0) : Math.min(minute, 24 * 60 - 1);
      const time = nearestTime(cron, within, direction);
      if (time !== undefined) return start + time * MINUTE_MS;
      days &= ~(1 << day);
    }
    ahead = -1;
  }
  return null;
}

/** The days of a month (0 = January) that match, bit 0 = the 1st. */
function matchingDays(cron: Cron, year: number, month: number): number {
  if ((cron.months & (1 << month)) === 0) return 0;
  const leapYear = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const length = month === 1 && leapYear ? 29 : MONTH_DAYS[month]!;
  // 1 January 1970 was a Thursday; the second remainder is for earlier months
  const first = (((Date.UTC(year, month, 1) / DAY_MS + 4) % 7) + 7) % 7;
  const weekdays = cron.weekdays[first]!;
  return (cron.eitherDay ? cron.days | weekdays : cron.days & weekdays) & lowest(length);
}

/** The lowest `count` bits, 1 to 31 of them. */
function lowest(count: number): number {
  return -1 >>> (32 - count);
}

/** The matching minute of the day nearest to `minute`, itself included, after or before it. */
function nearestTime(cron: Cron, minute: number, direction: Direction): number | undefined {
  const hour = Math.floor(minute / 60);
  if (cron.hours.includes(hour)) {
    const within = nearest(cron.minutes, minute % 60, direction);
    if (within !== undefined) return hour * 60 + within;
  }
  const other = nearest(cron.hours, hour + direction, direction);
  return other === undefined
    ? undefined
    : other * 60 + cron.minutes[direction > 0 ? 0 : cron.minutes.length - 1]!;
}

function nearest(ascending: readonly number[], value: number, direction: Direction): number | undefined {
  if (direction > 0) return ascending.find((one) => one >= value);
  let place = ascending.length - 1;
  while (place >= 0 && ascending[place]! > value) place -= 1;
  return ascending[place];
}

// --- zones ---

/**
 * A stretch of real time, [from, to), with one offset (wall - real, ms). `dueFrom` is the wall instant from which on
 * fixed times are still to come when the stretch begins: before from + offset after a skip (they come at `from`),
 * after it after a repeat.
 */
type Span = { from: number; to: number; offset: number; dueFrom: number };
type Zone = { formatter: Intl.DateTimeFormat; windows: Map<number, Span[]> };

const UTC_SPAN: Span = { from: -Infinity, to: Infinity, offset: 0, dueFrom: -Infinity };
const zones = new Map<string, Zone>();

/** Whether `name` is a time zone of the IANA database (fixed offsets such as +01:00 are not). */
export function isTimeZone(name: string): boolean {
  return findZone(name) !== undefined;
}

function findZone(name: string): Zone | undefined {
  const known = zones.get(name);
  if (known) return known;
  if (!/^[a-z]/i.test(name)) return undefined;
  let formatter: Intl.DateTimeFormat;
  try {
    formatter = new Intl.DateTimeFormat("en-US", { timeZone: name, timeZoneName: "longOffset" });
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
  const oldest = zones.keys().next();
  if (zones.size >= MAX_ZONES && !oldest.done) zones.delete(oldest.value);
  const zone = { formatter, windows: new Map<number, Span[]>() };
  zones.set(name, zone);
  return zone;
}

/** The span that `instant` lies in; it may begin or end at a mere boundary of the survey, where nothing changes. */
function spanAt(timeZone: string, instant: number): Span {
  if (timeZone === "UTC") return UTC_SPAN;
  const zone = findZone(timeZone);
  if (!zone) {
    throw new CronError(
      `the time zone ${quote(timeZone)} is unknown, expected an IANA name such as "Europe/Berlin"`,
    );
  }
  const index = Math.floor(instant / WINDOW_MS);
  let spans = zone.windows.get(index);
  if (!spans) {
    if (zone.windows.size >= MAX_WINDOWS) zone.windows.clear();
    spans = survey(zone, index * WINDOW_MS, (index + 1) * WINDOW_MS);
    zone.windows.set(index, spans);
  }
  return spans.find((span) => instant < span.to)!;
}

/** The spans that make up [start, end), both whole minutes. */
function survey(zone: Zone, start: number, end: number): Span[] {
  // begins earlier by the longest repeat: one that is still going on at `start` must be known
  let probed = start - MAX_DAYLIGHT_CHANGE_MS - MINUTE_MS;
  let offset = offsetAt(zone, probed);
  const spans: Span[] = [{ from: probed, to: end, offset, dueFrom: probed + offset }];
  while (probed < end - MINUTE_MS) {
    let next = Math.min(probed + PROBE_MS, end - MINUTE_MS);
    if (offsetAt(zone, next) !== offset) {
      while (next - probed > MINUTE_MS) {
        const middle = probed + Math.floor((next - probed) / MINUTE_MS / 2) * MINUTE_MS;
        if (offsetAt(zone, middle) === offset) probed = middle;
        else next = middle;
      }
      const skipped = offsetAt(zone, next) - offset;
      const setAnew = skipped >= MAX_DAYLIGHT_CHANGE_MS || skipped < -MAX_DAYLIGHT_CHANGE_MS;
      spans[spans.length - 1]!.to = next;
      spans.push({
        from: next,
        to: end,
        offset: offset + skipped,
        dueFrom: next + offset + (setAnew ? skipped : 0),
      });
      offset += skipped;
    }
    probed = next;
  }
  const cut = (span: Span) => ({
    ...span,
    from: start,
    dueFrom: Math.max(span.dueFrom, start + span.offset),
  });
  return spans.filter((span) => span.to > start).map((span) => (span.from < start ? cut(span) : span));
}

/** Wall minus real, ms: the end of "1/31/2030, GMT-03:30"; a bare "GMT" is 0. */
function offsetAt(zone: Zone, instant: number): number {
  const found = /GMT([+-])(\d\d):(\d\d)/.exec(zone.formatter.format(instant));
  if (!found) return 0;
  const size = Number(found[2]) * HOUR_MS + Number(found[3]) * MINUTE_MS;
  return found[1] === "-" ? -size : size;
}

// --- fires ---

/**
 * The first fire strictly after `afterMs` (epoch ms), as epoch ms on a whole minute; null: none within 41 years.
 * @throws CronError for an unknown zone, RangeError for an instant beyond about the year 9999
 */
export function nextFire(cron: Cron, timeZone: string, afterMs: number): number | null {
  return nearestFire(cron, timeZone, Math.floor(afterMs / MINUTE_MS) * MINUTE_MS + MINUTE_MS, 1);
}

/** The last fire strictly before `beforeMs`; otherwise as `nextFire`. */
export function prevFire(cron: Cron, timeZone: string, beforeMs: number): number | null {
  return nearestFire(cron, timeZone, Math.ceil(beforeMs / MINUTE_MS) * MINUTE_MS - MINUTE_MS, -1);
}

/** The fire nearest to the whole minute `start`, itself included, after or before it. */
function nearestFire(cron: Cron, timeZone: string, start: number, direction: Direction): number | null {
  if (!(Math.abs(start) <= MAX_INSTANT_MS)) throw new RangeError(`no instant for a schedule: ${start} ms`);
  const horizon = HORIZON_YEARS * 366 * DAY_MS;
  let at = start;
  while (Math.abs(at - start) <= horizon) {
    const span = spanAt(timeZone, at);
    const dueFrom = cron.wildcard ? span.from + span.offset : span.dueFrom;
    const reading = at + span.offset;
    if (direction > 0) {
      // at a span's first minute, fixed times that the wall clock skipped are still to come
      const wall = nearestWall(cron, at > span.from ? Math.max(reading, dueFrom) : dueFrom, direction);
      if (wall === null) return null;
      const fire = Math.max(wall - span.offset, span.from);
      if (fire < span.to) return fire;
      at = span.to;
    } else {
      const wall = nearestWall(cron, reading, direction);
      if (wall === null) return null;
      if (wall >= dueFrom) return Math.max(wall - span.offset, span.from);
      at = span.from - MINUTE_MS;
    }
  }
  return null;
}

/**
 * The shortest gap (ms) before any fire in (fromMs, fromMs + horizonMs], a fire's gap being the time since the fire
 * before it; null when nothing fires in that time. Looks no further once a gap is `stopAtMs` or less.
 */
export function shortestGapMs(
  cron: Cron,
  timeZone: string,
  fromMs: number,
  horizonMs: number,
  stopAtMs: number,
): number | null {
  let shortest: number | null = null;
  let fire = nextFire(cron, timeZone, fromMs);
  let before = fire === null ? null : prevFire(cron, timeZone, fire);
  while (fire !== null && fire <= fromMs + horizonMs) {
    if (before !== null) shortest = Math.min(shortest ?? Infinity, fire - before);
    if (shortest !== null && shortest <= stopAtMs) break;
    before = fire;
    fire = nextFire(cron, timeZone, fire);
  }
  return shortest;
}
