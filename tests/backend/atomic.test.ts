/** What must not break the rule that a mutation happens as a whole or not at all: functions that misbehave. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ledgerBundle } from "./ledger.ts";
import { eventually, startBackend, type Backend } from "./server.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend(undefined, await ledgerBundle());
});
afterAll(() => backend.end());

async function count(key: string): Promise<number> {
  return (await backend.call("query", "faults:count", { key })).value as number;
}

describe("a sub-transaction", () => {
  test("that never ends takes what its caller wrote along", async () => {
    const answer = await backend.call("mutation", "faults:hang", { key: "hang" });
    expect(answer.errorMessage).toContain("waits for a promise that nothing in it can settle");
    expect(await count("hang")).toBe(0);
  });

  test("that nobody waited for is undone, and cannot reach into the next mutation", async () => {
    const names = ["faults:abandon", "faults:addAndThrow", "faults:abandon", "faults:add"];
    const calls = names.map((name, position) => backend.call("mutation", name, { key: `left${position}` }));
    const answers = await Promise.all(calls);
    expect(answers.map(({ status }) => status)).toEqual(["success", "error", "success", "success"]);
    expect(await Promise.all([0, 1, 2, 3].map((at) => count(`left${at}`)))).toEqual([1, 0, 1, 1]);
    expect(await Promise.all([0, 2].map((at) => count(`left${at}-inner`)))).toEqual([0, 0]);
  });
});

test("a scheduled function that fails with a flood of words, on arguments as large as a document, fails once", async () => {
  const args = { key: "shout", wordBytes: 1024 * 1024 - 300 };
  const scheduled = await backend.call("mutation", "faults:scheduleShout", args);
  type Job = { state: { kind: string; error?: string } };
  const job = await eventually(
    async () => (await backend.call("query", "faults:job", { id: scheduled.value })).value as Job,
    ({ state }) => state.kind === "failed",
  );
  expect(job.state.error?.slice(0, 42)).toBe("Uncaught Error: so much to say so much to ");
  expect(job.state.error).toHaveLength(4096);
  expect((await backend.call("mutation", "faults:add", { key: "after the flood" })).status).toBe("success");
});
