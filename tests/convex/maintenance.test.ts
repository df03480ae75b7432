/** Where a story cannot go: rows that break, years that pass, a thousand tasks. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { taskIndex } from "../../convex/fleet";
import { memoryEngine, START_AT } from "./engines";
import { cron, DAY, every, hashOf, HOUR, MINUTE, World } from "./world";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
afterEach(() => void vi.useRealTimers());

async function deployment() {
  const engine = memoryEngine();
  const world = new World(engine);
  await world.prepare();
  return { ...engine, world };
}

describe("the sweep", () => {
  test("a row that throws is put off with its error, the others are flipped, and it heals once it can", async () => {
    const { world, t } = await deployment();
    await world.register(
      { agent: "broken", schedule: cron("0 * * * *") },
      { agent: "hint", schedule: every(HOUR) },
      { agent: "torv", schedule: every(HOUR) },
    );
    const id = await t.run(async (ctx) => {
      const rows = await ctx.db.query("agentLiveness").collect();
      const { _id } = rows.find((row) => row.agent === "broken")!;
      // as an expression would be that a later version no longer reads
      await ctx.db.patch("agentLiveness", _id, {
        schedule: { kind: "cron", expression: "@hourly", timeZone: "UTC" },
      });
      return _id;
    });
    await world.pass(3 * HOUR);
    const { agents } = await world.dashboard();
    expect(Object.fromEntries(agents.map((row) => [row.agent, row.health]))).toEqual({
      broken: "new",
      hint: "degraded",
      torv: "degraded",
    });
    const broken = () => t.run(async (ctx) => (await ctx.db.get("agentLiveness", id))!);
    const sweepError = {
      message: expect.stringContaining("@hourly") as string,
      at: expect.any(Number) as number,
    };
    expect(agents.find((row) => row.agent === "broken")).toMatchObject({ sweepError });
    const { sweepAt } = await broken();
    expect(sweepAt).toBeGreaterThan(world.now);
    expect(sweepAt).toBeLessThanOrEqual(world.now + 10 * MINUTE);

    const schedule = { kind: "cron" as const, expression: "0 * * * *", timeZone: "UTC" };
    await t.run(async (ctx) => await ctx.db.patch("agentLiveness", id, { schedule }));
    await world.pass(10 * MINUTE);
    expect(await broken()).toMatchObject({ health: "degraded" });
    expect(await broken()).not.toHaveProperty("sweepError");
  });

  test("the error of a row is gone with the next heartbeat that could be stored", async () => {
    const { world, t } = await deployment();
    await world.register({ agent: "hint", schedule: every(HOUR) });
    await t.run(async (ctx) => {
      const { _id } = (await ctx.db.query("agentLiveness").first())!;
      await ctx.db.patch("agentLiveness", _id, { sweepError: { message: "fleet.ts: no", at: START_AT } });
    });
    await world.send("hint");
    expect(await world.row("hint")).not.toHaveProperty("sweepError");
  });

  test("the team's own row shows what the sweep found, and nothing else of it changes", async () => {
    const { world, t } = await deployment();
    await world.register({ agent: "hint", schedule: every(HOUR), purpose: "Drift" });
    await world.send("hint", {
      summary: "fine",
      status: "busy",
      error: "one file locked",
      openTasks: 4,
      staleTasks: 1,
    });
    const agent = () => t.run(async (ctx) => await ctx.db.query("agents").first());
    const before = await agent();
    expect(before?.heartbeat).toEqual({
      lastHeartbeatAt: world.now,
      status: "working",
      openTasks: 4,
      staleTasks: 1,
      summary: "fine",
      purpose: "Drift",
      error: "one file locked",
      health: "ok",
      degraded: false,
    });
    await world.pass(3 * HOUR);
    expect(await agent()).toEqual({
      ...before,
      heartbeat: { ...before?.heartbeat, health: "degraded", degraded: true },
    });
    await world.control("hint", "paused");
    expect((await agent())?.heartbeat).toMatchObject({ health: "degraded", degraded: false });
    await world.send("hint");
    expect((await agent())?.heartbeat).not.toHaveProperty("error");
  });

  test("an agent whose row the team took away is not linked, still watched, and linked again when the row is back", async () => {
    const { world, t } = await deployment();
    await world.register({ agent: "hint", schedule: every(HOUR) });
    await t.run(async (ctx) => await ctx.db.delete("agents", (await ctx.db.query("agents").first())!._id));
    expect(await world.send("hint")).toMatchObject({ outcome: "recorded", linked: false });
    await world.pass(3 * HOUR);
    expect(await world.row("hint")).toMatchObject({ health: "degraded", linked: false });
    const again = { changes: [{ change: "changed", fields: ["link"], linked: true }] };
    const schedule = [{ agent: "hint", schedule: every(HOUR) }];
    expect(await world.apply(schedule, { dryRun: true })).toMatchObject(again);
    expect(await world.apply(schedule)).toMatchObject(again);
    expect(await world.row("hint")).toMatchObject({ linked: true });
    expect(await world.apply(schedule)).toMatchObject({ changes: [{ change: "unchanged" }] });
  });
});

test("a row of functions that did not know failAfter fails after one error, which the schedule that says nothing leaves", async () => {
  const { world, t } = await deployment();
  await world.register({ agent: "hint", schedule: every(HOUR) });
  await world.send("hint", { status: "error" });
  await t.run(async (ctx) => {
    const { _id } = (await ctx.db.query("agentLiveness").first())!;
    await ctx.db.patch("agentLiveness", _id, { failAfter: undefined, failures: undefined });
  });
  expect(await world.row("hint")).toMatchObject({ failAfter: 1, consecutiveFailures: 1, health: "failing" });
  const again = { changes: [{ change: "unchanged", fields: [] }] };
  expect(await world.apply([{ agent: "hint", schedule: every(HOUR) }])).toMatchObject(again);
  world.later(MINUTE);
  expect(await world.send("hint")).toMatchObject({ health: "ok", reason: "recovered" });
});

describe("rows of functions that looked for the agent's row by its name each time", () => {
  async function older() {
    const deployed = await deployment();
    const { world, t } = deployed;
    await world.register({ agent: "hint", schedule: every(HOUR) });
    const rows = () =>
      t.run(async (ctx) => ({
        ours: (await ctx.db.query("agentLiveness").first())!,
        theirs: (await ctx.db.query("agents").collect()).map(({ _id, heartbeat }) => ({ _id, heartbeat })),
      }));
    const { ours } = await rows();
    await t.run((ctx) => ctx.db.patch("agentLiveness", ours._id, { agentRow: undefined }));
    return { ...deployed, rows };
  }

  test("are linked by the next heartbeat", async () => {
    const { world, rows } = await older();
    expect(await world.send("hint", { summary: "fine" })).toMatchObject({ linked: true });
    const { ours, theirs } = await rows();
    expect(theirs).toMatchObject([{ _id: ours.agentRow, heartbeat: { summary: "fine" } }]);
  });

  test("are linked by the schedule applied again, which changes nothing else", async () => {
    const { world, rows } = await older();
    const again = { changes: [{ change: "unchanged", linked: true }] };
    expect(await world.apply([{ agent: "hint", schedule: every(HOUR) }])).toMatchObject(again);
    const { ours, theirs } = await rows();
    expect(theirs.map(({ _id }) => _id)).toEqual([ours.agentRow]);
  });

  test("are linked by the reconcile that follows the push", async () => {
    const { admin, rows } = await older();
    await admin("heartbeat/maintenance:reconcile", {});
    const { ours, theirs } = await rows();
    expect(theirs.map(({ _id }) => _id)).toEqual([ours.agentRow]);
  });
});

describe("pruning", () => {
  test("history goes after 90 days by receipt, flips and revoked tokens after a year, batch by batch", async () => {
    const { world, t, admin } = await deployment();
    await world.register({ agent: "hint", schedule: every(HOUR) });
    const { fingerprint } = await world.ask<{ fingerprint: string }>("mutations/createToken", {
      tokenHash: hashOf("old one"),
      name: "old one",
      scope: "read",
    });
    await world.ask("mutations/revokeToken", { fingerprint });
    const first = await world.send("hint");
    await t.run(async (ctx) => {
      const { _id, _creationTime, ...stored } = (await ctx.db.query("agentHeartbeats").first())!;
      expect([_id, _creationTime]).toHaveLength(2);
      for (let nth = 0; nth < 450; nth++) {
        await ctx.db.insert("agentHeartbeats", { ...stored, heartbeatId: `copy-${nth}` });
      }
    });
    const rows = (table: "agentHeartbeats" | "agentFlips" | "heartbeatTokens") =>
      t.run(async (ctx) => (await ctx.db.query(table).collect()).length);
    const tokens = await rows("heartbeatTokens");

    world.away(90 * DAY);
    // old by what it says of itself, and received just now
    await world.send("hint", { age: 80 * DAY });
    await admin("heartbeat/maintenance:prune", {});
    await world.until(async () => (await rows("agentHeartbeats")) === 452);
    world.away(MINUTE);
    await admin("heartbeat/maintenance:prune", {});
    await world.until(async () => (await rows("agentHeartbeats")) === 1);
    expect(await rows("agentFlips")).toBeGreaterThan(0);
    expect(await rows("heartbeatTokens")).toBe(tokens);
    expect(await world.row("hint")).toMatchObject({ lastHeartbeatAt: first.livenessAt + 10 * DAY });

    world.away(275 * DAY + MINUTE);
    await admin("heartbeat/maintenance:prune", {});
    await world.until(async () => (await rows("heartbeatTokens")) === tokens - 1);
    // of two flips the first is a year old
    expect((await world.detail("hint")).flips.map((flip) => flip.noticedAt)).toEqual([START_AT + 90 * DAY]);
  });
});

test("a thousand tasks are counted, more are said to be more, and closed ones cost nothing", async () => {
  const { world, t } = await deployment();
  await world.register({ agent: "hint", schedule: every(HOUR) });
  const add = (count: number, status: string) =>
    t.run(async (ctx) => {
      for (let nth = 0; nth < count; nth++) {
        await ctx.db.insert("tasks", { assignee: "hint", title: `${status} ${nth}`, status, updatedAt: 0 });
      }
    });
  const counts = async () => await world.ask("queries/getAgentTaskCounts", { agent: "hint", at: world.now });
  await add(100, "done");
  await add(500, "aaa-first");
  await add(500, "open");
  expect(await counts()).toMatchObject({ openTasks: 1_000, staleTasks: 1_000, capped: false });
  await add(1, "zzz-last");
  expect(await counts()).toMatchObject({ openTasks: 1_000, capped: true, unknownStatuses: ["aaa-first"] });
  const { documentsRead } = await t.query(async (ctx) => {
    await taskIndex.open(ctx, { name: "hint" }, 2_000);
    return await ctx.meta.getTransactionMetrics();
  });
  expect(documentsRead.used).toBe(1_001);
});
