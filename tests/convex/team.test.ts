/** What a team's app may hand us: tasks of one instant, a ctx.db that its triggers have wrapped, tasks that its fleet.ts cannot read. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Id } from "../../convex/_generated/dataModel";
import type { MutationCtx } from "../../convex/_generated/server";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { adopt, copyApp, modulesOf } from "./adopted";
import { type App, type Args, memoryEngine, START_AT } from "./engines";
import { every, HOUR, World } from "./world";

/** The index way, for tasks that have one assignee and are `doing`; a title that begins with ? is one that taskFacts cannot read. */
const INDEXED = `
export const taskIndex: TaskIndex = {
  open: async (ctx, { row }, limit) => {
    const doing = await ctx.db
      .query("tasks")
      .withIndex("by_state", (q) => q.eq("state", "doing"))
      .take(limit);
    return doing.filter((task) => task.assignees[0] === row);
  },
  all: async (ctx, _agent, page) => await ctx.db.query("tasks").paginate(page),
};
`;
const PICKY = 'TaskFacts {\n  if (task.title.startsWith("?")) throw new Error("which?");';

/** Float64 has steps above 0.001 ms in this year, so that what convex-test inserts then is all of one instant. */
const YEAR_2600 = Date.UTC(2600, 0);

const uncounted = { openTasks: undefined, staleTasks: undefined };

type Memory = ReturnType<typeof memoryEngine>;
type Deployment = { world: World; engine: Memory; t: Memory["t"]; hint: Id<"agents"> };

async function adopted(folder: string): Promise<App> {
  const schema = (await import(join(folder, "convex", "schema.ts"))) as { default: App["schema"] };
  return { schema: schema.default, modules: modulesOf(folder) };
}

/** The app with hint, watched and with a row in its agents. */
async function deployment(app: App): Promise<Deployment> {
  const engine = memoryEngine(app);
  const world = new World(engine);
  await world.prepare();
  const agent = { handle: "hint", kind: "bot", role: "editor", skills: [], joinedAt: 0 };
  const hint = await engine.t.run(async (ctx) => await ctx.db.insert("agents", agent as never));
  await world.register({ agent: "hint", schedule: every(HOUR) });
  await engine.t.finishInProgressScheduledFunctions();
  return { world, engine, t: engine.t, hint };
}

/** Insert tasks of hint's past mirrorTask. */
async function insert({ t, hint }: Deployment, ...titles: string[]): Promise<Id<"tasks">[]> {
  return await t.run(async (ctx) => {
    const ids: Id<"tasks">[] = [];
    for (const title of titles) {
      const task = { title, state: "doing", assignees: [hint], lastActivityAt: 0 };
      ids.push(await ctx.db.insert("tasks", task as never));
    }
    return ids;
  });
}

/** A whole reconcile; answers how many rows of the mirror each task has. */
async function reconcile({ world, engine, t }: Deployment): Promise<number[]> {
  world.later(1);
  const begunAt = world.now;
  await engine.admin("heartbeat/maintenance:reconcile", {});
  const counts = async () =>
    await world.ask<Args>("queries/getAgentTaskCounts", { agent: "hint", at: world.now });
  await world.until(async () => ((await counts())["countedAt"] ?? 0) === begunAt);
  return await t.run(async (ctx) => {
    const rows = await ctx.db.query("heartbeatTasks").collect();
    const tasks = await ctx.db.query("tasks").collect();
    return tasks.map((task) => rows.filter((row) => row.taskId === task._id).length);
  });
}

const mirroring = copyApp();
const indexing = copyApp();
let mirrored: App;
let indexed: App;
beforeAll(async () => {
  for (const folder of [mirroring, indexing]) adopt(folder);
  const fleet = join(indexing, "convex", "fleet.ts");
  const text = readFileSync(fleet, "utf8")
    .replace(/export const taskIndex.*\n/, INDEXED)
    .replace("TaskFacts {", PICKY);
  writeFileSync(fleet, text);
  [mirrored, indexed] = [await adopted(mirroring), await adopted(indexing)];
});

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
afterEach(() => void vi.useRealTimers());

test("tasks of one instant have one row each however often they are reconciled, and doubled rows are taken out", async () => {
  const app = await deployment(mirrored);
  vi.setSystemTime(YEAR_2600);
  const ids = await insert(app, ...Array.from({ length: 120 }, (_, nth) => `t${nth}`));
  vi.setSystemTime(START_AT + HOUR);
  const times = await app.t.run(async (ctx) =>
    (await ctx.db.query("tasks").collect()).map((task) => task._creationTime),
  );
  expect(new Set(times).size).toBe(1);
  const once = ids.map(() => 1);
  expect(await reconcile(app)).toEqual(once);
  expect(await reconcile(app)).toEqual(once);
  await app.t.run(async (ctx) => {
    for (const row of await ctx.db.query("heartbeatTasks").take(60)) {
      await ctx.db.insert("heartbeatTasks", { ...row, _id: undefined, _creationTime: undefined } as never);
    }
  });
  expect(await reconcile(app)).toEqual(once);
});

test("mirrorTask goes through a ctx.db that takes ids without the name of their table", async () => {
  const app = await deployment(mirrored);
  await reconcile(app);
  const [id] = await insert(app, "wrapped");
  const { mirrorTask } = (await import(join(mirroring, "convex", "heartbeat", "mirror.ts"))) as {
    mirrorTask: (ctx: Pick<MutationCtx, "db">, id: Id<"tasks">) => Promise<void>;
  };
  const complaint = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const mirrorAs = async (change: (db: MutationCtx["db"]) => Promise<void>) =>
    await app.t.run(async (ctx) => {
      await change(ctx.db);
      await mirrorTask({ db: withoutNames(ctx.db) }, id!);
      return (await ctx.db.query("heartbeatTasks").collect()).map((row) => row.title);
    });
  expect(await mirrorAs(async () => {})).toEqual(["wrapped"]);
  expect(await mirrorAs((db) => db.patch("tasks", id!, { title: "renamed" }))).toEqual(["renamed"]);
  expect(await mirrorAs((db) => db.delete("tasks", id!))).toEqual([]);
  expect(complaint).not.toHaveBeenCalled();
  complaint.mockRestore();
});

/** As the triggers of convex-helpers before 0.1.107 hand a `ctx.db` on. */
function withoutNames(db: MutationCtx["db"]): MutationCtx["db"] {
  const one =
    (call: (id: never, value: never) => Promise<unknown>) =>
    async (id: string, value?: unknown): Promise<unknown> => {
      if (!/^\d/.test(id)) throw new Error(`'${id}' is not an ID`);
      return await call(id as never, value as never);
    };
  /* eslint-disable @convex-dev/explicit-table-ids -- it is what is tested */
  return {
    query: (table: never) => db.query(table),
    insert: (table: never, value: never) => db.insert(table, value),
    get: one((id) => db.get(id)),
    replace: one((id, value) => db.replace(id, value)),
    delete: one((id) => db.delete(id)),
  } as unknown as MutationCtx["db"];
  /* eslint-enable @convex-dev/explicit-table-ids */
}

test("a task that fleet.ts cannot read stops no heartbeat: the agent keeps the counts that it had, as at their limit", async () => {
  const complaint = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const app = await deployment(indexed);
  const { world } = app;
  const [broken] = await insert(app, "?");
  // none were known
  const none = { openTasks: 0, staleTasks: 0, countsCapped: true, countedBy: "server" };
  expect(await world.send("hint", uncounted)).toMatchObject({ outcome: "recorded", health: "ok", ...none });
  expect(complaint.mock.lastCall).toEqual([expect.stringMatching(/open tasks of hint .*which\?/)]);

  await app.t.run(async (ctx) => await ctx.db.patch("tasks", broken!, { title: "!" }));
  const counted = { openTasks: 1, staleTasks: 1 };
  expect(await world.send("hint", uncounted)).toMatchObject({ ...counted, countsCapped: false });
  const countedAt = world.now;
  await insert(app, "?");
  world.later(HOUR);
  complaint.mockClear();
  const heartbeats = [world.heartbeat("hint", uncounted), world.heartbeat("hint", uncounted)];
  const kept = { ...counted, countsCapped: true };
  expect(await world.deliver(heartbeats)).toMatchObject([
    { outcome: "recorded", ...kept },
    { outcome: "recorded", ...kept },
  ]);
  expect(complaint).toHaveBeenCalledTimes(1);
  expect(await world.row("hint")).toMatchObject({ ...kept, countedAt });
  // and a sender's own counts are counts again
  expect(await world.send("hint", { openTasks: 7, staleTasks: 0 })).toMatchObject({
    openTasks: 7,
    countsCapped: false,
  });
  complaint.mockRestore();
});
