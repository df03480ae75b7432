import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Deadlines,
  deadlinesOf,
  dueOf,
  expectedAfter,
  type Heard,
  hear,
  isDegraded,
  type Liveness,
  MAX_OPEN_RUNS,
  type Move,
  otherHalfOf,
  rankOf,
  registered,
  rescheduled,
  setControl,
  sweep,
} from "../../convex/model/liveness";
import type { Schedule } from "../../convex/model/validators";
import { cron, DAY, every, HOUR, MINUTE, runId, SECOND } from "./world";

/** Monday 2 March 2026, 08:00 UTC. */
const T = Date.UTC(2026, 2, 2, 8);
const GRACE = 6 * MINUTE;
const RULES = { schedule: every(HOUR), graceMs: GRACE, misses: 2 };

type Row = Liveness & Deadlines;

let made = 0;
function report(livenessAt: number, rest: Partial<Heard> = {}): Heard {
  return { heartbeatId: `id-${String(++made).padStart(9, "0")}`, livenessAt, failing: false, ...rest };
}

function run(phase: "start" | "finish", nth: number, rest: Partial<NonNullable<Heard["run"]>> = {}) {
  return { run: { runId: runId(nth), phase, ...rest } };
}

/** The row after a move, as the database would hold it: what is undefined is gone. */
function after(liveness: Liveness, move: Move): Row {
  const row: Record<string, unknown> = { ...liveness, ...move.changes };
  for (const [key, value] of Object.entries(row)) if (value === undefined) delete row[key];
  return row as Row;
}

function heardNow(liveness: Liveness, ...reports: Heard[]): Row {
  return reports.reduce<Row>((row, one) => after(row, hear(row, one, one.livenessAt, false)), liveness);
}

function agent(rules: Partial<typeof RULES & { maxRunMs: number; schedule: Schedule }> = {}): Liveness {
  return registered({ ...RULES, ...rules }, T);
}

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
      durationMs: 80 * MINUTE,
    });
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

  test("of more runs than are remembered the oldest is forgotten", () => {
    const starts = Array.from({ length: MAX_OPEN_RUNS + 1 }, (_, nth) => report(T + nth, run("start", nth)));
    const row = heardNow(agent(), ...starts);
    expect(row.openRuns.map((one) => one.runId)).toEqual(starts.slice(1).map((one) => one.run?.runId));
    // its finish has to be looked up
    expect(otherHalfOf(row, { runId: runId(0), phase: "finish" })).toBe("start");
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
    const rules = { schedule: every(DAY), graceMs: GRACE, misses: 2 };
    expect(rescheduled(row, rules, true, now).changes).toMatchObject({
      dueAt: now + DAY,
      degradeAt: now + 2 * DAY + GRACE,
    });
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

// --- properties ---

const schedules = fc.constantFrom<Schedule>(
  every(5 * MINUTE),
  every(HOUR),
  cron("*/7 * * * *"),
  cron("15 8 * * *", "America/New_York"),
  cron("30 2 * * *", "Europe/Berlin"),
  cron("0 9 * * 1-5", "Asia/Tokyo"),
);

type Beat = { at: number; failing: boolean; run?: { nth: number; minutes: number; lost: boolean } };

const beats = fc.array(
  fc.record(
    {
      at: fc.integer({ min: T - DAY, max: T + 3 * DAY }),
      failing: fc.boolean(),
      run: fc.record({
        nth: fc.integer({ min: 0, max: 5 }),
        minutes: fc.integer({ min: 1, max: 300 }),
        lost: fc.boolean(),
      }),
    },
    { requiredKeys: ["at", "failing"] },
  ),
  { maxLength: 12 },
);

/** One report, or the start of a run and its finish, if that was not lost; each run id once. */
function heardOf(list: Beat[]): Heard[] {
  const seen = new Set<number>();
  return list.flatMap((beat) => {
    if (beat.run === undefined) return [report(beat.at, { failing: beat.failing })];
    const { nth, minutes, lost } = beat.run;
    if (seen.has(nth)) return [];
    seen.add(nth);
    const endAt = beat.at + minutes * MINUTE;
    if (lost) return [report(beat.at, run("start", nth))];
    return [
      report(beat.at, run("start", nth)),
      report(endAt, {
        failing: beat.failing,
        ...run("finish", nth, { startedAt: beat.at, finishedAt: endAt }),
      }),
    ];
  });
}

/** All arrive, in this order, at one instant after them all; the other half of a run is looked up as the database would. */
function replay(row: Liveness, heard: Heard[], now: number): Liveness {
  const stored: Heard[] = [];
  for (const one of heard) {
    const phase = one.run && otherHalfOf(row, one.run);
    const other = stored.find((past) => past.run?.runId === one.run?.runId && past.run?.phase === phase);
    const half = other && {
      livenessAt: other.livenessAt,
      startedAt: other.run?.startedAt ?? other.livenessAt,
    };
    const asked = one.run && half ? { ...one, run: { ...one.run, otherHalf: half } } : one;
    row = after(row, hear(row, asked, now, true));
    stored.push(one);
  }
  return row;
}

describe("whatever comes, in whatever order", () => {
  test("a replay leads where arrival in order leads", () => {
    fc.assert(
      fc.property(schedules, beats, fc.integer(), (schedule, list, seed) => {
        const now = T + 10 * DAY;
        const heard = heardOf(list);
        const inOrder = heard.toSorted(
          (a, b) => a.livenessAt - b.livenessAt || (a.heartbeatId < b.heartbeatId ? -1 : 1),
        );
        const shuffled = heard
          .map((one, nth) => ({ one, key: Math.sin(seed + nth * 997) }))
          .sort((a, b) => a.key - b.key)
          .map(({ one }) => one);
        const row = agent({ schedule });
        const [a, b] = [replay(row, inOrder, now), replay(row, shuffled, now)];
        const decisive = ({
          lastHeartbeatAt,
          lastHeartbeatId,
          answeredFromAt,
          lastReport,
          health,
          openRuns,
        }: Liveness) => ({
          lastHeartbeatAt,
          lastHeartbeatId,
          answeredFromAt,
          lastReport,
          health,
          openRuns,
        });
        expect(decisive(b)).toEqual(decisive(a));
        expect(deadlinesOf(b)).toEqual(deadlinesOf(a));
      }),
    );
  });

  test("liveness and what is answered never move backward, and flips become true in their order", () => {
    const steps = fc.array(
      fc.record({
        passMs: fc.integer({ min: 0, max: 6 * HOUR }),
        ageMs: fc.integer({ min: 0, max: 9 * HOUR }),
        act: fc.constantFrom(
          "report",
          "fail",
          "start",
          "finish",
          "sweep",
          "pause",
          "resume",
          "retire",
          "held",
        ),
        nth: fc.integer({ min: 0, max: 3 }),
      }),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(schedules, steps, (schedule, list) => {
        let row: Row = agent({ schedule });
        let now = T;
        let becameAt = 0;
        for (const { passMs, ageMs, act, nth } of list) {
          now += passMs;
          const phase = act === "start" || act === "finish" ? run(act, nth) : {};
          const move =
            act === "sweep"
              ? sweep(row, now)
              : act === "pause" || act === "resume" || act === "retire"
                ? setControl(
                    row,
                    ({ pause: "paused", resume: "active", retire: "retired" } as const)[act],
                    now,
                  )
                : hear(row, report(now - ageMs, { failing: act === "fail", ...phase }), now, act === "held");
          const next = after(row, move);
          expect(next.lastHeartbeatAt ?? 0).toBeGreaterThanOrEqual(row.lastHeartbeatAt ?? 0);
          expect(next.answeredFromAt ?? 0).toBeGreaterThanOrEqual(row.answeredFromAt ?? 0);
          expect(dueOf(next)).toBeGreaterThanOrEqual(dueOf(row)!);
          expect(next.openRuns.length).toBeLessThanOrEqual(MAX_OPEN_RUNS);
          if (next.control !== "active" || next.health === "degraded")
            expect(next).not.toHaveProperty("sweepAt");
          else expect(next.sweepAt).toBeGreaterThan(0);
          if (row.control !== "active" && act !== "resume") expect(next.health).toBe(row.health);
          if (act === "start") expect(next.health).toBe(row.health);
          if (act === "held") expect(move.flip?.to).not.toBe("degraded");
          if (move.flip) {
            expect(move.flip.from).toBe(row.health);
            expect(move.flip.to).toBe(next.health);
            expect(move.flip.becameAt).toBeGreaterThanOrEqual(becameAt);
            expect(move.flip.becameAt).toBeLessThanOrEqual(now);
            becameAt = move.flip.becameAt;
          } else expect(next.health).toBe(row.health);
          // the sweep right after finds nobody overdue, or flips once and for all
          const swept = after(next, sweep(next, now));
          expect(sweep(swept, now).flip).toBeUndefined();
          row = next;
        }
      }),
    );
  });
});
