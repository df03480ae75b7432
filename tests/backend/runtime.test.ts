/** The world inside functions, and what happens to functions that misbehave. */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, startBackend, type Backend } from "./server.ts";

const LONG = process.env.HEARTBEAT_TEST_LONG === "1";
/** Functions that never end, one after the other: each of them takes its second of CPU. */
const ENDLESS = LONG ? ["endless0", "endless1", "endless2"] : ["endless0"];
/** Queries that never end; a subscriber of one is in clients.test.ts. */
const ENDLESS_QUERIES = LONG ? ["runtime:endlessQuery"] : [];

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.end());

async function count(name: string): Promise<number> {
  return (await backend.call("query", "runtime:count", { name })).value as number;
}

describe("inside a query or mutation", () => {
  test("the clock stands still, and creation times are not before it", async () => {
    const { value } = await backend.call("mutation", "runtime:clock");
    expect(value).toMatchObject({
      stands: true,
      later: true,
      uuid: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    const { now, createdAt, randoms } = value as { now: number; createdAt: number; randoms: number[] };
    expect(createdAt).toBeGreaterThanOrEqual(now);
    expect(Math.abs(now - Date.now())).toBeLessThan(60_000);
    expect(new Set(randoms).size).toBe(2);
  });

  test("time stands still, chance is new in each run, and loading has neither fetch nor timers", async () => {
    type Still = { before: unknown[]; after: unknown[]; randoms: number[]; loadedAt: number };
    const runs = await Promise.all(
      [0, 1].map(async () => (await backend.call("query", "runtime:still")).value as Still),
    );
    for (const { before, after, randoms, loadedAt } of runs) {
      expect(after).toEqual(before);
      expect(new Set(randoms).size).toBe(4);
      expect(randoms.every((random) => random >= 0 && random < 1)).toBe(true);
      expect(loadedAt).toBeLessThanOrEqual(before[0] as number);
    }
    expect(runs[0]?.randoms).not.toEqual(runs[1]?.randoms);
    expect(runs[0]).toMatchObject({
      importTime: {
        now: runs[0]?.loadedAt,
        instant: runs[0]?.loadedAt,
        fetch: "Can't use fetch at import time. Use it inside an action.",
        setTimeout: "Can't use setTimeout at import time. Use it inside an action.",
        setInterval: "Can't use setInterval at import time. Use it inside an action.",
      },
    });
  });

  test("a digest settles at once", async () => {
    const { value } = await backend.call("query", "runtime:digest", { text: "abc" });
    expect(value).toBe(createHash("sha256").update("abc").digest("hex"));
  });

  test.each(["fetch", "setTimeout", "setInterval"])("%s is refused with Convex's sentence", async (what) => {
    const { errorMessage } = await backend.call("query", "runtime:forbidden", { what });
    expect(errorMessage).toContain(
      `Can't use ${what} in queries and mutations. Please consider using an action.`,
    );
  });

  test("what was read and written is counted as Convex counts", async () => {
    // a patch reads the document that it changes; the take reads one more
    expect((await backend.call("mutation", "runtime:metrics")).value).toEqual([2, 2, 2]);
  });

  test("too many reads fail with Convex's sentence", async () => {
    expect((await backend.call("query", "runtime:readTooMuch")).errorMessage).toContain(
      "Too many reads in a single function execution (limit: 4096).",
    );
  });
});

describe("sub-transactions", () => {
  test("see what their caller wrote, and what they wrote is seen by it, unless they were refused", async () => {
    expect((await backend.call("mutation", "jobs:visible", { name: "visible" })).value).toEqual([1, 2, 2, 3]);
    expect(await count("visible")).toBe(3);
  });

  test("roll back alone, in order, whatever else the caller does meanwhile", async () => {
    const { value } = await backend.call("mutation", "runtime:outer", { name: "sub" });
    expect(value).toEqual(["sub0", { refused: { name: "sub1" } }, "sub2"]);
    expect(await Promise.all(["sub0", "sub1", "sub2", "subbeside"].map(count))).toEqual([1, 0, 1, 1]);
  });
});

describe("actions", () => {
  test("call queries and mutations, wait for timers, and see ConvexErrors", async () => {
    const { value } = await backend.call("action", "runtime:viaAction", { name: "acted" });
    expect(value).toEqual({ count: 1, data: { name: "acted" } });
    expect(await count("acted")).toBe(1);
  });

  test("do not hold each other up", async () => {
    const started = Date.now();
    await Promise.all(
      Array.from({ length: 8 }, () => backend.call("action", "runtime:slowAction", { ms: 200 })),
    );
    expect(Date.now() - started).toBeLessThan(1400);
  });
});

test("a failure that an action did not wait for takes nobody along", async () => {
  const slow = backend.call("action", "runtime:slowAction", { ms: 100 });
  expect((await backend.call("action", "runtime:carelessAction", { name: "careless" })).value).toBe("done");
  expect((await slow).value).toBe("done");
});

describe("a function that cannot go on", () => {
  test("because it waits for what never comes fails with a sentence, and leaves nothing", async () => {
    const { errorMessage } = await backend.call("mutation", "runtime:pending");
    expect(errorMessage).toContain("runtime:pending waits for a promise that nothing in it can settle");
    expect(await count("pending")).toBe(0);
  });

  test("because it wants all the memory is stopped, and the next one runs", async () => {
    const hungry = await backend.call("mutation", "runtime:hungry");
    expect(JSON.stringify(hungry)).toMatch(/runtime:hungry (was stopped|execution timed out)/);
    expect((await backend.call("mutation", "runtime:note", { name: "fed" })).status).toBe("success");
    expect(await Promise.all([count("hungry"), count("fed")])).toEqual([0, 1]);
  });

  test("because it is an action that never pauses is cut off too, and all others go on", async () => {
    const action = backend.call("action", "runtime:endlessAction");
    await new Promise((resolve) => setTimeout(resolve, 100));
    const neighbour = backend.call("mutation", "runtime:note", { name: "beside an endless action" });
    expect((await neighbour).status).toBe("success");
    expect(JSON.stringify(await action)).toContain("had to be replaced");
    expect(await count("beside an endless action")).toBe(1);
  });

  test("because it never ends is cut off alone: its neighbours commit, running actions are told", async () => {
    const action = backend.call("action", "runtime:slowAction", { ms: 10_000 });
    const endless = ENDLESS.map((name) => backend.call("mutation", "runtime:endless", { name }));
    const neighbours = Array.from({ length: 20 }, () =>
      backend.call("mutation", "runtime:note", { name: "neighbour" }),
    );
    endless.push(...ENDLESS_QUERIES.map((path) => backend.call("query", path)));
    for (const cut of await Promise.all(endless)) {
      expect(cut.status).toBe("error");
      expect(JSON.stringify(cut)).toContain("execution timed out (maximum duration: 1s)");
    }
    expect((await Promise.all(neighbours)).every(({ status }) => status === "success")).toBe(true);
    expect(JSON.stringify(await action)).toContain("had to be replaced");
    expect(
      await eventually(
        () => count("neighbour"),
        (found) => found === 20,
      ),
    ).toBe(20);
    expect(await Promise.all(ENDLESS.map(count))).toEqual(ENDLESS.map(() => 0));
  });
});
