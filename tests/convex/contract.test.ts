import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { compareWithContract } from "./contract";
import { memoryEngine, START_AT } from "./engines";
import { stories } from "./stories";
import { type Example, World } from "./world";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => void vi.useRealTimers());

test("the examples in tests/contract are what happens in the stories", async () => {
  const examples: Example[] = [];
  for (const { run } of stories) {
    vi.setSystemTime(START_AT);
    const world = new World(memoryEngine(), examples);
    await world.prepare();
    await run(world);
  }
  expect(await compareWithContract(examples), "UPDATE_CONTRACT=1 writes these files anew").toEqual([]);
});
