/** What a heartbeat costs, alone and in a batch, whatever came before it: pinned on both engines, in the worst case that there is. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeFunctionReference } from "convex/server";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Args, bundle, type Engine, memoryEngine, processEngine, START_AT } from "./engines";
import { argsOf, DAY, every, HOUR, MINUTE, runId, World } from "./world";

type Measured = "documentsRead" | "documentsWritten" | "databaseQueries" | "bytesRead" | "bytesWritten";
type Cost = Record<Measured, { used: number }>;

/** What a call costs; it is not taken back. */
type Measure = (path: string, args: Args) => Promise<Cost>;

type Costs = { worst: Cost; plain: Cost; again: Cost; tomorrow: Cost; batch: Cost; flips: string[] };

const OPEN_TASKS = 5;
const MAX_READ = 12;
const MAX_WRITTEN = 5;
const BATCH = 20;
const FORGOTTEN = 91 * DAY;

/**
 * A heartbeat for which everything has to be looked up: without counts, a finish of a run that the row no longer knows, late enough to flip its
 * agent to degraded; after some history and with closed tasks. And the plain one that most are, that one again, the first of a day, and a batch of those
 * for which everything has to be looked up.
 */
async function costs(engine: Engine, measure: Measure): Promise<Costs> {
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
  const hard = (age: number) => {
    const uncounted = { openTasks: undefined, staleTasks: undefined };
    const run = { runId: runId(1), phase: "finish" };
    return world.heartbeat("hint", { run, ...uncounted, host: "torvalds", age });
  };
  const path = "mutations/recordHeartbeat";
  const plain = () => argsOf(path, world.heartbeat("hint", { summary: "fine", host: "torvalds" }), "sender");
  const worst = await measure(path, argsOf(path, hard(HOUR + MINUTE), "sender"));
  await world.send("hint");
  const known = plain();
  const cost = { worst, plain: await measure(path, known), again: await measure(path, known) };
  const { flips } = await world.detail("hint");
  world.away(DAY);
  const tomorrow = await measure(path, plain());
  const heartbeats = Array.from({ length: BATCH }, (_, nth) => hard(HOUR + nth * MINUTE));
  const many = "mutations/recordHeartbeats";
  const batch = await measure(many, argsOf(many, { heartbeats }, "sender"));
  return { ...cost, tomorrow, batch, flips: flips.map((flip) => flip.to) };
}

type Longest = { batch: Cost; runs: Cost; pruned: Cost; moves: Cost[] };

/**
 * A hundred heartbeats with the longest texts and output, finishing runs whose starts were as long and are looked up; then all are exported, two
 * hundred such are imported, and again; later all are forgotten.
 */
async function longest(engine: Engine, measure: Measure): Promise<Longest> {
  const world = new World(engine);
  const [text, path] = ["\u{1FAC0}", "mutations/recordHeartbeats"];
  const batch = (phase: string) => {
    const heartbeats = Array.from({ length: 100 }, (_, nth) =>
      world.heartbeat("hint", {
        run: { runId: runId(100 + nth), phase, output: text.repeat(10_000), outputCut: true },
        error: text.repeat(4_000),
        summary: text.repeat(500),
        host: text.repeat(255),
      }),
    );
    return argsOf(path, { heartbeats }, "sender");
  };
  await measure(path, batch("start"));
  const finishes = await measure(path, batch("finish"));
  const list = "queries/getAgentRuns";
  const runs = await measure(list, argsOf(list, { agent: "hint", limit: 100 }, "reader"));
  const [out, into] = ["queries/exportRecords", "mutations/importRecords"];
  const kind = "heartbeats";
  const moves = [await measure(out, argsOf(out, { kind, limit: 1_000 }, "admin"))];
  const all = await world.ask<{ records: Args[] }>(out, { kind, limit: 100 });
  const records = Array.from({ length: 200 }, () => {
    return { ...all.records.at(-1), heartbeatId: world.newHeartbeatId(), rawStatus: text.repeat(64) };
  });
  for (let time = 0; time < 2; time++)
    moves.push(await measure(into, argsOf(into, { kind, records }, "admin")));
  world.away(FORGOTTEN);
  return { batch: finishes, runs, moves, pruned: await measure("heartbeat/maintenance:prune", {}) };
}

function expectBounded({ worst, plain, again, tomorrow, batch }: Costs): void {
  expect(worst.documentsRead.used - OPEN_TASKS).toBeLessThanOrEqual(MAX_READ);
  expect(worst.documentsWritten.used).toBeLessThanOrEqual(MAX_WRITTEN);
  expect(plain.documentsRead.used).toBeLessThanOrEqual(MAX_READ / 2);
  expect(plain.documentsWritten.used).toBe(3);
  expect(again.documentsRead.used).toBeLessThanOrEqual(3);
  expect(again.documentsWritten.used).toBe(0);
  // the day on which the token was used
  expect(tomorrow.documentsWritten.used - plain.documentsWritten.used).toBe(1);
  // the token, its day and the tasks are read once; each item costs a plain heartbeat, and the start of its run
  const once = OPEN_TASKS + 2;
  expect(batch.documentsRead.used - once).toBeLessThanOrEqual(BATCH * plain.documentsRead.used);
  expect(batch.documentsWritten.used).toBeLessThanOrEqual(BATCH * plain.documentsWritten.used);
  // of the 4,096 ranges that one transaction may read, a hundred items use a fifth
  expect((batch.databaseQueries.used / BATCH) * 100).toBeLessThanOrEqual(4_096 / 5);
}

describe("a heartbeat reads at most 12 documents besides open tasks and writes at most 5, also in a batch", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

  test("on convex-test", async () => {
    const engine = memoryEngine();
    const measure: Measure = (path, args) =>
      engine.t.mutation(async (ctx) => {
        await ctx.runMutation(makeFunctionReference<"mutation">(path), args);
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
        const measure: Measure = async (path, args) =>
          (await engine.admin("measure", { path, args })) as Cost;
        const all = await costs(engine, measure);
        expectBounded(all);
        const { batch, runs, pruned, moves } = await longest(engine, measure);
        expect(batch.documentsWritten.used).toBe(300);
        // Convex's limit is 16 MiB of either, and not everything was read that could be
        for (const { used } of [batch.bytesRead, batch.bytesWritten, runs.bytesRead, pruned.bytesRead]) {
          expect(used).toBeLessThan(14e6);
        }
        expect(runs.documentsRead.used).toBeGreaterThan(100);
        for (const { bytesRead, bytesWritten } of moves) {
          expect(Math.max(bytesRead.used, bytesWritten.used)).toBeLessThan(14e6);
        }
        // the token's day, too
        expect(moves.map(({ documentsWritten }) => documentsWritten.used)).toEqual([0, 201, 0]);
      } finally {
        await engine.stop();
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

const MEASURE = `
import { makeFunctionReference } from "convex/server";
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";

export default internalMutation({
  args: { path: v.string(), args: v.any() },
  handler: async (ctx, { path, args }) => {
    if (path.startsWith("queries/")) await ctx.runQuery(makeFunctionReference(path), args);
    else await ctx.runMutation(makeFunctionReference(path), args);
    return await ctx.meta.getTransactionMetrics();
  },
});
`;
