import { describe, expect, test } from "vitest";
import {
  defaultGraceMs,
  dueAfterHeartbeat,
  firstExpectedAfter,
  firstOfSeries,
  gapAt,
  sameExpectedInstant,
} from "../../convex/heartbeat/model/expected";
import { cron, DAY, every, HOUR, MINUTE, SECOND } from "./world";

/** Monday 2 March 2026, 08:00 UTC: a fire of all schedules below. */
const T = Date.UTC(2026, 2, 2, 8);

describe("the fire that a heartbeat answers", () => {
  test.each([
    // early window: grace, but a minute at least, half the gap and five minutes at most
    ["daily, no grace", "0 8 * * *", 0, MINUTE, DAY],
    ["daily, two minutes of grace", "0 8 * * *", 2 * MINUTE, 2 * MINUTE, DAY],
    ["daily, an hour of grace", "0 8 * * *", HOUR, 5 * MINUTE, DAY],
    ["every four minutes", "*/4 * * * *", HOUR, 2 * MINUTE, 4 * MINUTE],
    ["each minute", "* * * * *", HOUR, 30 * SECOND, MINUTE],
  ])("%s: up to its early window before, not earlier", (_, expression, graceMs, earlyMs, gapMs) => {
    const schedule = cron(expression);
    expect(dueAfterHeartbeat(schedule, graceMs, T - earlyMs - 1)).toBe(T);
    expect(dueAfterHeartbeat(schedule, graceMs, T - earlyMs)).toBe(T + gapMs);
    expect(dueAfterHeartbeat(schedule, graceMs, T)).toBe(T + gapMs);
    expect(dueAfterHeartbeat(schedule, graceMs, T + 1)).toBe(T + gapMs);
    expect(gapAt(schedule, T)).toBe(gapMs);
  });

  test("an interval counts from the heartbeat", () => {
    expect(dueAfterHeartbeat(every(HOUR), 0, T + 17)).toBe(T + 17 + HOUR);
    expect(gapAt(every(HOUR), T)).toBe(HOUR);
  });

  test("the gap of a fire is the one before it, also over a weekend and a change of the clock", () => {
    expect(gapAt(cron("0 8 * * 1-5"), T - HOUR)).toBe(3 * DAY);
    expect(gapAt(cron("0 8 * * 1-5"), T)).toBe(3 * DAY);
    expect(gapAt(cron("0 8 * * 1-5"), T + 1)).toBe(DAY);
    // Berlin, 29 March 2026: the night has 23 hours
    expect(gapAt(cron("0 8 * * *", "Europe/Berlin"), Date.UTC(2026, 2, 29, 5))).toBe(23 * HOUR);
  });

  test("a date that never comes", () => {
    const never = cron("0 0 30 2 *");
    expect(dueAfterHeartbeat(never, 0, T)).toBeNull();
    expect(firstExpectedAfter(never, T)).toBeNull();
    expect(firstOfSeries(never, null, T)).toBeNull();
  });
});

describe("a series of expected instants", () => {
  test("the first strictly after an instant, on the rhythm of an interval", () => {
    expect(firstOfSeries(every(HOUR), T, T - 1)).toBe(T);
    expect(firstOfSeries(every(HOUR), T, T)).toBe(T + HOUR);
    expect(firstOfSeries(every(HOUR), T, T + 5 * HOUR - 1)).toBe(T + 5 * HOUR);
    expect(firstOfSeries(every(HOUR), T, T + 5 * HOUR)).toBe(T + 6 * HOUR);
  });

  test("the first strictly after an instant, of a cron's fires", () => {
    const daily = cron("0 8 * * *");
    expect(firstOfSeries(daily, T, T - 1)).toBe(T);
    expect(firstOfSeries(daily, T, T)).toBe(T + DAY);
    expect(firstOfSeries(daily, T, T + 5 * DAY + 1)).toBe(T + 6 * DAY);
  });
});

test("two heartbeats are about one expected instant: within an interval, before the same fire", () => {
  expect(sameExpectedInstant(every(HOUR), 0, T, T + HOUR - 1)).toBe(true);
  expect(sameExpectedInstant(every(HOUR), 0, T, T + HOUR)).toBe(false);
  const daily = cron("0 8 * * *");
  expect(sameExpectedInstant(daily, HOUR, T - MINUTE, T + 23 * HOUR)).toBe(true);
  expect(sameExpectedInstant(daily, HOUR, T - 10 * MINUTE, T)).toBe(false);
});

test.each([
  ["every(1 min)", every(MINUTE), 5 * MINUTE],
  ["every(50 min)", every(50 * MINUTE), 5 * MINUTE],
  ["every(51 min)", every(51 * MINUTE), 5.1 * MINUTE],
  ["every(10 h)", every(10 * HOUR), HOUR],
  ["every(11 h)", every(11 * HOUR), HOUR],
  ["each 10 minutes", cron("*/10 * * * *"), 5 * MINUTE],
  ["hourly", cron("7 * * * *"), 6 * MINUTE],
  ["twice a day, two hours apart", cron("0 8,10 * * *"), 12 * MINUTE],
  ["daily", cron("15 8 * * *"), HOUR],
  ["monthly, no fire in the coming week", cron("0 0 15 * *"), HOUR],
] as const)(
  "grace by default, %s: a tenth of the shortest gap, from 5 minutes to an hour",
  (_, schedule, graceMs) => {
    expect(defaultGraceMs(schedule, T)).toBe(graceMs);
  },
);
