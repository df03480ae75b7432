/** The list of runs: whatever arrives in whatever order, each run stands on it once, and a page costs what it may. */
import { makeFunctionReference } from "convex/server";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { AgentRun, AgentRuns } from "../../convex/heartbeat/model/heartbeatValidators";
import { type Args, memoryEngine, START_AT } from "./engines";
import { argsOf, DAY, every, HOUR, MINUTE, runId, SECOND, World } from "./world";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
afterEach(() => void vi.useRealTimers());

async function deployment() {
  vi.setSystemTime(START_AT);
  const engine = memoryEngine();
  const world = new World(engine);
  await world.prepare();
  await world.register({ agent: "hint", schedule: every(HOUR), maxRunMs: 366 * DAY });
  world.away(DAY);
  return { ...engine, world };
}

/** A run with the heartbeats that arrive of it; `told`: its finish says when it began. */
type Sent = { beganAgo: number; minutes: number; heard: "both" | "start" | "finish"; told: boolean };

const runs = fc.uniqueArray(
  fc.record({
    beganAgo: fc.integer({ min: 302, max: 1_400 }),
    minutes: fc.integer({ min: 0, max: 300 }),
    heard: fc.constantFrom("both", "start", "finish"),
    told: fc.boolean(),
  }),
  { maxLength: 8, selector: (one) => one.beganAgo },
);

/** No two ends fall on one instant: runs begin at full minutes and end so many seconds after one. */
function endsOf({ beganAgo, minutes }: Sent, nth: number, now: number) {
  const startedAt = now - beganAgo * MINUTE;
  return { startedAt, finishedAt: startedAt + minutes * MINUTE + (nth + 1) * SECOND };
}

/** What arrives of a run, and a plain heartbeat besides. */
function heartbeatsOf(world: World, sent: Sent, nth: number): Args[] {
  const { startedAt, finishedAt } = endsOf(sent, nth, world.now);
  const id = { runId: runId(nth) };
  const start = { age: world.now - startedAt, run: { ...id, phase: "start" }, host: "torvalds" };
  const told = sent.told ? { startedAt } : {};
  const finish = {
    age: world.now - finishedAt,
    run: { ...id, phase: "finish", exitCode: nth, ...told },
    summary: `run ${nth}`,
  };
  const ends = sent.heard === "both" ? [start, finish] : [sent.heard === "start" ? start : finish];
  return [...ends, { age: world.now - startedAt }].map((said) => world.heartbeat("hint", said));
}

/** The run as the list must show it, and the instant that decides its place. */
function wanted(sent: Sent, nth: number, now: number) {
  const { startedAt, finishedAt } = endsOf(sent, nth, now);
  const id = { runId: runId(nth) };
  const host = "torvalds";
  if (sent.heard === "start") return { at: startedAt, run: { ...id, startedAt, open: true, host } };
  const ended = { ...id, finishedAt, exitCode: nth, summary: `run ${nth}`, open: false };
  const whole = { ...ended, startedAt, durationMs: finishedAt - startedAt };
  if (sent.heard === "both") return { at: startedAt, run: { ...whole, host } };
  return sent.told ? { at: startedAt, run: whole } : { at: finishedAt, run: ended };
}

test("each run is listed once and whole, in whatever order its ends arrive, on pages of any size", async () => {
  await fc.assert(
    fc.asyncProperty(runs, fc.integer(), fc.integer({ min: 1, max: 4 }), async (sent, seed, limit) => {
      const { world } = await deployment();
      const heartbeats = sent
        .flatMap((run, nth) => heartbeatsOf(world, run, nth))
        .map((one, nth) => ({ one, key: Math.sin(seed + nth * 997) }))
        .sort((a, b) => a.key - b.key)
        .map(({ one }) => one);
      if (heartbeats.length > 0) await world.deliver(heartbeats);
      const listed: AgentRun[] = [];
      let cursor: string | null = null;
      do {
        const page: AgentRuns = await world.runs("hint", { limit, cursor });
        expect(page.runs.length).toBeLessThanOrEqual(limit);
        listed.push(...page.runs);
        cursor = page.isDone ? null : page.continueCursor;
      } while (cursor !== null);
      const told = listed.map(({ status, overrunning, deadlineAt, deliveredLateMs, ...run }) => {
        expect([status, overrunning, deadlineAt !== undefined]).toEqual(["ok", false, run.open]);
        expect(deliveredLateMs).toBeGreaterThan(MINUTE);
        return run;
      });
      const inOrder = sent.map((run, nth) => wanted(run, nth, world.now)).sort((a, b) => b.at - a.at);
      expect(told).toEqual(inOrder.map(({ run }) => run));
    }),
    { numRuns: 60 },
  );
});

test("a page is full, ends with the last run, and reads three heartbeats a run, whatever else the history holds", async () => {
  const { world, t } = await deployment();
  await world.register({ agent: "plain", schedule: every(HOUR) });
  for (let nth = 0; nth < 30; nth++) {
    await world.deliver(["hint", "plain"].map((agent) => world.heartbeat(agent)));
    for (const phase of ["start", "finish"]) await world.send("hint", { run: { runId: runId(nth), phase } });
    world.later(MINUTE);
  }
  const path = "queries/getAgentRuns";
  const page = async (agent: string, limit: number) =>
    await t.query(async (ctx) => {
      const args = argsOf(path, { agent, limit }, "reader");
      const { runs, isDone } = (await ctx.runQuery(makeFunctionReference<"query">(path), args)) as AgentRuns;
      const { documentsRead } = await ctx.meta.getTransactionMetrics();
      // with the token and the agent's row
      expect(documentsRead.used).toBeLessThanOrEqual(3 * Math.min(limit, 30) + 3);
      return [runs.length, isDone];
    });
  expect(await page("hint", 10)).toEqual([10, false]);
  expect(await page("hint", 31)).toEqual([30, true]);
  expect(await page("plain", 1)).toEqual([0, true]);
});
