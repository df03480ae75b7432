import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Cron,
  CronError,
  isTimeZone,
  nextFire,
  parseCron,
  prevFire,
  shortestGapMs,
} from "../../convex/heartbeat/model/cron.ts";
import { randomExpression, seeded } from "./cron.samples.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

const at = (iso: string) => Date.parse(iso);
const iso = (fire: number | null) => (fire === null ? null : new Date(fire).toISOString().slice(0, 16) + "Z");

/** The first `count` fires after an instant. */
function fires(expression: string, timeZone: string, after: string, count: number): (string | null)[] {
  const cron = parseCron(expression);
  const found: (string | null)[] = [];
  for (let last: number | null = at(after); last !== null && found.length < count;) {
    last = nextFire(cron, timeZone, last);
    found.push(iso(last));
  }
  return found;
}

function refusal(expression: string): string {
  try {
    parseCron(expression);
  } catch (error) {
    if (error instanceof CronError) return error.message;
    throw error;
  }
  return "accepted";
}

describe("parseCron reads what Debian's cron reads", () => {
  // an expression, and one with the same meaning in plain lists
  test.for([
    ["*/15 * * * *", "*,0,15 * * * *", false],
    ["*/15 * * * *", "*/15,0,45 * * * *", true],
    ["0 8 * jan,DEC *", "0 8 * 1,12 *", true],
    ["0 8 * Mar-may *", "0 8 * 3,4,5 *", true],
    ["0 8 * * mon-fri", "0 8 * * 1,2,3,4,5", true],
    ["0 8 * * mon-fri/2", "0 8 * * 1,3,5", true],
    ["0 8 * * sun-tue", "0 8 * * 0-2", true],
    ["0 8 * * 7", "0 8 * * 0", true],
    ["0 8 * * 5-7", "0 8 * * 0,5,6", true],
    ["0 8 * * */7", "0 8 * * *", false],
    ["08 08 01 01 *", "8 8 1 1 *", true],
    ["5-20/5 8 * * *", "5,10,15,20 8 * * *", true],
    ["5-20/99 8 * * *", "5 8 * * *", true],
    ["*/90 8 * * *", "*/60 8 * * *", true],
    ["30-30 8 * * *", "30 8 * * *", true],
    ["1,1,1-2 8 * * *", "1,2 8 * * *", true],
    ["\t 0  8\t* * *  ", "0 8 * * *", true],
  ] as const)("%j against %j: the same is %s", ([one, other, same]) => {
    const [left, right] = [one, other].map((text) => ({ ...parseCron(text), expression: "" }));
    if (same) expect(left).toEqual(right);
    else expect(left).not.toEqual(right);
  });

  test("a day field that begins with * needs both day fields to match, any other needs one", () => {
    const from = "2025-06-01T00:00:00Z"; // a Sunday
    // the 13th, or a Friday
    expect(fires("0 0 13 * fri", "UTC", from, 3)).toEqual([
      "2025-06-06T00:00Z",
      "2025-06-13T00:00Z",
      "2025-06-20T00:00Z",
    ]);
    expect(fires("0 0 12 * fri", "UTC", from, 3)).toEqual([
      "2025-06-06T00:00Z",
      "2025-06-12T00:00Z",
      "2025-06-13T00:00Z",
    ]);
    // an odd day that is a Friday
    expect(fires("0 0 */2 * fri", "UTC", from, 3)).toEqual([
      "2025-06-13T00:00Z",
      "2025-06-27T00:00Z",
      "2025-07-11T00:00Z",
    ]);
    expect(fires("0 0 13 * */5", "UTC", from, 2)).toEqual(["2025-06-13T00:00Z", "2025-07-13T00:00Z"]);
    // a list that reaches * later does not begin with it: every day
    expect(fires("0 0 13,* * fri", "UTC", from, 2)).toEqual(["2025-06-02T00:00Z", "2025-06-03T00:00Z"]);
  });

  test("both names and numbers of Sunday are one day", () => {
    for (const sunday of ["0", "7", "sun", "SUN", "0,7"]) {
      expect(fires(`0 0 * * ${sunday}`, "UTC", "2025-06-01T00:00:00Z", 2)).toEqual([
        "2025-06-08T00:00Z",
        "2025-06-15T00:00Z",
      ]);
    }
  });
});

describe("parseCron refuses with one sentence: field, value, what was expected", () => {
  test.for([
    [
      "",
      `the cron expression "" has 0 fields, expected five: minute, hour, day of month, month, day of week`,
    ],
    [
      "5",
      `the cron expression "5" has 1 field, expected five: minute, hour, day of month, month, day of week`,
    ],
    [
      "0 8 * *",
      `the cron expression "0 8 * *" has 4 fields, expected five: minute, hour, day of month, month, day of week`,
    ],
    [
      "0 0 8 * * *",
      `the cron expression "0 0 8 * * *" has 6 fields, expected five: minute, hour, day of month, month, day of week`,
    ],
    ["@daily", `the cron shorthand "@daily" is not read, expected five fields: "0 0 * * *"`],
    ["@Hourly", `the cron shorthand "@Hourly" is not read, expected five fields: "0 * * * *"`],
    ["@reboot", `the cron shorthand "@reboot" is not read, expected five fields such as "0 0 * * *"`],
    ["60 8 * * *", `the minute field "60" cannot be read, expected 0 to 59`],
    ["0 24 * * *", `the hour field "24" cannot be read, expected 0 to 23`],
    ["0 8 0 * *", `the day of month field "0" cannot be read, expected 1 to 31`],
    ["0 8 32 * *", `the day of month field "32" cannot be read, expected 1 to 31`],
    ["0 8 * 13 *", `the month field "13" cannot be read, expected 1 to 12 or jan to dec`],
    ["0 8 * january *", `the month field "january" cannot be read, expected 1 to 12 or jan to dec`],
    ["0 8 * * 8", `the day of week field "8" cannot be read, expected 0 to 7 or sun to sat`],
    ["0 8 * * jan", `the day of week field "jan" cannot be read, expected 0 to 7 or sun to sat`],
    ["jan 8 * * *", `the minute field "jan" cannot be read, expected 0 to 59`],
    ["1,61 8 * * *", `the minute field "1,61" has "61", expected 0 to 59`],
    ["5-61 8 * * *", `the minute field "5-61" has "61", expected 0 to 59`],
    ["1,,2 8 * * *", `the minute field "1,,2" is not a list of *, a, a-b, */n or a-b/n, expected 0 to 59`],
    ["1, 8 * * *", `the minute field "1," is not a list of *, a, a-b, */n or a-b/n, expected 0 to 59`],
    ["-5 8 * * *", `the minute field "-5" is not a list of *, a, a-b, */n or a-b/n, expected 0 to 59`],
    ["*5 8 * * *", `the minute field "*5" is not a list of *, a, a-b, */n or a-b/n, expected 0 to 59`],
    ["*/ 8 * * *", `the minute field "*/" is not a list of *, a, a-b, */n or a-b/n, expected 0 to 59`],
    ["*/x 8 * * *", `the minute field "*/x" is not a list of *, a, a-b, */n or a-b/n, expected 0 to 59`],
    ["*/0 8 * * *", `the minute field "*/0" has a step of 0, expected 1 or more`],
    ["5/10 8 * * *", `the minute field "5/10" has a step without a range, expected "5-59/10"`],
    ["0 22-2 * * *", `the hour field "22-2" runs backwards, expected "22-23,0-2"`],
    ["0 8 * * fri-sun", `the day of week field "fri-sun" runs backwards, expected "5-7,0"`],
    ["0 8 L * *", `the day of month field "L" cannot be read, expected 1 to 31`],
    [
      "0 8 ? * mon#2",
      `the day of month field "?" is not a list of *, a, a-b, */n or a-b/n, expected 1 to 31`,
    ],
    [
      "0 8 * *\n*",
      `the cron expression "0 8 * *\\n*" has 4 fields, expected five: minute, hour, day of month, month, day of week`,
    ],
    ["0 ".repeat(200), "the cron expression has 400 characters, expected at most 256"],
  ])("%j", ([expression, message]) => {
    expect(refusal(expression!)).toBe(message);
  });

  test("what it suggests instead is accepted", () => {
    for (const suggested of ["5-59/10 8 * * *", "0 22-23,0-2 * * *", "0 8 * * 5-7,0", "0 0 * * *"]) {
      expect(refusal(suggested)).toBe("accepted");
    }
  });

  test("any text is either read or refused with a CronError", () => {
    const character = fc.constantFrom(..."0123456789*/,- \t@jansuxL#?é");
    fc.assert(
      fc.property(fc.string({ unit: character, maxLength: 30 }), (text) => {
        expect(refusal(text)).toEqual(expect.any(String));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("fires across a change of the clock", () => {
  // Berlin: 02:00 becomes 03:00 on 30 March 2025 (01:00Z), 03:00 becomes 02:00 on 26 October 2025 (01:00Z)
  test.for([
    [
      "a fixed time in the gap comes once, right after it",
      "30 2 * * *",
      "2025-03-29T12:00:00Z",
      ["2025-03-30T01:00Z", "2025-03-31T00:30Z"],
    ],
    [
      "two fixed times in the gap come together",
      "10,50 2 * * *",
      "2025-03-29T12:00:00Z",
      ["2025-03-30T01:00Z", "2025-03-31T00:10Z"],
    ],
    [
      "a fixed time at the end of the gap is not doubled",
      "0 2,3 * * *",
      "2025-03-29T12:00:00Z",
      ["2025-03-30T01:00Z", "2025-03-31T00:00Z"],
    ],
    [
      "a range of hours is a fixed time too",
      "0 2-4 * * *",
      "2025-03-29T12:00:00Z",
      ["2025-03-30T01:00Z", "2025-03-30T02:00Z"],
    ],
    [
      "a step over a range is a fixed time too",
      "30 2-2/2 * * *",
      "2025-03-29T12:00:00Z",
      ["2025-03-30T01:00Z", "2025-03-31T00:30Z"],
    ],
    [
      "a * in the minute skips the gap",
      "*/30 2 * * *",
      "2025-03-29T12:00:00Z",
      ["2025-03-31T00:00Z", "2025-03-31T00:30Z"],
    ],
    [
      "a * in the hour skips the gap",
      "30 */2 * * *",
      "2025-03-30T00:00:00Z",
      ["2025-03-30T02:30Z", "2025-03-30T04:30Z"],
    ],
    [
      "an hourly one goes on each real hour",
      "5 * * * *",
      "2025-03-30T00:00:00Z",
      ["2025-03-30T00:05Z", "2025-03-30T01:05Z"],
    ],
    [
      "a fixed time in the repeated hour comes the first time only",
      "30 2 * * *",
      "2025-10-25T12:00:00Z",
      ["2025-10-26T00:30Z", "2025-10-27T01:30Z"],
    ],
    [
      "a * in the minute comes both times",
      "*/30 2 * * *",
      "2025-10-25T12:00:00Z",
      [
        "2025-10-26T00:00Z",
        "2025-10-26T00:30Z",
        "2025-10-26T01:00Z",
        "2025-10-26T01:30Z",
        "2025-10-27T01:00Z",
      ],
    ],
    [
      "a * in the hour comes both times",
      "30 * * * *",
      "2025-10-26T00:00:00Z",
      ["2025-10-26T00:30Z", "2025-10-26T01:30Z", "2025-10-26T02:30Z"],
    ],
    [
      "a list that only ends in * is a fixed time",
      "0,30,* 2 * * *",
      "2025-10-26T00:59:00Z",
      ["2025-10-27T01:00Z"],
    ],
    [
      "the minute after the repeat is no repeat",
      "0 3 * * *",
      "2025-10-25T12:00:00Z",
      ["2025-10-26T02:00Z", "2025-10-27T02:00Z"],
    ],
  ] as [string, string, string, string[]][])("Europe/Berlin: %s", ([, expression, after, expected]) => {
    expect(fires(expression, "Europe/Berlin", after, expected.length)).toEqual(expected);
  });

  test.for([
    // a clock half an hour on, and back
    ["Australia/Lord_Howe", "15 2 * * *", "2025-10-04T12:00:00Z", ["2025-10-04T15:30Z", "2025-10-05T15:15Z"]],
    ["Australia/Lord_Howe", "45 1 * * *", "2025-04-05T12:00:00Z", ["2025-04-05T14:45Z", "2025-04-06T15:15Z"]],
    // two hours: 01:00 becomes 03:00
    ["Antarctica/Troll", "30 1,2 * * *", "2025-03-29T12:00:00Z", ["2025-03-30T01:00Z", "2025-03-30T23:30Z"]],
    [
      "Antarctica/Troll",
      "30 1,2 * * *",
      "2025-10-25T12:00:00Z",
      ["2025-10-25T23:30Z", "2025-10-26T00:30Z", "2025-10-27T01:30Z"],
    ],
    // midnight itself is skipped
    ["America/Santiago", "0 0 * * *", "2025-09-06T12:00:00Z", ["2025-09-07T04:00Z", "2025-09-08T03:00Z"]],
    ["Africa/Cairo", "0 0 25 4 *", "2025-01-01T00:00:00Z", ["2025-04-24T22:00Z", "2026-04-24T21:00Z"]],
    // winter time is the exception by law, summer time the standard: nothing changes
    ["Europe/Dublin", "30 1 * * *", "2025-03-29T12:00:00Z", ["2025-03-30T01:00Z", "2025-03-31T00:30Z"]],
    // the clock goes back for Ramadan
    ["Africa/Casablanca", "30 2 * * *", "2025-02-22T12:00:00Z", ["2025-02-23T01:30Z", "2025-02-24T02:30Z"]],
    // offsets of quarter hours
    ["Asia/Kathmandu", "0 6 * * *", "2025-01-01T00:00:00Z", ["2025-01-01T00:15Z", "2025-01-02T00:15Z"]],
    ["America/St_Johns", "15 8 * * *", "2025-07-01T00:00:00Z", ["2025-07-01T10:45Z", "2025-07-02T10:45Z"]],
    // a day that never was: the clock was set anew, nothing is made up for
    ["Pacific/Apia", "0 8 * * *", "2011-12-29T00:00:00Z", ["2011-12-29T18:00Z", "2011-12-30T18:00Z"]],
    ["Pacific/Apia", "0 8 30 * *", "2011-12-29T00:00:00Z", ["2012-01-29T18:00Z"]],
    // three hours on are a clock set anew, three hours back still daylight saving
    ["Antarctica/Casey", "30 3 * * *", "2009-10-17T12:00:00Z", ["2009-10-18T16:30Z"]],
    ["Antarctica/Casey", "30 0 * * *", "2010-03-03T20:00:00Z", ["2010-03-04T13:30Z", "2010-03-05T16:30Z"]],
  ] as [string, string, string, string[]][])("%s: %s", ([timeZone, expression, after, expected]) => {
    expect(fires(expression, timeZone, after, expected.length)).toEqual(expected);
  });
});

describe("nextFire and prevFire", () => {
  const noon = parseCron("0 12 * * *");

  test("up to the fire, onto it, past it", () => {
    const fire = at("2025-06-02T12:00:00Z");
    expect(nextFire(noon, "UTC", fire - 1)).toBe(fire);
    expect(nextFire(noon, "UTC", fire)).toBe(fire + DAY_MS);
    expect(nextFire(noon, "UTC", fire + 1)).toBe(fire + DAY_MS);
    expect(prevFire(noon, "UTC", fire - 1)).toBe(fire - DAY_MS);
    expect(prevFire(noon, "UTC", fire)).toBe(fire - DAY_MS);
    expect(prevFire(noon, "UTC", fire + 1)).toBe(fire);
  });

  test("a fraction of a millisecond is on its side of the fire", () => {
    const fire = at("2025-06-02T12:00:00Z");
    expect(nextFire(noon, "UTC", fire - 0.5)).toBe(fire);
    expect(prevFire(noon, "UTC", fire + 0.5)).toBe(fire);
  });

  test("29 February is found across the year 2100", () => {
    expect(fires("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1)).toEqual(["2104-02-29T00:00Z"]);
    expect(iso(prevFire(parseCron("0 0 29 2 *"), "UTC", at("2104-02-29T00:00:00Z")))).toBe(
      "2096-02-29T00:00Z",
    );
  });

  test("29 February on one weekday is found 40 years on", () => {
    const sunday = parseCron("0 0 29 2 */7");
    expect(iso(nextFire(sunday, "Europe/Berlin", at("2088-03-01T00:00:00Z")))).toBe("2128-02-28T23:00Z");
    expect(iso(prevFire(sunday, "Europe/Berlin", at("2128-02-28T23:00:00Z")))).toBe("2088-02-28T23:00Z");
  });

  test.for(["0 0 30 2 *", "0 0 31 2,4,6,9,11 *"])(
    "a date that does not exist never comes: %s",
    (expression) => {
      expect(nextFire(parseCron(expression), "UTC", 0)).toBeNull();
      expect(prevFire(parseCron(expression), "Europe/Berlin", at("2025-01-01T00:00:00Z"))).toBeNull();
    },
  );

  test("a time that the clock skips each year never comes", () => {
    // the second Sunday of March at half past two, as a wall clock reading
    expect(
      nextFire(parseCron("*/30 2 8-14 3 */7"), "America/New_York", at("2025-01-01T00:00:00Z")),
    ).toBeNull();
  });

  test("one minute of every four years comes in each of them", () => {
    expect(fires("59 23 29 2 *", "Pacific/Chatham", "2024-01-01T00:00:00Z", 2)).toEqual([
      "2024-02-29T10:14Z",
      "2028-02-29T10:14Z",
    ]);
  });

  test("an unknown zone is a CronError naming it", () => {
    expect(() => nextFire(noon, "Mars/Olympus", 0)).toThrow(
      new CronError(`the time zone "Mars/Olympus" is unknown, expected an IANA name such as "Europe/Berlin"`),
    );
  });

  test.for([NaN, Infinity, -Infinity, 1e300, 8.64e15])(
    "no instant is no fire: %d is a RangeError",
    (instant) => {
      for (const timeZone of ["UTC", "Europe/Berlin"]) {
        expect(() => nextFire(noon, timeZone, instant)).toThrow(RangeError);
        expect(() => prevFire(noon, timeZone, instant)).toThrow(RangeError);
      }
    },
  );

  test("each is the other's inverse, on whole minutes, for any expression, instant and zone", () => {
    const zones = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu"];
    fc.assert(
      fc.property(
        fc.integer(),
        fc.constantFrom(...zones),
        fc.integer({ min: Date.UTC(1975), max: Date.UTC(2090) }),
        (seed, timeZone, instant) => {
          const cron = parseCron(randomExpression(seeded(seed)));
          const next = nextFire(cron, timeZone, instant);
          if (next === null) return;
          expect(next).toBeGreaterThan(instant);
          expect(next % MINUTE_MS).toBe(0);
          const before = prevFire(cron, timeZone, next);
          expect(before === null || before <= instant).toBe(true);
          if (before !== null) expect(nextFire(cron, timeZone, before)).toBe(next);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("many zones and many years answer the same when asked again", () => {
    const zones = Intl.supportedValuesOf("timeZone").slice(0, 100);
    const ask = () => zones.map((zone, index) => nextFire(noon, zone, Date.UTC(1980 + index, 3)));
    const years = () =>
      Array.from({ length: 120 }, (_, index) => nextFire(noon, "Europe/Berlin", Date.UTC(1980 + index, 3)));
    expect([ask(), years()]).toEqual([ask(), years()]);
  });

  test("20,000 heartbeats' worth of fires take far less than the second they may come in", () => {
    const crons = ["15 8 * * *", "*/5 * * * *", "0 0 1 1 *"].map(parseCron);
    const started = performance.now();
    for (let n = 0; n < 20_000; n++) {
      const instant = Date.UTC(2025) + n * 1e6;
      nextFire(crons[n % 3]!, "Europe/Berlin", instant);
      prevFire(crons[n % 3]!, "Europe/Berlin", instant);
    }
    // 20 us each would be 400 ms; measured 40 ms; the rest is room for a busy machine
    expect(performance.now() - started).toBeLessThan(2000);
  });
});

describe("isTimeZone", () => {
  test.for(["UTC", "Etc/UTC", "Europe/Berlin", "Asia/Kathmandu", "US/Eastern", "EST5EDT"])(
    "knows %s",
    (name) => {
      expect(isTimeZone(name)).toBe(true);
    },
  );
  test.for(["", " ", "Mars/Olympus", "+01:00", "-0800", "local", "Europe", "Europe/Berlin "])(
    "does not know %j",
    (name) => {
      expect(isTimeZone(name)).toBe(false);
    },
  );
});

describe("shortestGapMs", () => {
  const gap = (expression: string, timeZone: string, from: string, horizonMs = 7 * DAY_MS, stopAtMs = 0) =>
    shortestGapMs(parseCron(expression), timeZone, at(from), horizonMs, stopAtMs);

  test.for([
    ["*/5 * * * *", "UTC", 5 * MINUTE_MS],
    ["0 8,9 * * *", "UTC", HOUR_MS],
    ["0 23,1 * * *", "UTC", 2 * HOUR_MS],
    ["15 8 * * *", "UTC", DAY_MS],
    ["15 8 * * mon-fri", "UTC", DAY_MS],
    ["15 8 * * mon", "UTC", 7 * DAY_MS],
  ] as const)("%s in %s", ([expression, timeZone, expected]) => {
    expect(gap(expression, timeZone, "2025-06-03T00:00:00Z")).toBe(expected);
  });

  test("the day of a change of the clock counts with its real length", () => {
    expect(gap("15 8 * * *", "Europe/Berlin", "2025-03-28T12:00:00Z")).toBe(23 * HOUR_MS);
    expect(gap("15 8 * * *", "Europe/Berlin", "2025-03-31T12:00:00Z")).toBe(24 * HOUR_MS);
  });

  test("a fire exactly at the end counts, one past it does not; the first one's gap reaches back before the beginning", () => {
    const from = "2025-06-03T00:00:00Z";
    expect(gap("0 12 * * *", "UTC", from, 12 * HOUR_MS)).toBe(DAY_MS);
    expect(gap("0 12 * * *", "UTC", from, 12 * HOUR_MS - 1)).toBeNull();
  });

  test("nothing fires in the time, or ever: null", () => {
    expect(gap("0 0 1 1 *", "UTC", "2025-06-03T00:00:00Z")).toBeNull();
    expect(gap("0 0 30 2 *", "UTC", "2025-06-03T00:00:00Z")).toBeNull();
  });

  test("stops at the first gap that is short enough", () => {
    // 09:00, 09:50, and at 10:00 a shorter one
    expect(gap("0,50 9,10 * * *", "UTC", "2025-06-03T09:00:00Z", DAY_MS, 50 * MINUTE_MS)).toBe(
      50 * MINUTE_MS,
    );
    expect(gap("0,50 9,10 * * *", "UTC", "2025-06-03T09:00:00Z", DAY_MS)).toBe(10 * MINUTE_MS);
  });

  test("is the shortest of the gaps that nextFire walks through", () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: Date.UTC(2020), max: Date.UTC(2030) }), (seed, from) => {
        const cron: Cron = parseCron(randomExpression(seeded(seed)));
        const found: number[] = [];
        let before = prevFire(cron, "Europe/Berlin", nextFire(cron, "Europe/Berlin", from) ?? from);
        while (before !== null) {
          const fire = nextFire(cron, "Europe/Berlin", before);
          if (fire === null || fire > from + DAY_MS) break;
          found.push(fire - before);
          before = fire;
        }
        const expected = found.length > 0 ? Math.min(...found) : null;
        expect(shortestGapMs(cron, "Europe/Berlin", from, DAY_MS, 0)).toBe(expected);
      }),
      { numRuns: 300 },
    );
  });
});
