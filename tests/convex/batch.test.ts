/** A batch is nothing but its heartbeats: what is stored, and what is answered, is what calls of their own would have left. */
import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { BatchRecorded } from "../../convex/heartbeat/model/heartbeatValidators";
import { type Args, memoryEngine, Refused, START_AT } from "./engines";
import { leaveAllowance, rowsOf } from "./stored";
import { cron, every, hashOf, HOUR, MINUTE, runId, SECOND, World } from "./world";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
afterEach(() => void vi.useRealTimers());

const RUNS = process.env["HEARTBEAT_TEST_LONG"] === "1" ? 500 : 40;

const TOKEN = "a token with a list";

/** Everything that a heartbeat changes. */
const TABLES = ["agentHeartbeats", "agentLiveness", "agentFlips", "agents"] as const;

/** What is sent at one instant, `seconds` after the one before; `cuts`: after which of them a batch ends. */
type Moment = { seconds: number; sweeps: boolean; said: Said[]; cuts: boolean[] };
type Said = {
  agent: string;
  ageMs: number;
  status: string;
  counted: boolean;
  result?: string;
  run?: { nth: number; phase: string };
  /** it has the id of an earlier heartbeat: this many before it */
  again?: number;
};

const said = fc.record(
  {
    // rams is not on the token's list, nobody is and was never registered, slow may send two
    agent: fc.constantFrom("hint", "hint", "torv", "torv", "slow", "rams", "nobody"),
    ageMs: fc.oneof(fc.nat(5 * MINUTE), fc.nat(8 * HOUR)),
    status: fc.constantFrom("ok", "ok", "working", "error", "sleepy"),
    counted: fc.boolean(),
    result: fc.constantFrom("acted", "noop"),
    run: fc.record({ nth: fc.nat(2), phase: fc.constantFrom("start", "finish") }),
    again: fc.integer({ min: 1, max: 4 }),
  },
  { requiredKeys: ["agent", "ageMs", "status", "counted"] },
);

const moments: fc.Arbitrary<Moment[]> = fc.array(
  fc.record({
    seconds: fc.constantFrom(0, 1, 150, 3_600, 9_000),
    sweeps: fc.boolean(),
    said: fc.array(said, { minLength: 1, maxLength: 8 }),
    cuts: fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
  }),
  { minLength: 1, maxLength: 4 },
);

const one = (agent: string, more: Partial<Said> = {}): Said => {
  return { agent, ageMs: 0, status: "ok", counted: true, ...more };
};
const uncut = { cuts: [], sweeps: false };
const agesAgo = (minutes: number) => ({ ageMs: minutes * MINUTE });

/** What has to be among what is tried, however the dice fall: every way to be refused, and flips by heartbeats. */
const EXAMPLE: Moment[] = [
  { ...uncut, seconds: 0, said: ["slow", "slow", "slow", "rams", "nobody"].map((agent) => one(agent)) },
  {
    ...uncut,
    seconds: 1,
    said: [
      one("hint", agesAgo(59.9)),
      one("hint", { again: 1 }),
      one("torv", { again: 1 }),
      one("hint", { status: "sleepy" }),
      one("torv"),
    ],
  },
  // an hour after it was sent, and its agent has one hour and no grace; the sweep was here a moment ago
  { ...uncut, seconds: 150, said: [one("hint", agesAgo(62)), one("torv", { status: "error" })] },
];

async function deployment() {
  vi.setSystemTime(START_AT);
  const { t, ...engine } = memoryEngine();
  const world = new World(engine);
  await world.prepare();
  await world.register(
    { agent: "hint", schedule: every(HOUR), misses: 1, graceMs: 0 },
    { agent: "torv", schedule: cron("*/30 * * * *", "Europe/Berlin"), maxRunMs: 20 * MINUTE },
    { agent: "slow", schedule: every(HOUR) },
    { agent: "rams", schedule: every(HOUR) },
  );
  await leaveAllowance(t, "slow", 2);
  for (const title of ["one", "two"]) await world.ask("mutations/addTask", { agent: "hint", title });
  const agents = ["hint", "torv", "slow", "nobody"];
  const request = { tokenHash: hashOf(TOKEN), name: "listed", scope: "send", agents };
  await world.ask("mutations/createToken", request);
  await world.sweep();
  const send = async (heartbeat: Args) => {
    try {
      return await engine.call("mutations/recordHeartbeat", { token: TOKEN, heartbeat });
    } catch (error) {
      if (error instanceof Refused) return { outcome: "refused", ...error.data };
      throw error;
    }
  };
  const deliver = async (heartbeats: Args[]) => {
    const args = { token: TOKEN, batch: { heartbeats } };
    return ((await engine.call("mutations/recordHeartbeats", args)) as BatchRecorded).results;
  };
  return { t, world, send, deliver };
}

type Deployment = Awaited<ReturnType<typeof deployment>>;

/** Lets it all happen in a deployment of its own; what was answered, and what is stored at the end. */
async function live(
  list: Moment[],
  sendAll: (here: Deployment, heartbeats: Args[], cuts: boolean[]) => Promise<unknown[]>,
) {
  const here = await deployment();
  const { world, t } = here;
  const ids: string[] = [];
  const answers: unknown[] = [];
  for (const { seconds, sweeps, said, cuts } of list) {
    world.later(seconds * SECOND);
    if (sweeps) await world.sweep();
    const heartbeats = said.map(({ agent, ageMs, again, counted, run, ...rest }) => {
      const heartbeatId = (again && ids.at(-again)) || world.newHeartbeatId();
      ids.push(heartbeatId);
      return {
        ...{ heartbeatId, agent, sentAt: world.now - ageMs, deliveredAt: world.now, ...rest },
        ...(counted && { openTasks: 3, staleTasks: 1 }),
        ...(run && { run: { runId: runId(run.nth), phase: run.phase } }),
      };
    });
    answers.push(...(await sendAll(here, heartbeats, cuts)));
  }
  return { answers, rows: await rowsOf(t, ...TABLES) };
}

test("the same heartbeats one by one or in any split of batches are answered alike and leave the same", async () => {
  const seen = new Set<string>();
  await fc.assert(
    fc.asyncProperty(moments, async (list) => {
      const singly = await live(list, async ({ send }, heartbeats) => {
        const answers: unknown[] = [];
        for (const heartbeat of heartbeats) answers.push(await send(heartbeat));
        return answers;
      });
      const together = await live(list, async ({ deliver }, heartbeats, cuts) => {
        const answers: unknown[] = [];
        let batch: Args[] = [];
        for (const [nth, heartbeat] of heartbeats.entries()) {
          batch.push(heartbeat);
          if (!cuts[nth] && nth < heartbeats.length - 1) continue;
          answers.push(...(await deliver(batch)));
          batch = [];
        }
        return answers;
      });
      expect(together).toEqual(singly);
      for (const answer of singly.answers as Record<string, string>[]) {
        seen.add(answer["code"] ?? answer["outcome"]!);
        if (answer["healthBefore"]) seen.add(`${answer["healthBefore"]} to ${answer["health"]}`);
      }
    }),
    { numRuns: RUNS, examples: [[EXAMPLE]] },
  );
  const outcomes = ["recorded", "duplicate"];
  const codes = ["conflict", "invalid", "slow_down", "unauthorized", "unknown_agent"];
  // enough was tried to mean something: flips by heartbeats among it
  expect([...seen]).toEqual(
    expect.arrayContaining([...outcomes, ...codes, "ok to degraded", "ok to failing"]),
  );
});

test("of what is refused in a batch nothing is stored, whatever the reason", async () => {
  const { t, world, deliver } = await deployment();
  const [known] = [world.heartbeat("hint"), await leaveAllowance(t, "slow", 0)];
  await deliver([known]);
  const before = await rowsOf(t, ...TABLES, "tasks", "heartbeatTokens");
  const uncounted = { openTasks: undefined, staleTasks: undefined, age: 5 * HOUR };
  const results = await deliver([
    world.heartbeat("rams", uncounted),
    { ...world.heartbeat("hint", uncounted), status: "sleepy" },
    world.heartbeat("nobody", uncounted),
    { ...world.heartbeat("torv", uncounted), heartbeatId: known["heartbeatId"] },
    world.heartbeat("slow", uncounted),
    known,
  ]);
  expect(results.map((one) => ("code" in one ? one.code : one.outcome))).toEqual([
    ...["unauthorized", "invalid", "unknown_agent", "conflict", "slow_down"],
    "duplicate",
  ]);
  expect(await rowsOf(t, ...TABLES, "tasks", "heartbeatTokens")).toEqual(before);
});

test("an error that is no refusal takes the whole batch down, and nothing of it is stored", async () => {
  const { t, world, deliver } = await deployment();
  await t.run(async (ctx) => {
    const row = (await ctx.db.query("agentLiveness").collect()).find(({ agent }) => agent === "torv")!;
    // as an expression would be that a later version no longer reads
    const schedule = { kind: "cron" as const, expression: "@hourly", timeZone: "UTC" };
    await ctx.db.patch("agentLiveness", row._id, { schedule });
  });
  const before = await rowsOf(t, ...TABLES, "heartbeatTokens");
  const batch = ["hint", "torv", "slow"].map((agent) => world.heartbeat(agent));
  await expect(deliver(batch)).rejects.toThrow("@hourly");
  expect(await rowsOf(t, ...TABLES, "heartbeatTokens")).toEqual(before);
  const results = await deliver(batch.filter(({ agent }) => agent !== "torv"));
  expect(results).toMatchObject([{ outcome: "recorded" }, { outcome: "recorded" }]);
});
