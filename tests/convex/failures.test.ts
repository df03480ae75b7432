import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  consecutiveFailures,
  isFailing,
  MAX_FAILURES,
  merged,
  tallied,
} from "../../convex/heartbeat/model/failures";
import { hear, rescheduled, setControl, sweep } from "../../convex/heartbeat/model/liveness";
import { after, agent, heardNow, report, RULES, T } from "./rows";
import { HOUR, MINUTE } from "./world";

const error = (at: number) => report(at, { failing: true });
const patient = (...heard: ReturnType<typeof report>[]) => heardNow(agent({ failAfter: 3 }), ...heard);
const failedTwice = () => patient(error(T + 1), error(T + 3));
const failedThrice = () => patient(error(T + 1), error(T + 3), error(T + 5));

describe("errors in a row", () => {
  test("new to ok by the first error of three, to failing by the third, to ok by a good report", () => {
    expect(patient(error(T + 1))).toMatchObject({ health: "ok", reason: "first report" });
    const failing = hear(failedTwice(), error(T + 5), T + 6, false);
    expect(failing.flip).toEqual({
      from: "ok",
      to: "failing",
      reason: "reported error 3 times in a row",
      becameAt: T + 5,
      noticedAt: T + 6,
    });
    expect(hear(failedThrice(), report(T + 6), T + 6, false).flip).toMatchObject({ reason: "recovered" });
  });

  test("ok to failing by an older error, from the newest on", () => {
    const move = hear(failedTwice(), error(T + 2), T + MINUTE, false);
    expect(move.flip).toMatchObject({ from: "ok", to: "failing", becameAt: T + 3, noticedAt: T + MINUTE });
    expect(after(failedTwice(), move).lastReport).toMatchObject({ at: T + 3 });
  });

  test("failing to ok by an older good report that breaks the row, not by one before it", () => {
    expect(hear(failedThrice(), report(T), T + MINUTE, false).flip).toBeUndefined();
    const move = hear(failedThrice(), report(T + 2), T + MINUTE, false);
    expect(move.flip).toMatchObject({ from: "failing", to: "ok", reason: "recovered", becameAt: T + 5 });
    expect(consecutiveFailures(after(failedThrice(), move))).toBe(2);
  });

  test("degraded to ok by an error below the limit, to failing at it; an older one moves nothing", () => {
    const silent = (row: ReturnType<typeof patient>) => after(row, sweep(row, T + 5 * HOUR));
    const now = T + 6 * HOUR;
    const [once, twice] = [silent(patient(error(T + 1))), silent(failedTwice())];
    expect(hear(once, error(now), now, false).flip).toMatchObject({ to: "ok", reason: "reported again" });
    expect(hear(twice, error(now), now, false).flip).toMatchObject({ to: "failing", becameAt: now });
    expect(hear(twice, error(T + 2), now, false).flip).toBeUndefined();
  });

  test("paused: errors are counted and move nothing until the resume", () => {
    const paused = after(failedTwice(), setControl(failedTwice(), "paused", T + 4));
    const heard = after(paused, hear(paused, error(T + 5), T + 5, false));
    expect(heard.health).toBe("ok");
    expect(setControl(heard, "active", T + 6).flip).toMatchObject({ to: "failing", reason: "resumed" });
  });

  test.each([
    ["failing", 4, "ok", "fails after 4 errors now"],
    ["ok", 1, "failing", "fails after 1 error now"],
  ])("%s under a limit of %i: %s", (from, failAfter, to, reason) => {
    const row = from === "ok" ? failedTwice() : failedThrice();
    const judged = (judgedRow = row) => rescheduled(judgedRow, { ...RULES, failAfter }, false, T + MINUTE);
    expect(judged().flip).toMatchObject({ from, to, reason, becameAt: T + MINUTE });
    for (const health of ["new", "degraded"] as const)
      expect(judged({ ...row, health }).flip).toBeUndefined();
    expect(judged({ ...row, control: "paused" }).flip).toBeUndefined();
  });
});

test("past a hundred a row of errors stays a hundred, and the newest are those that are known", () => {
  let known = tallied(undefined, T, false);
  for (let nth = 1; nth <= MAX_FAILURES + 20; nth++) known = tallied(known, T + nth, true);
  const lastReport = { failing: true };
  expect(consecutiveFailures({ failures: known, lastReport })).toBe(100);
  expect(isFailing({ failures: known, lastReport, failAfter: 100 })).toBe(true);
  const broken = tallied(known, T + 110, false);
  expect(consecutiveFailures({ failures: broken, lastReport })).toBe(10);
});

test("a row of functions that counted no errors has one where its last report said so, and none else", () => {
  expect(consecutiveFailures({})).toBe(0);
  expect(consecutiveFailures({ lastReport: { failing: false } })).toBe(0);
  expect(isFailing({ lastReport: { failing: true } })).toBe(true);
  const { failures, failAfter, ...old } = heardNow(agent(), error(T));
  expect([failures, failAfter]).toEqual([{ at: [T] }, undefined]);
  expect(heardNow(old, report(T + 1))).toMatchObject({ health: "ok", failures: { goodAt: T + 1, at: [] } });
});

test("of a good report and an error at one instant the newer decides, by its heartbeat id", () => {
  const good = { ...report(T), heartbeatId: "a" };
  const bad = { ...error(T), heartbeatId: "b" };
  for (const order of [
    [good, bad],
    [bad, good],
  ]) {
    expect(heardNow(agent(), ...order)).toMatchObject({ health: "failing" });
    expect(heardNow(agent(), ...order, error(T + 1)).failures?.at).toEqual([T + 1]);
  }
});

test("what two know of is as if all reports had come to one of them", () => {
  const reports = fc.array(fc.record({ failing: fc.boolean(), here: fc.boolean(), there: fc.boolean() }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(reports, (heard) => {
      const told = heard.map((one, nth) => ({ ...one, at: nth + 1 })).filter((one) => one.here || one.there);
      const tally = (some: typeof told) =>
        some.reduce<ReturnType<typeof merged>>(
          (known, { at, failing }) => tallied(known, at, failing),
          undefined,
        );
      const [here, there] = [told.filter((one) => one.here), told.filter((one) => one.there)];
      expect(merged(tally(here), tally(there))).toEqual(tally(told));
    }),
    { numRuns: 50 },
  );
});
