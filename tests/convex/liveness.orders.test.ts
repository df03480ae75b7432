/** Whatever is heard, in whatever order: properties of the rules. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { consecutiveFailures, isFailing } from "../../convex/heartbeat/model/failures";
import {
  deadlinesOf,
  dueOf,
  type Heard,
  hear,
  type Liveness,
  rescheduled,
  setControl,
  sweep,
} from "../../convex/heartbeat/model/liveness";
import { MAX_OPEN_RUNS, otherHalfOf } from "../../convex/heartbeat/model/runs";
import type { Schedule } from "../../convex/heartbeat/model/validators";
import { after, agent, report, type Row, RULES, run, T } from "./rows";
import { cron, DAY, every, HOUR, MINUTE } from "./world";

const schedules = fc.constantFrom<Schedule>(
  every(5 * MINUTE),
  every(HOUR),
  cron("*/7 * * * *"),
  cron("15 8 * * *", "America/New_York"),
  cron("30 2 * * *", "Europe/Berlin"),
  cron("0 9 * * 1-5", "Asia/Tokyo"),
);

const failAfters = fc.integer({ min: 1, max: 5 });

/** `lost`: the finish never comes; `told`: it says when its run started. */
type Beat = {
  at: number;
  failing: boolean;
  run?: { nth: number; minutes: number; lost: boolean; told: boolean };
};

const beats = fc.array(
  fc.record(
    {
      at: fc.integer({ min: T - DAY, max: T + 3 * DAY }),
      failing: fc.boolean(),
      run: fc.record({
        nth: fc.integer({ min: 0, max: 5 }),
        minutes: fc.integer({ min: 1, max: 300 }),
        lost: fc.boolean(),
        told: fc.boolean(),
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
    const { nth, minutes, lost, told } = beat.run;
    if (seen.has(nth)) return [];
    seen.add(nth);
    const endAt = beat.at + minutes * MINUTE;
    if (lost) return [report(beat.at, run("start", nth))];
    return [
      report(beat.at, run("start", nth)),
      report(endAt, {
        failing: beat.failing,
        ...run("finish", nth, { ...(told && { startedAt: beat.at }), finishedAt: endAt }),
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

/** The errors in a row as one counts them who has all reports before them; null where two share an instant, which counts as one. */
function errorsInARow(inOrder: Heard[]): number | null {
  const reports = inOrder.filter((one) => one.run?.phase !== "start");
  if (new Set(reports.map((one) => one.livenessAt)).size < reports.length) return null;
  return reports.length - 1 - reports.findLastIndex((one) => !one.failing);
}

describe("whatever comes, in whatever order", () => {
  test("a replay leads where arrival in order leads", () => {
    fc.assert(
      fc.property(schedules, failAfters, beats, fc.integer(), (schedule, failAfter, list, seed) => {
        const now = T + 10 * DAY;
        const heard = heardOf(list);
        const inOrder = heard.toSorted(
          (a, b) => a.livenessAt - b.livenessAt || (a.heartbeatId < b.heartbeatId ? -1 : 1),
        );
        const shuffled = heard
          .map((one, nth) => ({ one, key: Math.sin(seed + nth * 997) }))
          .sort((a, b) => a.key - b.key)
          .map(({ one }) => one);
        const row = agent({ schedule, failAfter });
        const [a, b] = [replay(row, inOrder, now), replay(row, shuffled, now)];
        const decisive = (row: Liveness) => {
          const { lastHeartbeatAt, lastHeartbeatId, lastReport, lastRun, failures, health, openRuns } = row;
          return { lastHeartbeatAt, lastHeartbeatId, lastReport, lastRun, failures, health, openRuns };
        };
        expect(decisive(b)).toEqual(decisive(a));
        const errors = errorsInARow(inOrder);
        if (errors !== null) expect(consecutiveFailures(b)).toBe(errors);
        if (b.lastReport) expect(b.health).toBe(isFailing(b) ? "failing" : "ok");
        if (list.every((beat) => beat.run?.told ?? true)) {
          expect(b.answeredFromAt).toBe(a.answeredFromAt);
          expect(deadlinesOf(b)).toEqual(deadlinesOf(a));
        } else {
          // a finish that came before its start answered from its own instant, and that stands
          expect(b.answeredFromAt).toBeGreaterThanOrEqual(a.answeredFromAt!);
        }
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
          "patience",
        ),
        nth: fc.integer({ min: 0, max: 3 }),
      }),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(schedules, failAfters, steps, (schedule, failAfter, list) => {
        let row: Row = agent({ schedule, failAfter });
        let now = T;
        let becameAt = 0;
        for (const { passMs, ageMs, act, nth } of list) {
          now += passMs;
          const phase = act === "start" || act === "finish" ? run(act, nth) : {};
          const move =
            act === "sweep"
              ? sweep(row, now)
              : act === "patience"
                ? rescheduled(row, { ...RULES, schedule, failAfter: 1 + nth }, false, now)
                : act === "pause" || act === "resume" || act === "retire"
                  ? setControl(
                      row,
                      ({ pause: "paused", resume: "active", retire: "retired" } as const)[act],
                      now,
                    )
                  : hear(
                      row,
                      report(now - ageMs, { failing: act === "fail", ...phase }),
                      now,
                      act === "held",
                    );
          const next = after(row, move);
          expect(next.lastHeartbeatAt ?? 0).toBeGreaterThanOrEqual(row.lastHeartbeatAt ?? 0);
          expect(next.answeredFromAt ?? 0).toBeGreaterThanOrEqual(row.answeredFromAt ?? 0);
          // what is heard from before the count began may set another rhythm for it
          const settled = schedule.kind === "cron" || (next.answeredFromAt ?? 0) >= next.resetAt;
          if (settled) expect(dueOf(next)).toBeGreaterThanOrEqual(dueOf(row)!);
          expect(dueOf(next)).toBeGreaterThan(next.resetAt);
          expect(next.openRuns.length).toBeLessThanOrEqual(MAX_OPEN_RUNS);
          if (next.control !== "active" || next.health === "degraded")
            expect(next).not.toHaveProperty("sweepAt");
          else expect(next.sweepAt).toBeGreaterThan(0);
          if (row.control !== "active" && act !== "resume") expect(next.health).toBe(row.health);
          if (next.control === "active" && (next.health === "ok" || next.health === "failing")) {
            expect(next.health).toBe(isFailing(next) ? "failing" : "ok");
          }
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
