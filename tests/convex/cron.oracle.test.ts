import { Cron as Croner } from "croner";
import { describe, expect, test, vi } from "vitest";
import { nextFire, parseCron, prevFire } from "../../convex/heartbeat/model/cron.ts";
import { type Clock, clockChanges, daemonFires, daemonReading, readClock } from "./cron.oracle.ts";
import { between, randomExpression, seeded } from "./cron.samples.ts";

const LONG = process.env["HEARTBEAT_TEST_LONG"] === "1";
const FIXED_SEED = 20_260_101;
const SEED = Number(process.env["HEARTBEAT_TEST_SEED"] ?? (LONG ? Date.now() % 1e9 : FIXED_SEED));
const TIMES = LONG ? 25 : 1;
if (LONG) vi.setConfig({ testTimeout: 600_000 });

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** Between them: half hours and two hours, changes at midnight, winter time as the exception, three changes in a year. */
const ZONES = [
  "Europe/Berlin",
  "Europe/Dublin",
  "America/New_York",
  "America/St_Johns",
  "America/Havana",
  "America/Santiago",
  "Africa/Casablanca",
  "Africa/Cairo",
  "Australia/Lord_Howe",
  "Antarctica/Troll",
];

type Window = { clock: Clock; fromMs: number; toMs: number };

function windowAround(timeZone: string, instant: number, reachMs: number): Window {
  const [fromMs, toMs] = [instant - reachMs, instant + reachMs];
  return { clock: readClock(timeZone, fromMs, toMs), fromMs, toMs };
}

const known = new Map<string, Window[]>();
/** The 20 hours before and after each change of the clock of 2024-2030. */
function windowsOf(timeZone: string): Window[] {
  const windows =
    known.get(timeZone) ??
    clockChanges(timeZone, Date.UTC(2024), Date.UTC(2031)).map((change) =>
      windowAround(timeZone, change, 20 * HOUR_MS),
    );
  known.set(timeZone, windows);
  return windows;
}

/** Every fire of the window, walked forward by `nextFire`, and backward by `prevFire`. */
function walk(
  expression: string,
  { clock, fromMs, toMs }: Window,
): { forward: number[]; backward: number[] } {
  const cron = parseCron(expression);
  const forward: number[] = [];
  const backward: number[] = [];
  for (let at = nextFire(cron, clock.timeZone, fromMs - 1); at !== null && at < toMs;) {
    forward.push(at);
    at = nextFire(cron, clock.timeZone, at);
  }
  for (let at = prevFire(cron, clock.timeZone, toMs); at !== null && at >= fromMs;) {
    backward.push(at);
    at = prevFire(cron, clock.timeZone, at);
  }
  return { forward, backward: backward.reverse() };
}

/** What is wrong with our fires in the window, in words; [] when they are the daemon's. */
function differences(expression: string, window: Window, random: () => number): string[] {
  const { clock, fromMs, toMs } = window;
  const expected = daemonFires(expression, clock);
  const { forward, backward } = walk(expression, window);
  const found: string[] = [];
  const list = (fires: number[]) =>
    `${fires.length}: ${fires.slice(0, 3).map((fire) => new Date(fire).toISOString())}`;
  for (const [how, fires] of Object.entries({ forward, backward })) {
    if (fires.length !== expected.length || fires.some((at, index) => at !== expected[index])) {
      const stray = [
        fires.filter((at) => !expected.includes(at)),
        expected.filter((at) => !fires.includes(at)),
      ];
      found.push(
        `${expression} in ${clock.timeZone}, ${how}: extra [${list(stray[0]!)}], missing [${list(stray[1]!)}]`,
      );
    }
  }
  // strictness: an instant anywhere, often on a fire or a millisecond beside it
  const near =
    expected[between(random, 0, expected.length)] ?? fromMs + Math.floor(random() * (toMs - fromMs));
  const instant = near + between(random, -1, 1);
  const next = nextFire(parseCron(expression), clock.timeZone, instant);
  const prev = prevFire(parseCron(expression), clock.timeZone, instant);
  const after = expected.find((fire) => fire > instant);
  const before = expected.findLast((fire) => fire < instant);
  if (after === undefined ? next !== null && next > instant && next < toMs : next !== after) {
    found.push(`${expression} in ${clock.timeZone}: next after ${instant} is ${next}, expected ${after}`);
  }
  if (before === undefined ? prev !== null && prev < instant && prev >= fromMs : prev !== before) {
    found.push(`${expression} in ${clock.timeZone}: last before ${instant} is ${prev}, expected ${before}`);
  }
  return found;
}

/** Changes of the clock that are no longer made; [zone, year]. */
const HISTORY: [string, number][] = [
  ["Asia/Kathmandu", 1985], // a quarter of an hour on
  ["America/Caracas", 2007], // half an hour back
  ["Asia/Pyongyang", 2018], // half an hour on
  ["Antarctica/Vostok", 2023], // two hours back
  ["Antarctica/Casey", 2009], // three hours on: the clock was set anew
  ["Antarctica/Casey", 2010], // three hours back: still daylight saving for the daemon
  ["Pacific/Apia", 2011], // a day left out
  ["Pacific/Kwajalein", 1969], // 23 hours again
];

describe(`against the daemon, minute by minute (HEARTBEAT_TEST_SEED=${SEED})`, () => {
  test.for(ZONES)("every fire within 20 hours of every change of the clock of 2024-2030: %s", (timeZone) => {
    const random = seeded(SEED + ZONES.indexOf(timeZone));
    const found: string[] = [];
    for (const window of windowsOf(timeZone)) {
      for (let n = 0; n < 40 * TIMES; n++)
        found.push(...differences(randomExpression(random), window, random));
    }
    expect(found).toEqual([]);
  });

  test.for(HISTORY)("every fire within 30 hours of a change as in %s %d", ([timeZone, year]) => {
    const random = seeded(SEED);
    const changes = clockChanges(timeZone, Date.UTC(year), Date.UTC(year + 1));
    const found: string[] = [];
    for (const change of changes) {
      const window = windowAround(timeZone, change, 30 * HOUR_MS);
      for (let n = 0; n < 50 * TIMES; n++)
        found.push(...differences(randomExpression(random), window, random));
    }
    expect(changes).not.toEqual([]);
    expect(found).toEqual([]);
  });

  test("every fire of two days anywhere in 2024-2030, in any zone there is", () => {
    const random = seeded(SEED);
    const zones = ["UTC", ...Intl.supportedValuesOf("timeZone")];
    const found: string[] = [];
    for (let n = 0; n < 40 * TIMES; n++) {
      const timeZone = zones[between(random, 0, zones.length - 1)]!;
      const window = windowAround(timeZone, between(random, Date.UTC(2024), Date.UTC(2031)), DAY_MS);
      for (let m = 0; m < 10; m++) found.push(...differences(randomExpression(random), window, random));
    }
    expect(found).toEqual([]);
  });

  test("every fire of a leap year of expressions that fire on few days", () => {
    const random = seeded(SEED);
    const clock = readClock("America/Santiago", Date.UTC(2028), Date.UTC(2029));
    const window = { clock, fromMs: Date.UTC(2028), toMs: Date.UTC(2029) };
    const found: string[] = [];
    for (let n = 0; n < 40 * TIMES; n++) {
      const [, , day, month, weekday] = randomExpression(random).split(" ");
      const time = `${between(random, 0, 59)} ${random() < 0.5 ? "*/11" : between(random, 0, 23)}`;
      found.push(...differences(`${time} ${day} ${month} ${weekday}`, window, random));
    }
    expect(found).toEqual([]);
  });
});

describe("against croner, with the option that brings it nearest to Vixie's cron", () => {
  /** How croner reads what the daemon reads otherwise; read like this, the daemon fires exactly when croner does. */
  const CLASSES = {
    days: "a day field that begins with * but is more than * (such as */2) does not count as *: one day field is enough",
    wildcard: "a * or a step anywhere in minute or hour makes a wildcard job, not only a * at the beginning",
    sunday: "sun at the end of a range is 7, not 0",
  };

  test(`differs from us near changes of the clock in these classes only: ${Object.keys(CLASSES).join(", ")}`, () => {
    const random = seeded(SEED);
    const unexplained: string[] = [];
    const counts = { asked: 0, days: 0, wildcard: 0, sunday: 0 };
    for (const timeZone of ZONES) {
      for (const { clock, fromMs, toMs } of windowsOf(timeZone)) {
        for (let n = 0; n < 30 * TIMES; n++) {
          const expression = randomExpression(random);
          const [minute, hour, day, , weekday] = expression.split(" ");
          const debian = daemonReading(expression);
          const reading = {
            wildcard: /[*/]/.test(`${minute}${hour}`),
            bothDays: day === "*" || weekday === "*",
          };
          const read = expression.replace(/-sun/i, "-7");
          const instant = between(random, fromMs, toMs);
          const next = (fires: number[]) => fires.find((fire) => fire > instant);
          const inWindow = (fire: number | null | undefined) => (fire && fire < toMs ? fire : undefined);

          const croner = new Croner(expression, {
            timezone: timeZone,
            mode: "5-part",
            fixedTimeRule: "no-wildcard",
          });
          const theirs = inWindow(croner.nextRun(new Date(instant))?.getTime());
          const ours = inWindow(nextFire(parseCron(expression), timeZone, instant));
          counts.asked++;
          if (theirs !== next(daemonFires(read, clock, reading))) {
            unexplained.push(`${expression} in ${timeZone} after ${instant}: ${theirs}`);
          } else if (theirs !== ours) {
            if (read !== expression) counts.sunday++;
            else counts[reading.bothDays !== debian.bothDays ? "days" : "wildcard"]++;
          }
        }
      }
    }
    expect(unexplained).toEqual([]);
    if (SEED === FIXED_SEED && !LONG) {
      expect(counts).toEqual({ asked: 4230, days: 122, wildcard: 23, sunday: 2 });
    }
  });
});
