import { describe, expect, test } from "vitest";
import {
  deadlinesOf,
  expectedAfter,
  hear,
  isDegraded,
  rankOf,
  rescheduled,
  setControl,
  sweep,
} from "../../convex/heartbeat/model/liveness";
import { after, agent, GRACE, heardNow, report, RULES, run, T } from "./rows";
import { cron, DAY, every, HOUR, MINUTE, runId } from "./world";

describe("silence", () => {
  test("new: degraded at the second instant and its grace, not a millisecond before, 'never reported'", () => {
    const row = agent();
    const at = T + 2 * HOUR + GRACE;
    expect(deadlinesOf(row)).toEqual({ dueAt: T + HOUR, degradeAt: at, sweepAt: at });
    expect(sweep(row, at - 1).flip).toBeUndefined();
    for (const now of [at, at + 1, at + DAY]) {
      expect(sweep(row, now).flip).toEqual({
        from: "new",
        to: "degraded",
        reason: "never reported",
        becameAt: at,
        noticedAt: now,
        silentSince: T,
      });
    }
  });

  test.each([
    ["ok", false],
    ["failing", true],
  ] as const)("%s: degraded when two expected runs are missed", (health, failing) => {
    const row = heardNow(agent(), report(T + MINUTE, { failing }));
    expect(row.health).toBe(health);
    const at = T + MINUTE + 2 * HOUR + GRACE;
    expect(sweep(row, at - 1).flip).toBeUndefined();
    const swept = after(row, sweep(row, at));
    expect(swept).toMatchObject({ health: "degraded", reason: "2 expected runs missed", healthSince: at });
    expect(swept).not.toHaveProperty("sweepAt");
    // what is degraded already is not flipped again, and what was answered does not change
    expect(sweep(swept, at + DAY).flip).toBeUndefined();
    expect(swept.dueAt).toBe(T + MINUTE + HOUR);
  });

  test("misses 1: degraded at due and grace, so that it is never late", () => {
    const row = heardNow(agent({ misses: 1 }), report(T));
    expect(row.degradeAt).toBe(row.dueAt! + GRACE);
    expect(after(row, sweep(row, row.degradeAt!)).reason).toBe("1 expected run missed");
  });

  test("paused, retired: the sweep finds nothing to do", () => {
    for (const control of ["paused", "retired"] as const) {
      const row = after(agent(), setControl(agent(), control, T));
      expect(sweep(row, T + 10 * DAY).flip).toBeUndefined();
      expect(deadlinesOf(row)).toEqual({ dueAt: undefined, degradeAt: undefined, sweepAt: undefined });
    }
  });

  test("a schedule that never fires again has no deadlines", () => {
    const row = agent({ schedule: cron("0 0 30 2 *") });
    expect(deadlinesOf(row)).toEqual({ dueAt: undefined, degradeAt: undefined, sweepAt: undefined });
    expect(expectedAfter(row, T, 5)).toEqual([]);
  });
});

describe("reports", () => {
  test("new to ok, ok to failing, failing to ok, with the instants they became true", () => {
    let row = agent();
    const steps: [at: number, failing: boolean, flip: object | undefined][] = [
      [T + 1, false, { from: "new", to: "ok", reason: "first report", becameAt: T + 1 }],
      [T + 2, false, undefined],
      [T + 3, true, { from: "ok", to: "failing", reason: "reported error", becameAt: T + 3 }],
      [T + 4, true, undefined],
      [T + 5, false, { from: "failing", to: "ok", reason: "recovered", becameAt: T + 5 }],
    ];
    for (const [at, failing, flip] of steps) {
      const move = hear(row, report(at, { failing }), at, false);
      if (flip) expect(move.flip).toMatchObject(flip);
      else expect(move.flip).toBeUndefined();
      row = after(row, move);
    }
    expect(row.healthSince).toBe(T + 5);
  });

  test("degraded to ok and to failing by a report that is young enough", () => {
    const silent = after(agent(), sweep(agent(), T + 5 * HOUR));
    const now = T + 6 * HOUR;
    expect(hear(silent, report(now), now, false).flip).toMatchObject({ to: "ok", reason: "reported again" });
    expect(hear(silent, report(now, { failing: true }), now, false).flip).toMatchObject({ to: "failing" });
  });

  test("degraded stays, up to the youngest report that is still too old", () => {
    const silent = after(agent(), sweep(agent(), T + 5 * HOUR));
    const now = T + 10 * HOUR;
    const tooOld = now - 2 * HOUR - GRACE;
    const stays = hear(silent, report(tooOld), now, false);
    expect(stays.flip).toBeUndefined();
    expect(after(silent, stays)).toMatchObject({ health: "degraded", reason: "2 expected runs missed" });
    expect(hear(silent, report(tooOld + 1), now, false).flip).toMatchObject({ from: "degraded", to: "ok" });
  });

  test("ok to degraded by a report so old that its deadline has passed, unless the sweep holds", () => {
    const row = heardNow(agent({ misses: 1 }), report(T));
    const [at, now] = [T + 10 * MINUTE, T + 3 * HOUR];
    const late = report(at);
    const becameAt = at + HOUR + GRACE;
    expect(hear(row, late, now, false).flip).toMatchObject({
      to: "degraded",
      becameAt,
      noticedAt: now,
      silentSince: at,
    });
    const held = hear(row, late, now, true);
    expect(held.flip).toBeUndefined();
    expect(after(row, held)).toMatchObject({ health: "ok", sweepAt: becameAt });
  });

  test("a report from before the last flip became true ends it where it began", () => {
    const silent = after(agent(), sweep(agent(), T + 2 * HOUR + GRACE));
    const move = hear(silent, report(T + 2 * HOUR), T + 2 * HOUR + 10 * MINUTE, false);
    expect(move.flip).toMatchObject({ to: "ok", becameAt: silent.healthSince });
  });

  test("an old report after a start does not end degraded, for alone it would not have", () => {
    const silent = after(agent(), sweep(agent(), T + 5 * HOUR));
    const now = T + 10 * HOUR;
    const started = after(silent, hear(silent, report(now, run("start", 1)), now, false));
    expect(hear(started, report(T + HOUR), now, false).flip).toBeUndefined();
    expect(hear(started, report(now - MINUTE), now, false).flip).toMatchObject({ to: "ok" });
  });

  test("ties are decided by the heartbeat id", () => {
    const late = { ...report(T + 1, { failing: true }), heartbeatId: "b" };
    const early = { ...report(T + 1), heartbeatId: "a" };
    expect(heardNow(agent(), early, late).health).toBe("failing");
    expect(heardNow(agent(), late, early).health).toBe("failing");
  });
});

describe("the operator", () => {
  test("pause freezes health, also against reports", () => {
    const failing = heardNow(agent(), report(T, { failing: true }));
    const paused = after(failing, setControl(failing, "paused", T + 1));
    const reported = heardNow(paused, report(T + HOUR));
    expect(reported).toMatchObject({ health: "failing", control: "paused", lastHeartbeatAt: T + HOUR });
    expect(reported).not.toHaveProperty("sweepAt");
  });

  test.each([
    ["new", undefined],
    ["ok", false],
    ["failing", true],
  ] as const)("resume leads to %s by the newest report, from degraded too", (to, failing) => {
    const before = failing === undefined ? agent() : heardNow(agent(), report(T, { failing }));
    const silent = after(before, sweep(before, T + DAY));
    const paused = after(silent, setControl(silent, "paused", T + DAY));
    expect(isDegraded(silent)).toBe(true);
    expect(isDegraded(paused)).toBe(false);
    const now = T + 2 * DAY;
    const move = setControl(paused, "active", now);
    expect(move.flip).toMatchObject({ from: "degraded", to, reason: "resumed", becameAt: now });
    const resumed = after(paused, move);
    expect(resumed).toMatchObject({ dueAt: now + HOUR, degradeAt: now + 2 * HOUR + GRACE });
    expect(sweep(resumed, now + DAY).flip).toMatchObject({
      becameAt: now + 2 * HOUR + GRACE,
      silentSince: now,
    });
  });

  test("resume keeps an interval's rhythm: due is on the series of the last heartbeat", () => {
    const row = heardNow(agent(), report(T + 10 * MINUTE));
    const paused = after(row, setControl(row, "paused", T + 20 * MINUTE));
    const now = T + 5 * HOUR;
    expect(setControl(paused, "active", now).changes).toMatchObject({
      dueAt: now + 10 * MINUTE,
      degradeAt: now + HOUR + 10 * MINUTE + GRACE,
    });
    // never heard of, there is no series yet
    const unheard = after(agent(), setControl(agent(), "paused", T));
    expect(setControl(unheard, "active", now).changes).toMatchObject({ dueAt: now + HOUR });
  });

  test("resume forgets runs that should have ended meanwhile", () => {
    const open = heardNow(
      agent({ maxRunMs: HOUR }),
      report(T, run("start", 1)),
      report(T + HOUR - 1, run("start", 2)),
    );
    const paused = after(open, setControl(open, "paused", T + HOUR));
    const resumed = after(paused, setControl(paused, "active", T + HOUR + 1));
    expect(resumed.openRuns.map((one) => one.runId)).toEqual([runId(2)]);
  });

  test("a new schedule counts from now; new grace alone does not", () => {
    const row = heardNow(agent(), report(T));
    const now = T + 90 * MINUTE;
    const quick = { schedule: every(20 * MINUTE), graceMs: GRACE, misses: 2 };
    expect(rescheduled(row, quick, true, now).changes).toMatchObject({
      dueAt: T + 100 * MINUTE,
      degradeAt: T + 120 * MINUTE + GRACE,
    });
    const daily = { schedule: every(DAY), graceMs: GRACE, misses: 2 };
    expect(rescheduled(row, daily, true, now).changes).toMatchObject({ dueAt: T + DAY });
    expect(rescheduled(agent(), daily, true, now).changes).toMatchObject({ dueAt: now + DAY });
    const patient = rescheduled(row, { ...RULES, graceMs: HOUR }, false, now).changes;
    expect(patient).toMatchObject({ dueAt: T + HOUR, degradeAt: T + 3 * HOUR });
  });

  test("a heartbeat from before the schedule changed answers nothing of the new one", () => {
    const now = T + 3 * HOUR;
    const row = after(agent(), rescheduled(agent(), { ...RULES, schedule: cron("0 10 * * *") }, true, now));
    const replayed = after(row, hear(row, report(T + HOUR), now, false));
    expect(replayed).toMatchObject({ health: "ok", dueAt: T + 2 * HOUR + DAY });
  });
});

test("rank: silence before errors, errors before waiting, then new, ok, paused, retired", () => {
  const active = { control: "active" } as const;
  const order = [
    rankOf({ ...active, health: "degraded", status: "blocked" }),
    rankOf({ ...active, health: "failing", status: "waiting" }),
    rankOf({ ...active, health: "ok", status: "blocked" }),
    rankOf({ ...active, health: "new" }),
    rankOf({ ...active, health: "ok", status: "error" }),
    rankOf({ control: "paused", health: "degraded" }),
    rankOf({ control: "retired", health: "degraded" }),
  ];
  expect(order).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(rankOf({ ...active, health: "new", status: "waiting" })).toBe(2);
});
