import { describe, expect, test } from "vitest";
import { hear, isOverrunning, type Liveness, sweep } from "../../convex/heartbeat/model/liveness";
import { lasted, MAX_OPEN_RUNS, otherHalfOf } from "../../convex/heartbeat/model/runs";
import { after, agent, GRACE, heardNow, report, run, T } from "./rows";
import { cron, DAY, every, HOUR, MINUTE, runId, SECOND } from "./world";

describe("runs", () => {
  const [start, finish] = [run("start", 1), run("finish", 1)];

  test.each(["new", "ok", "failing", "degraded"] as const)("%s: a start changes no health", (health) => {
    const row = { ...agent(), health };
    const move = hear(row, report(T + HOUR, start), T + HOUR, false);
    expect(move.flip).toBeUndefined();
    expect(after(row, move)).toMatchObject({ health, dueAt: T + 2 * HOUR });
  });

  test("while a run is open only its deadline counts, at and not before it", () => {
    const row = heardNow(agent({ maxRunMs: 5 * HOUR }), report(T), report(T + HOUR, start));
    expect(row.sweepAt).toBe(T + 6 * HOUR);
    expect(sweep(row, T + 6 * HOUR - 1).flip).toBeUndefined();
    expect(sweep(row, T + 6 * HOUR).flip).toMatchObject({ reason: "overrunning", becameAt: T + 6 * HOUR });
  });

  test("by default a run may take its gap, an hour at least", () => {
    const quick = heardNow(agent({ schedule: every(5 * MINUTE) }), report(T, start));
    expect(quick.openRuns[0]?.deadlineAt).toBe(T + HOUR);
    const daily = heardNow(agent({ schedule: cron("0 8 * * *") }), report(T + SECOND, start));
    expect(daily.openRuns[0]?.deadlineAt).toBe(T + SECOND + DAY);
    const afterWeekend = heardNow(agent({ schedule: cron("0 8 * * 1-5") }), report(T - 4 * DAY, start));
    expect(afterWeekend.openRuns[0]?.deadlineAt).toBe(T - 3 * DAY);
    const overWeekend = heardNow(agent({ schedule: cron("0 8 * * 1-5") }), report(T - 3 * DAY + 1, start));
    expect(overWeekend.openRuns[0]?.deadlineAt).toBe(T + 1);
  });

  test("a finish answers what its start answered, and the missed instants of its run are not counted again", () => {
    const row = heardNow(agent({ maxRunMs: DAY }), report(T, start), report(T + 3.5 * HOUR, finish));
    expect(row.dueAt).toBe(T + HOUR);
    expect(row.degradeAt).toBe(T + 5 * HOUR + GRACE);
    // cron: a start in time, a finish just before the next fire
    const hourly = agent({ schedule: cron("0 * * * *"), maxRunMs: DAY });
    const late = heardNow(hourly, report(T, start), report(T + HOUR - MINUTE, finish));
    expect(late.dueAt).toBe(T + HOUR);
    expect(heardNow(hourly, report(T + HOUR - MINUTE)).dueAt).toBe(T + 2 * HOUR);
  });

  test("a finish whose start was never heard answers from when it says the run started", () => {
    const row = heardNow(agent(), report(T + 90 * MINUTE, run("finish", 1, { startedAt: T + 10 * MINUTE })));
    expect(row.dueAt).toBe(T + 70 * MINUTE);
    expect(row.lastRun).toMatchObject({
      startedAt: T + 10 * MINUTE,
      finishedAt: T + 90 * MINUTE,
    });
    expect(lasted(row.lastRun!)).toBe(80 * MINUTE);
  });

  test("a finish that says not when its run started, heard before its start, answers from its own instant for good", () => {
    const row = heardNow(agent(), report(T + 90 * MINUTE, finish));
    expect(row.dueAt).toBe(T + 150 * MINUTE);
    const filled = after(row, hear(row, report(T + 10 * MINUTE, start), T + 91 * MINUTE, false));
    expect(filled).toMatchObject({ dueAt: T + 150 * MINUTE, lastRun: { startedAt: T + 10 * MINUTE } });
  });

  test("an instant that another run's start answered stays answered when an older run finishes", () => {
    const rows = [report(T, start), report(T + HOUR, run("start", 2)), report(T + HOUR + 1, finish)];
    expect(heardNow(agent(), ...rows).dueAt).toBe(T + 2 * HOUR);
  });

  test("a report ends its own run and those whose deadline has passed, no other", () => {
    const open = heardNow(
      agent({ maxRunMs: HOUR }),
      report(T, run("start", 1)),
      report(T + 30 * MINUTE, run("start", 2)),
      report(T + 40 * MINUTE, run("start", 3)),
    );
    const ids = (row: Liveness) => row.openRuns.map((one) => one.runId);
    expect(ids(heardNow(open, report(T + HOUR - 1, run("finish", 3))))).toEqual([runId(1), runId(2)]);
    expect(ids(heardNow(open, report(T + HOUR)))).toEqual([runId(2), runId(3)]);
  });

  test("overrunning to ok by its finish", () => {
    const row = heardNow(agent({ maxRunMs: HOUR }), report(T, start));
    const over = after(row, sweep(row, T + HOUR));
    expect(over.health).toBe("degraded");
    expect(hear(over, report(T + 65 * MINUTE, finish), T + 65 * MINUTE, false).flip).toMatchObject({
      to: "ok",
    });
  });

  test("overrunning stays while a report from before its deadline is all that is new", () => {
    const row = heardNow(agent({ maxRunMs: HOUR }), report(T, start));
    const over = after(row, sweep(row, T + HOUR));
    expect(hear(over, report(T + 30 * MINUTE), T + 70 * MINUTE, false).flip).toBeUndefined();
  });

  test("a start after its finish fills in startedAt and opens nothing", () => {
    const row = heardNow(agent(), report(T + HOUR, run("finish", 1, { exitCode: 2 })));
    expect(otherHalfOf(row, start.run)).toBeUndefined();
    const filled = after(row, hear(row, report(T + MINUTE, start), T + HOUR, false));
    expect(filled.openRuns).toEqual([]);
    expect(filled.lastRun).toMatchObject({ startedAt: T + MINUTE, exitCode: 2 });
  });

  test("the last run is the one that finished last, whichever is heard of last", () => {
    const row = heardNow(agent(), report(T + HOUR, run("finish", 2)), report(T + MINUTE, run("finish", 1)));
    expect(row.lastRun).toMatchObject({ runId: runId(2), finishedAt: T + HOUR });
  });

  test("of two runs that finished at one instant the last is the same, whichever is heard of last", () => {
    const [one, two] = [report(T + HOUR, run("finish", 1)), report(T + HOUR, run("finish", 2))];
    for (const row of [heardNow(agent(), one, two), heardNow(agent(), two, one)]) {
      expect(row.lastRun?.runId).toBe(runId(2));
    }
  });

  test("overrunning are all runs whose deadline had passed when it was noticed, and no other", () => {
    const starts = [0, 20, 60].map((minutes, nth) => report(T + minutes * MINUTE, run("start", nth)));
    const row = heardNow(agent({ maxRunMs: HOUR }), ...starts);
    const over = after(row, sweep(row, T + 90 * MINUTE));
    expect(over.openRuns.map((one) => isOverrunning(over, one))).toEqual([true, true, false]);
    expect(row.openRuns.some((one) => isOverrunning(row, one))).toBe(false);
  });

  test("an agent that was degraded before is noticed to overrun by an old report", () => {
    const silent = after(agent({ maxRunMs: HOUR }), sweep(agent({ maxRunMs: HOUR }), T + 5 * HOUR));
    const open = heardNow(silent, report(T + 6 * HOUR, run("start", 1)));
    expect(open).toMatchObject({ health: "degraded", reason: "never reported" });
    expect(open.openRuns.map((one) => isOverrunning(open, one))).toEqual([false]);
    const told = after(open, hear(open, report(T + 6.5 * HOUR), T + 7 * HOUR, false));
    expect(told).toMatchObject({ health: "degraded", reason: "overrunning" });
    expect(told.openRuns.map((one) => isOverrunning(told, one))).toEqual([true]);
  });

  test("of more runs than are remembered the oldest is forgotten", () => {
    const starts = Array.from({ length: MAX_OPEN_RUNS + 1 }, (_, nth) => report(T + nth, run("start", nth)));
    const row = heardNow(agent(), ...starts);
    expect(row.openRuns.map((one) => one.runId)).toEqual(starts.slice(1).map((one) => one.run?.runId));
    // its finish has to be looked up
    expect(otherHalfOf(row, { runId: runId(0), phase: "finish" })).toBe("start");
  });
});
