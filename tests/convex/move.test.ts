/** From one deployment to another: the other knows what the first knew, whatever is repeated, and goes on as it would have. */
import fc from "fast-check";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Exported, Imported } from "../../convex/heartbeat/model/moveValidators";
import { bundle, type Engine, memoryEngine, processEngine, START_AT } from "./engines";
import { cron, DAY, every, HOUR, MINUTE, runId, SECOND, World } from "./world";

type Records = Record<string, unknown>[];
const KINDS = ["heartbeats", "flips", "agents"] as const;
const AGENTS = ["hint", "rams", "torv"];
const FLEET = [
  { agent: "hint", schedule: every(HOUR), graceMs: MINUTE, failAfter: 2 },
  { agent: "rams", schedule: cron("*/30 * * * *") },
  { agent: "torv", schedule: every(2 * HOUR), maxRunMs: 30 * MINUTE, purpose: "implementation review" },
];
const LONG = process.env["HEARTBEAT_TEST_LONG"] === "1";
const RUNS = LONG ? 500 : 10;
/** A run takes some 40 ms, ms. */
const RUNS_WITHIN = LONG ? 300_000 : 30_000;
const SWEEP_EVERY = 5 * MINUTE;

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
afterEach(() => void vi.useRealTimers());

async function worldOn(engine: Engine): Promise<World> {
  const world = new World(engine);
  await world.prepare();
  return world;
}

/** Everything that is recorded, read in pages of `limit`. */
async function everything(world: World, limit: number): Promise<Record<string, Records>> {
  const all: Record<string, Records> = {};
  for (const kind of KINDS) {
    const records: Records = (all[kind] = []);
    let page: Exported | undefined;
    while (!page?.isDone) {
      const cursor = page?.continueCursor ?? null;
      page = await world.ask<Exported>("queries/exportRecords", { kind, limit, cursor });
      records.push(...(page.records as unknown as Records));
    }
  }
  return all;
}

/** Import it in calls of `size`; answers how many were there already. */
async function takeAll(world: World, all: Record<string, Records>, size: number): Promise<number> {
  let known = 0;
  for (const kind of KINDS) {
    const records = all[kind] ?? [];
    for (let from = 0; from < records.length; from += size) {
      const request = { kind, records: records.slice(from, from + size) };
      const answer = await world.ask<Imported>("mutations/importRecords", request);
      expect(answer.refused).toEqual([]);
      known += answer.known;
    }
  }
  return known;
}

/** What people see of it. */
async function views(world: World): Promise<unknown[]> {
  const seen: unknown[] = [(await world.dashboard()).agents];
  for (const agent of AGENTS) {
    seen.push(
      await world.detail(agent),
      (await world.history(agent)).heartbeats,
      (await world.runs(agent)).runs,
    );
  }
  return seen;
}

type Step =
  | {
      what: "send";
      agent: string;
      status: string;
      age: number;
      acted: boolean;
      run?: [number, "start" | "finish"];
    }
  | { what: "pass"; minutes: number }
  | { what: "control"; agent: string; control: string };

const agent = fc.constantFrom(...AGENTS);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record(
      {
        what: fc.constant("send" as const),
        agent,
        status: fc.constantFrom("ok", "Busy", "error", "blocked"),
        age: fc.constantFrom(0, 0, MINUTE, 3 * HOUR),
        acted: fc.boolean(),
        run: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.constantFrom("start" as const, "finish" as const)),
      },
      { requiredKeys: ["what", "agent", "status", "age", "acted"] },
    ),
  },
  {
    weight: 3,
    arbitrary: fc.record({ what: fc.constant("pass" as const), minutes: fc.integer({ min: 1, max: 180 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      what: fc.constant("control" as const),
      agent,
      control: fc.constantFrom("active", "paused", "retired"),
    }),
  },
);

/** The same in each of them: one that is alone, or two that know the same. */
async function live(worlds: World[], steps: Step[]): Promise<void> {
  const [first] = worlds as [World];
  for (const one of steps) {
    if (one.what === "pass") await pass(worlds, first.now + one.minutes * MINUTE);
    else if (one.what === "control") for (const world of worlds) await world.control(one.agent, one.control);
    else {
      const { status, age, acted, run } = one;
      const heartbeat = first.heartbeat(one.agent, {
        ...{ status, age, summary: `${status} at ${first.now}` },
        ...(acted && { result: "acted" }),
        ...(run && { run: { runId: runId(run[0]), phase: run[1] } }),
      });
      for (const world of worlds) {
        await world.ask("mutations/recordHeartbeat", heartbeat, { as: "sender" });
      }
    }
  }
}

/** Time passes on all of them, whether their clocks are one or not. */
async function pass(worlds: World[], end: number): Promise<void> {
  const [first] = worlds as [World];
  while (first.now < end) {
    const next = Math.min(first.now + SWEEP_EVERY, end);
    for (const world of worlds) world.later(next - world.now);
    for (const world of worlds) await world.sweep();
  }
}

/** What was lived in one is moved to the other, partly twice; both then know and show the same, and go on alike. */
async function moves(from: World, to: World, steps: Step[], after: Step[], size: number): Promise<void> {
  await from.register(...FLEET);
  await live([from], steps);
  to.later(from.now - to.now);
  const all = await everything(from, size + 1);
  const count = KINDS.reduce((sum, kind) => sum + (all[kind]?.length ?? 0), 0);
  const half = Object.fromEntries(KINDS.map((kind) => [kind, all[kind]!.slice(0, all[kind]!.length / 2)]));
  expect(await takeAll(to, half, size)).toBe(0);
  await takeAll(to, all, size);
  expect(await takeAll(to, all, 100)).toBe(count);
  expect(await everything(to, 50)).toEqual(all);
  expect(await views(to)).toEqual(await views(from));

  for (const world of [from, to]) await world.sweep();
  await live([from, to], after);
  expect(await views(to)).toEqual(await views(from));
}

test(
  "whatever was lived, another deployment knows the same after an import, and goes on alike",
  async () => {
    const steps = fc.array(step, { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(steps, steps, fc.integer({ min: 1, max: 4 }), async (before, after, size) => {
        vi.setSystemTime(START_AT);
        const [from, to] = [await worldOn(memoryEngine()), await worldOn(memoryEngine())];
        await moves(from, to, before, after, size);
      }),
      { numRuns: RUNS },
    );
  },
  RUNS_WITHIN,
);

test(
  "an agent that is watched under the same rules elsewhere is there afterwards as it was, if anything was heard of it",
  async () => {
    const heard = (rows: Records) => rows.filter((row) => row["lastHeartbeatId"] !== undefined);
    const steps = fc.array(
      step.filter(({ what }) => what !== "control"),
      { maxLength: 12 },
    );
    await fc.assert(
      fc.asyncProperty(steps, async (lived) => {
        vi.setSystemTime(START_AT);
        const [from, to] = [await worldOn(memoryEngine()), await worldOn(memoryEngine())];
        for (const world of [from, to]) await world.register(...FLEET);
        await live([from], lived);
        const { agents = [] } = await everything(from, 10);
        await takeAll(to, { agents }, 10);
        expect(heard((await everything(to, 10))["agents"]!)).toEqual(heard(agents));
      }),
      { numRuns: RUNS },
    );
  },
  RUNS_WITHIN,
);

test("from one local backend to another", async () => {
  vi.useRealTimers();
  const folder = mkdtempSync(join(tmpdir(), "heartbeat-move-"));
  const functions = join(folder, "functions.mjs");
  await bundle("convex", functions);
  const engines = [await processEngine(functions), await processEngine(functions)] as const;
  try {
    const [from, to] = [await worldOn(engines[0]), await worldOn(engines[1])];
    const send = { what: "send", agent: "hint", status: "ok", age: 0, acted: true } as const;
    const later = { what: "pass", minutes: 150 } as const;
    const run = { ...send, agent: "torv", run: [1, "start"] } as const;
    const before = [send, run, later, { ...send, age: HOUR }, { ...run, status: "error" }] as const;
    await moves(from, to, [...before] as Step[], [later, send] as Step[], 2);
  } finally {
    for (const engine of engines) await engine.stop();
    rmSync(folder, { recursive: true });
  }
});

test("imported heartbeats are forgotten 90 days after their import, imported flips a year after they were noticed", async () => {
  const engine = memoryEngine();
  const world = await worldOn(engine);
  const receivedAt = START_AT - 89 * DAY;
  const heartbeat = { ...world.heartbeat("hint"), rawStatus: "ok", countsCapped: false, countedBy: "sender" };
  const records = [receivedAt, START_AT].map((at) => ({
    ...heartbeat,
    ...{ heartbeatId: world.newHeartbeatId(), receivedAt: at, livenessAt: at },
  }));
  const flip = { agent: "hint", from: "new", to: "ok", reason: "r", becameAt: 1 };
  const flips = [START_AT - 364 * DAY, START_AT].map((noticedAt) => ({ ...flip, noticedAt }));
  await takeAll(world, { heartbeats: records, flips }, 100);
  const left = async () => Object.values(await everything(world, 10)).map((rows) => rows.length);
  world.away(DAY);
  await engine.admin("heartbeat/maintenance:prune", {});
  expect(await left()).toEqual([2, 2, 0]);
  world.away(1);
  await engine.admin("heartbeat/maintenance:prune", {});
  expect(await left()).toEqual([2, 1, 0]);
  world.away(89 * DAY);
  await engine.admin("heartbeat/maintenance:prune", {});
  expect(await left()).toEqual([0, 1, 0]);
});

// --- an agent of which both have heard ---

/** Two deployments that watch the same agents. */
async function both(): Promise<[from: World, to: World]> {
  const worlds: [World, World] = [await worldOn(memoryEngine()), await worldOn(memoryEngine())];
  for (const world of worlds) await world.register(...FLEET);
  return worlds;
}

async function move(from: World, to: World): Promise<void> {
  await takeAll(to, await everything(from, 50), 50);
}

/** All that is known of an agent, as an export has it. */
async function known(world: World, agent: string): Promise<Record<string, unknown>> {
  const { agents = [] } = await everything(world, 50);
  return agents.find((one) => one["agent"] === agent)!;
}

/** One end of a run. */
function ran(nth: number, phase: "start" | "finish") {
  return { status: phase === "start" ? "working" : "ok", run: { runId: runId(nth), phase } };
}

test("a run that finished here is not open because it is where its start was heard; one that is open here stays so", async () => {
  const [from, to] = await both();
  await from.send("torv", ran(1, "start"));
  await to.send("torv", ran(2, "start"));
  to.later(SECOND);
  await to.send("torv", ran(1, "finish"));
  to.later(SECOND);
  await from.send("torv", ran(3, "start"));
  await move(from, to);
  const { openRuns, lastRun } = await known(to, "torv");
  expect(openRuns).toMatchObject([{ runId: runId(2) }, { runId: runId(3) }]);
  expect(lastRun).toMatchObject({ runId: runId(1) });
  await to.pass(25 * MINUTE);
  expect(await to.row("torv")).toMatchObject({ health: "ok" });
  await from.send("torv", ran(2, "finish"));
  await move(from, to);
  expect(await known(to, "torv")).toMatchObject({
    openRuns: [{ runId: runId(3) }],
    lastRun: { runId: runId(2), startedAt: START_AT, finishedAt: to.now },
  });
});

test("a newer start leaves what reports said here, and older reports take their place among them", async () => {
  const [from, to] = await both();
  await from.send("hint", { status: "error", error: "the first" });
  to.later(SECOND);
  const failed = { ...ran(1, "finish"), status: "error", error: "disk broke", summary: "it failed" };
  await to.send("hint", failed);
  expect(await to.row("hint")).toMatchObject({ health: "ok" });
  const before = await known(to, "hint");
  to.later(SECOND);
  await from.send("hint", ran(2, "start"));
  await move(from, to);
  const { lastReport, lastRun, lastError, summary } = before;
  expect(await known(to, "hint")).toMatchObject({
    ...{ lastReport, lastRun, lastError, summary, status: "working" },
    failures: { at: [START_AT, START_AT + SECOND] },
    ...{ health: "failing", reason: "imported", healthSince: to.now },
  });
  // and the same where the report is the newer one, and the start is here
  await move(to, from);
  expect(await known(from, "hint")).toMatchObject({ lastReport, health: "failing", status: "working" });
  const { failures } = await known(from, "hint");
  expect(failures).toEqual((await known(to, "hint"))["failures"]);
});

test("who was degraded and then paused elsewhere is watched here as one who is resumed", async () => {
  const [from, to] = await both();
  await from.send("hint");
  await from.pass(5 * HOUR);
  expect(await from.row("hint")).toMatchObject({ health: "degraded" });
  await from.control("hint", "paused");
  await from.send("hint", { summary: "still here" });
  to.later(10 * HOUR);
  await move(from, to);
  expect(await to.row("hint")).toMatchObject({ health: "ok", degraded: false, summary: "still here" });
  await to.pass(HOUR);
  expect(await to.row("hint")).toMatchObject({ health: "ok" });
  await to.pass(2 * HOUR);
  expect(await to.row("hint")).toMatchObject({ health: "degraded" });
});

test("a clock that was ahead elsewhere makes nobody deaf here", async () => {
  const [from] = await both();
  await from.send("torv", { ...ran(1, "start"), summary: "from the future" });
  await from.send("hint", { status: "error", error: "from the future" });
  const all = await everything(from, 50);
  // what is recorded is as of years after now
  const ahead = JSON.parse(JSON.stringify(all), (name, value: unknown) =>
    typeof value === "number" && value > DAY && !name.endsWith("Ms") ? value + 1_000 * DAY : value,
  ) as typeof all;
  for (const schedule of [true, false]) {
    const other = await worldOn(memoryEngine());
    if (schedule) await other.register(...FLEET);
    await takeAll(other, ahead, 50);
    await takeAll(other, ahead, 50);
    // the sender's clock may be as wrong as it likes, and what is open ends in the future
    const rows = JSON.stringify((await everything(other, 50))["agents"], (name, value: unknown) =>
      name === "lastSentAt" || name === "deadlineAt" ? undefined : value,
    );
    expect((rows.match(/\d{13,}/g) ?? []).map(Number).filter((at) => at > other.now)).toEqual([]);
    const [open] = (await known(other, "torv"))["openRuns"] as Records;
    expect(open).toMatchObject({ deadlineAt: other.now + 30 * MINUTE });
    other.later(MINUTE);
    await other.send("hint", { summary: "now" });
    expect(await other.row("hint")).toMatchObject({ health: "ok", summary: "now" });
    expect((await other.history("hint")).heartbeats[0]).toMatchObject({ summary: "now" });
    await other.pass(5 * HOUR);
    for (const agent of ["hint", "torv"]) {
      expect(await other.row(agent)).toMatchObject({ health: "degraded" });
    }
    vi.setSystemTime(START_AT);
  }
});

test("how often an agent ran since it acted is moved again, unless it acted here since", async () => {
  const [from, to] = await both();
  const since = async () => (await known(to, "hint"))["runsSinceActed"];
  const runs = async (world: World, ...results: string[]) => {
    for (const result of results) {
      from.later(SECOND);
      await world.send("hint", { result });
    }
  };
  await runs(from, "acted", "noop");
  await move(from, to);
  expect(await since()).toBe(1);
  await runs(from, "noop", "noop");
  await move(from, to);
  expect(await since()).toBe(3);
  await runs(to, "acted");
  await runs(from, "noop");
  await move(from, to);
  expect(await since()).toBe(0);
});

test("what no deployment says of an agent is refused, and a run id is known in whatever letters", async () => {
  const [from, to] = await both();
  await from.send("torv", ran(10, "start"));
  await from.send("torv");
  const torv = await known(from, "torv");
  const [open] = torv["openRuns"] as Records;
  const host = { host: "h", at: 1 };
  const lastReport = { at: 1, heartbeatId: "y", failing: true };
  for (const [field, wrong] of [
    ["skewMs", { skewMs: -1e300 }],
    ["skewMs", { skewMs: Infinity }],
    ["heartbeatId", { lastHeartbeatId: "x" }],
    ["heartbeatId", { lastReport }],
    ["hosts", { hosts: [host, host] }],
    ["openRuns", { openRuns: [open, open] }],
  ] as const) {
    const request = { kind: "agents", records: [{ ...torv, ...wrong }] };
    const { refused } = await to.ask<Imported>("mutations/importRecords", request);
    expect(refused, field).toMatchObject([{ code: "invalid", field }]);
  }
  const upper = { ...open, runId: String(open!["runId"]).toUpperCase() };
  await takeAll(to, { agents: [{ ...torv, openRuns: [upper] }] }, 1);
  expect((await known(to, "torv"))["openRuns"]).toEqual([open]);
});
