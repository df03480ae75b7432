import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { compareWithContract } from "./contract";
import { memoryEngine, START_AT } from "./engines";
import { stories } from "./stories";
import { HINT } from "./stories/book";
import { leaveAllowance } from "./stored";
import { type Example, World } from "./world";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => void vi.useRealTimers());

test("the examples in tests/contract are what happens in the stories", async () => {
  const examples: Example[] = [];
  for (const { run } of [...stories, { run: tooMany }]) {
    vi.setSystemTime(START_AT);
    const engine = memoryEngine();
    const world = Object.assign(new World(engine, examples), { t: engine.t });
    await world.prepare();
    await run(world);
  }
  expect(await compareWithContract(examples), "UPDATE_CONTRACT=1 writes these files anew").toEqual([]);
});

/** What would take a story 12,000 heartbeats. */
async function tooMany(w: World & Pick<ReturnType<typeof memoryEngine>, "t">): Promise<void> {
  await w.register(HINT);
  await leaveAllowance(w.t, "hint", 0.5);
  const sender = { as: "sender", example: "too many" } as const;
  expect(await w.refused("mutations/recordHeartbeat", w.heartbeat("hint"), sender)).toMatchObject({
    code: "slow_down",
  });
  expect(await w.deliver([w.heartbeat("hint")], sender)).toMatchObject([{ retryAfterMs: 500 }]);
}
