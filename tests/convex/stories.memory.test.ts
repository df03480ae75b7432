import { afterEach, beforeEach, describe, test, vi } from "vitest";
import { memoryEngine, START_AT } from "./engines";
import { stories } from "./stories";
import { World } from "./world";

describe("on convex-test", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

  test.each(stories)("$title", async ({ run }) => {
    const world = new World(memoryEngine());
    await world.prepare();
    await run(world);
  });
});
