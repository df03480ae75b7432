/** What one heartbeat costs, whatever came before it: pinned on both engines, in the worst case that there is. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Args, bundle, type Engine, memoryEngine, processEngine, START_AT } from "./engines";
import { argsOf, every, HOUR, MINUTE, runId, World } from "./world";

type Cost = {
  documentsRead: { used: number };
  documentsWritten: { used: number };
  databaseQueries: { used: number };
};

type Costs = { worst: Cost; plain: Cost; flips: string[] };

const OPEN_TASKS = 5;
const MAX_READ = 12;
const MAX_WRITTEN = 5;

/**
 * A heartbeat for which everything has to be looked up: without counts, a finish of a run that the row no longer knows, late enough to flip its
 * agent to degraded; after some history and with closed tasks. And the plain one that most are.
 */
async function costs(engine: Engine, measure: (args: Args) => Promise<Cost>): Promise<Costs> {
  const world = new World(engine);
  await world.prepare();
  await world.register({
    agent: "hint",
    schedule: every(HOUR),
    graceMs: 0,
    misses: 1,
    maxRunMs: 20 * MINUTE,
  });
  for (let nth = 0; nth < OPEN_TASKS + 10; nth++) {
    const request = { agent: "hint", title: `task ${nth}`, status: nth < OPEN_TASKS ? "open" : "done" };
    await world.ask("mutations/addTask", request);
  }
  await world.send("hint", { run: { runId: runId(1), phase: "start" } });
  for (let nth = 0; nth < 30; nth++) {
    world.away(MINUTE);
    await world.send("hint");
  }
  // as long as no sweep has come by (a real backend may be quicker), the heartbeat itself flips its agent
  world.away(HOUR + 2 * MINUTE);
  const run = { runId: runId(1), phase: "finish" };
  const uncounted = { openTasks: undefined, staleTasks: undefined };
  const worst = world.heartbeat("hint", { run, ...uncounted, host: "torvalds", age: HOUR + MINUTE });
  const plain = () => world.heartbeat("hint", { summary: "fine", host: "torvalds" });
  const path = "mutations/recordHeartbeat";
  const cost = {
    worst: await measure(argsOf(path, worst, "sender")),
    plain: await measure(argsOf(path, plain(), "sender")),
  };
  return { ...cost, flips: (await world.detail("hint")).flips.map((flip) => flip.to) };
}

function expectBounded({ worst, plain }: Costs): void {
  expect(worst.documentsRead.used - OPEN_TASKS).toBeLessThanOrEqual(MAX_READ);
  expect(worst.documentsWritten.used).toBeLessThanOrEqual(MAX_WRITTEN);
  expect(plain.documentsRead.used).toBeLessThanOrEqual(MAX_READ / 2);
  expect(plain.documentsWritten.used).toBeLessThanOrEqual(4);
}

describe("recordHeartbeat reads at most 12 documents besides open tasks and writes at most 5", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

  test("on convex-test", async () => {
    const engine = memoryEngine();
    const { api } = await import("../../convex/_generated/api");
    const measure = (args: Args) =>
      engine.t.mutation(async (ctx) => {
        await ctx.runMutation(api.mutations.recordHeartbeat.default, args as never);
        return await ctx.meta.getTransactionMetrics();
      });
    const all = await costs(engine, measure);
    expectBounded(all);
    expect(all.flips).toEqual(["ok", "degraded", "ok"]);
    expect(all.worst.documentsWritten.used).toBe(4);
  });

  test("on the local backend", async () => {
    const folder = mkdtempSync(join(tmpdir(), "heartbeat-cost-"));
    try {
      // our functions and one that measures: what a mutation costs can only be asked inside it
      const functions = join(folder, "convex");
      mkdirSync(functions);
      cpSync("convex", functions, { recursive: true });
      symlinkSync(join(process.cwd(), "node_modules"), join(folder, "node_modules"));
      writeFileSync(join(functions, "measure.ts"), MEASURE);
      await bundle(functions, join(folder, "functions.mjs"));
      const engine = await processEngine(join(folder, "functions.mjs"));
      try {
        expectBounded(await costs(engine, async (args) => (await engine.admin("measure", args)) as Cost));
      } finally {
        await engine.stop();
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

const MEASURE = `
import { v } from "convex/values";
import { api } from "./_generated/api";
import { internalMutation } from "./_generated/server";

export default internalMutation({
  args: { token: v.string(), heartbeat: v.any() },
  handler: async (ctx, args) => {
    await ctx.runMutation(api.mutations.recordHeartbeat.default, args);
    return await ctx.meta.getTransactionMetrics();
  },
});
`;
