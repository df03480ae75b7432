/**
 * A second opinion on convex/heartbeat/model/cron.ts: walks through real time minute by minute, with the wall clock that Intl reads, and
 * does in each what Debian's cron daemon does when it wakes up. Slow and simple; shares nothing with the code it judges: no set of
 * values, no calendar search, no table of offsets.
 *
 * The daemon's rules, from its main loop: `virtual` is the wall minute up to which jobs have run. When the wall clock is
 *   1 ahead of it                        run every job of this minute
 *   2-5 ahead                            run every job of each minute passed over
 *   6-180 ahead (DST begins)             run the wildcard jobs of this minute and the fixed-time jobs of every minute passed over
 *   0-179 behind (DST ended)             run the wildcard jobs of this minute only; `virtual` stays until the clock has caught up
 *   further off either way (clock set)   run every job of this minute and go on from here
 * A job is a wildcard job when its minute or hour field begins with `*`.
 */

const MINUTE_MS = 60_000;

/** How long before the first minute asked for the daemon starts: longer than it remembers a clock that went back. */
const WARM_UP_MINUTES = 200;

/** Wall readings, in minutes as if they were UTC, for each real minute from `firstMinute` (minutes since the epoch) on. */
export type Clock = { timeZone: string; firstMinute: number; walls: Int32Array };

/** Read the wall clock of `timeZone` in each minute of [fromMs, toMs), and a little before. */
export function readClock(timeZone: string, fromMs: number, toMs: number): Clock {
  const read = wallReader(timeZone);
  const firstMinute = Math.ceil(fromMs / MINUTE_MS) - WARM_UP_MINUTES;
  const walls = new Int32Array(Math.ceil(toMs / MINUTE_MS) - firstMinute);
  for (let hour = 0; hour < walls.length; hour += 60) {
    const wall = read(firstMinute + hour);
    const steady = read(firstMinute + hour + 60) === wall + 60;
    // no two changes are so near each other that an hour could hide them
    walls.set(
      Array.from({ length: Math.min(60, walls.length - hour) }, (_, minute) =>
        steady ? wall + minute : read(firstMinute + hour + minute),
      ),
      hour,
    );
  }
  return { timeZone, firstMinute, walls };
}

/** Each instant (epoch ms) in [fromMs, toMs) at which the wall clock does not just go on, for changes further apart than a day. */
export function clockChanges(timeZone: string, fromMs: number, toMs: number): number[] {
  const read = wallReader(timeZone);
  const offset = (minute: number) => read(minute) - minute;
  const changes: number[] = [];
  for (let day = fromMs / MINUTE_MS; day < toMs / MINUTE_MS; day += 1440) {
    if (offset(day) === offset(day + 1440)) continue;
    let minute = day;
    while (offset(minute) === offset(day)) minute++;
    changes.push(minute * MINUTE_MS);
  }
  return changes;
}

/** How far (ms) the wall clock is ahead of UTC at an instant on a whole minute. */
export function wallOffset(timeZone: string, instant: number): number {
  return wallReader(timeZone)(instant / MINUTE_MS) * MINUTE_MS - instant;
}

/** Reads the wall clock at a real minute; both in minutes, the wall's as if it were UTC. */
function wallReader(timeZone: string): (minute: number) => number {
  const format = new Intl.DateTimeFormat("en-GB", {
    timeZone,
    hourCycle: "h23",
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
  });
  return (minute) => {
    // "25/10/2026, 02:30"
    const text = format.format(minute * MINUTE_MS);
    const number = (from: number, to: number) => Number(text.slice(from, to));
    return (
      Date.UTC(number(6, 10), number(3, 5) - 1, number(0, 2), number(12, 14), number(15, 17)) / MINUTE_MS
    );
  };
}

/** What the daemon concludes from the text of an expression: `wildcard` as above; `bothDays`: both day fields must match. */
export type Reading = { wildcard: boolean; bothDays: boolean };

export function daemonReading(expression: string): Reading {
  const [minute, hour, day, , weekday] = expression.split(" ").map((field) => field.startsWith("*"));
  return { wildcard: minute! || hour!, bothDays: day! || weekday! };
}

/**
 * Every instant (epoch ms) in the clock's span at which the daemon would run a job with this valid expression, its fields parted by
 * one space. With another `reading`: when it would, if it read the expression that way.
 */
export function daemonFires(expression: string, clock: Clock, reading = daemonReading(expression)): number[] {
  const { wildcard, bothDays } = reading;
  const matches = matcher(expression.split(" "), bothDays);
  const fires: number[] = [];
  let virtual = clock.walls[0]! - 1;
  for (let index = 0; index < clock.walls.length; index++) {
    const wall = clock.walls[index]!;
    const ahead = wall - virtual;
    let runs = false;
    if (ahead >= 1 && ahead <= 180) {
      const everyPassed = ahead <= 5 || !wildcard;
      if (!everyPassed) runs = matches(wall);
      for (let passed = virtual + 1; everyPassed && passed <= wall; passed++) runs ||= matches(passed);
      virtual = wall;
    } else if (ahead <= 0 && ahead > -180) {
      runs = wildcard && matches(wall);
    } else {
      runs = matches(wall);
      virtual = wall;
    }
    if (runs && index >= WARM_UP_MINUTES) fires.push((clock.firstMinute + index) * MINUTE_MS);
  }
  return fires;
}

/** Whether a wall minute matches the five fields. */
function matcher(fields: string[], bothDays: boolean): (wall: number) => boolean {
  const [minutes, hours, days, months, weekdays] = [60, 24, 32, 13, 7].map((count, index) =>
    Array.from({ length: count }, (_, value) => value).map(fieldAllows(fields[index]!, index)),
  );
  let dayNumber = NaN;
  let dayMatches = false;
  return (wall) => {
    const time = wall - Math.floor(wall / 1440) * 1440;
    if (!minutes![time % 60] || !hours![Math.floor(time / 60)]) return false;
    if (Math.floor(wall / 1440) !== dayNumber) {
      dayNumber = Math.floor(wall / 1440);
      const date = new Date(wall * MINUTE_MS);
      const byDate = days![date.getUTCDate()]!;
      const byWeekday = weekdays![date.getUTCDay()]!;
      dayMatches = months![date.getUTCMonth() + 1]! && (bothDays ? byDate && byWeekday : byDate || byWeekday);
    }
    return dayMatches;
  };
}

const LOW = [0, 0, 1, 1, 0];
const HIGH = [59, 23, 31, 12, 7];
const NAMES = [
  "",
  "",
  "",
  "jan=1 feb=2 mar=3 apr=4 may=5 jun=6 jul=7 aug=8 sep=9 oct=10 nov=11 dec=12",
  "sun=0 mon=1 tue=2 wed=3 thu=4 fri=5 sat=6",
];

/** Whether the text of field `index` allows a value; Sunday may be asked for as 0 and is also 7. */
function fieldAllows(text: string, index: number): (value: number) => boolean {
  const plain = NAMES[index]!.split(" ").reduce((line, pair) => {
    const [name, number] = pair.split("=");
    return name ? line.replaceAll(name, number!) : line;
  }, text.toLowerCase());
  const parts = plain.split(",").map((part) => {
    const [span, step = "1"] = part.split("/");
    const [low, high = low] = span === "*" ? [LOW[index]!, HIGH[index]!] : span!.split("-").map(Number);
    return { low: low!, high: high!, step: Number(step) };
  });
  return (value) => {
    const candidates = index === 4 && value === 0 ? [0, 7] : [value];
    return parts.some(({ low, high, step }) =>
      candidates.some((one) => one >= low && one <= high && (one - low) % step === 0),
    );
  };
}
