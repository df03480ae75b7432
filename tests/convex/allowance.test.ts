/** A runaway loop is slowed down; nobody else is, and nothing locks an agent out. */
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { takeOne } from "../../convex/heartbeat/model/allowance";
import type { Allowance } from "../../convex/heartbeat/model/validators";
import { memoryEngine, START_AT } from "./engines";
import { leaveAllowance, rowsOf } from "./stored";
import { DAY, every, HOUR, MINUTE, SECOND, World } from "./world";

const CAPACITY = 12_000;
const T = START_AT;

/** Takes `count` at `at`, one after another; how many there were and what is left. */
function take(known: Allowance | undefined, at: number, count: number) {
  let [left, taken] = [known, 0];
  for (; taken < count; taken++) {
    const next = takeOne(left, at);
    if (!("left" in next)) return { left, taken, retryAfterMs: next.retryAfterMs };
    left = next.left;
  }
  return { left, taken };
}

describe("the token bucket", () => {
  test("takes 12,000 at once, then one a second, and says when", () => {
    const all = take(undefined, T, 20_000);
    expect(all).toMatchObject({ taken: CAPACITY, retryAfterMs: SECOND });
    expect(takeOne(all.left, T + 1)).toEqual({ retryAfterMs: SECOND - 1 });
    expect(takeOne(all.left, T + SECOND - 1)).toEqual({ retryAfterMs: 1 });
    expect(take(all.left, T + SECOND, 5)).toMatchObject({ taken: 1, retryAfterMs: SECOND });
    expect(take(all.left, T + MINUTE, 100)).toMatchObject({ taken: 60 });
    expect(take(all.left, T + DAY, 20_000)).toMatchObject({ taken: CAPACITY });
  });

  test("a clock that is set back locks nobody out, and fills no bucket by the little that clocks differ", () => {
    const { left } = take(undefined, T, CAPACITY);
    expect(take(left, T - DAY, 100)).toMatchObject({ taken: 100 });
    expect(take(left, T - 5, 1)).toMatchObject({ taken: 0, retryAfterMs: SECOND + 5 });
    const back = take(left, T - 10 * SECOND, 100);
    expect(back).toMatchObject({ taken: 10, retryAfterMs: SECOND });
    expect(take(back.left, T - 9 * SECOND, 100)).toMatchObject({ taken: 1 });
  });

  const steps = fc.array(
    fc.record({
      ms: fc.oneof(fc.integer({ min: 0, max: 3 * SECOND }), fc.integer({ min: 0, max: 4 * HOUR })),
      back: fc.boolean(),
      count: fc.oneof(fc.nat(20), fc.nat(13_000)),
    }),
    { maxLength: 12 },
  );

  test("whatever was sent when, there is room after retryAfterMs and not before", () => {
    fc.assert(
      fc.property(steps, (list) => {
        let [left, at]: [Allowance | undefined, number] = [undefined, T];
        for (const { ms, back, count } of list) {
          at += back ? -ms : ms;
          const next = take(left, at, count);
          left = next.left;
          if (next.retryAfterMs === undefined) continue;
          expect(next.retryAfterMs).toBeGreaterThan(0);
          expect(next.retryAfterMs).toBeLessThanOrEqual(2 * SECOND);
          expect(takeOne(left, at + next.retryAfterMs)).toHaveProperty("left");
          expect(takeOne(left, at + next.retryAfterMs - 1)).toEqual({ retryAfterMs: 1 });
        }
      }),
    );
  });

  test("as long as the clock goes on, no more are taken than the capacity and one a second", () => {
    fc.assert(
      fc.property(steps, (list) => {
        let [left, at, sum]: [Allowance | undefined, number, number] = [undefined, T, 0];
        for (const { ms, count } of list) {
          at += ms;
          const next = take(left, at, count);
          [left, sum] = [next.left, sum + next.taken];
          expect(sum).toBeLessThanOrEqual(CAPACITY + (at - T) / SECOND);
          // and no fewer: what is refused while the bucket was never full has really been used up
          if (next.taken < count && at - T < SECOND) expect(sum).toBe(CAPACITY);
        }
      }),
    );
  });
});

describe("slow_down", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

  async function deployment() {
    const { t, ...engine } = memoryEngine();
    const world = new World(engine);
    await world.prepare();
    await world.register({ agent: "hint", schedule: every(HOUR) }, { agent: "rams", schedule: every(HOUR) });
    return { t, world };
  }
  const path = "mutations/recordHeartbeat";

  test("says when the next is taken, stores nothing, and concerns the one agent", async () => {
    const { t, world } = await deployment();
    await leaveAllowance(t, "hint", 1.25);
    const known = world.heartbeat("hint");
    await world.ask(path, known, { as: "sender" });
    const before = await rowsOf(t, "agentHeartbeats", "agentLiveness", "agentFlips");
    const next = world.heartbeat("hint");
    expect(await world.refused(path, next, { as: "sender" })).toEqual({
      code: "slow_down",
      message: "Agent hint sends more heartbeats than are taken; the next one is taken in 1 s.",
      retryAfterMs: 750,
    });
    // what is there already costs nothing
    expect(await world.ask(path, known, { as: "sender" })).toMatchObject({ outcome: "duplicate" });
    expect(await rowsOf(t, "agentHeartbeats", "agentLiveness", "agentFlips")).toEqual(before);
    expect(await world.send("rams")).toMatchObject({ outcome: "recorded" });
    world.later(749);
    expect(await world.refused(path, next, { as: "sender" })).toMatchObject({ retryAfterMs: 1 });
    world.later(1);
    expect(await world.ask(path, next, { as: "sender" })).toMatchObject({ outcome: "recorded" });
    expect(await world.refused(path, world.heartbeat("hint"), { as: "sender" })).toMatchObject({
      code: "slow_down",
    });
  });

  test("is about new heartbeats in a batch, each of which costs", async () => {
    const { t, world } = await deployment();
    await leaveAllowance(t, "hint", 2);
    const [first, second] = [world.heartbeat("hint"), world.heartbeat("hint")];
    const results = await world.deliver([first, first, second, world.heartbeat("hint"), first]);
    expect(results).toMatchObject([
      { outcome: "recorded" },
      { outcome: "duplicate" },
      { outcome: "recorded" },
      { outcome: "refused", code: "slow_down", retryAfterMs: SECOND },
      { outcome: "duplicate" },
    ]);
  });

  test("is not ended by a schedule, a pause, a resume or the sweep", async () => {
    const { t, world } = await deployment();
    await leaveAllowance(t, "hint", 0);
    const refused = async () => await world.refused(path, world.heartbeat("hint"), { as: "sender" });
    await world.register({ agent: "hint", schedule: every(2 * HOUR), purpose: "another" });
    for (const control of ["paused", "active", "retired", "active"]) {
      await world.control("hint", control);
      expect(await refused(), control).toMatchObject({ code: "slow_down" });
    }
    await world.pass(5 * HOUR);
    expect(await world.row("hint")).toMatchObject({ health: "degraded" });
    await leaveAllowance(t, "hint", 0);
    await world.sweep();
    expect(await refused()).toMatchObject({ code: "slow_down" });
  });
});
