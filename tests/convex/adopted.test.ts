/** An app that exists takes the functions in: its documents, its tests and its own writing go on as before. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeFunctionReference } from "convex/server";
import type { Id } from "../../convex/_generated/dataModel";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { adopt, codeOf, copyApp, modulesOf } from "./adopted";
import {
  type App,
  type Args,
  bundle,
  type Engine,
  memoryEngine,
  onProcess,
  START_AT,
  toldOnProcess,
} from "./engines";
import { DAY, every, HOUR, TOKENS, World } from "./world";

type Team = { _id: string; handle: string; kind: string; heartbeat?: Args; joinedAt: number };
type Task = { _id: string; title: string; state: string; assignees: string[]; lastActivityAt: number };
type Counts = { openTasks: number; staleTasks: number; countedAt?: number; mirrored?: true };

const OPEN = ["idea", "doing", "review"];
const WATCHED = ["hint", "torv", "bot-7", "ghost"];

/** The app in a deployment that had its 200 documents before the functions watched anybody. */
class Adopted {
  readonly world: World;

  constructor(private readonly engine: Engine) {
    this.world = new World(engine);
  }

  async begin(): Promise<void> {
    await this.engine.admin("seed", { at: START_AT });
    await this.world.prepare();
  }

  async watch(): Promise<void> {
    await this.world.register(...WATCHED.map((agent) => ({ agent, schedule: every(HOUR) })));
  }

  /** A function of the app's own. */
  async app(path: string, args: Args): Promise<unknown> {
    return await this.engine.admin(path, args);
  }

  async team(): Promise<Team[]> {
    return (await this.app("careless:all", { table: "agents" })) as Team[];
  }

  async tasks(): Promise<Task[]> {
    return (await this.app("careless:all", { table: "tasks" })) as Task[];
  }

  async idOf(handle: string): Promise<string> {
    return (await this.team()).find((agent) => agent.handle === handle)!._id;
  }

  async counts(agent: string): Promise<Counts> {
    return await this.world.ask("queries/getAgentTaskCounts", { agent, at: this.world.now });
  }

  /** A whole reconcile, which leaves the mirror with a row for each assignee of each task and with no other. */
  async reconcile(): Promise<void> {
    this.world.later(1);
    const begunAt = this.world.now;
    await this.app("heartbeat/maintenance:reconcile", {});
    await this.world.until(async () => ((await this.counts("hint")).countedAt ?? 0) >= begunAt);
    const rows = (await this.app("careless:all", { table: "heartbeatTasks" })) as Args[];
    const mirrored = rows.map((row) => [
      row["taskId"],
      row["assignee"],
      row["title"],
      row["status"],
      row["open"],
    ]);
    const wanted = (await this.tasks()).flatMap(({ _id, assignees, title, state }) =>
      assignees.map((assignee) => [_id, assignee, title, state, OPEN.includes(state)]),
    );
    expect(mirrored.sort()).toEqual(wanted.sort());
  }

  /** The counts of every agent that is linked are what the tasks themselves say. */
  async expectRightCounts(): Promise<void> {
    const tasks = await this.tasks();
    for (const { handle, _id } of await this.team()) {
      const name = handle.toLowerCase();
      if (!WATCHED.includes(name)) continue;
      const open = tasks.filter((task) => task.assignees.includes(_id) && OPEN.includes(task.state));
      const stale = open.filter((task) => this.world.now - task.lastActivityAt > 7 * DAY);
      expect({ name, ...(await this.counts(name)) }).toMatchObject({
        name,
        openTasks: open.length,
        staleTasks: stale.length,
      });
    }
  }
}

const stories: { title: string; tell: (a: Adopted) => Promise<void> }[] = [
  {
    title: "its documents are what they were but for agents.heartbeat, and we insert none",
    tell: async (a) => {
      const { world: w } = a;
      const [team, tasks] = [await a.team(), await a.tasks()];
      const schedule = WATCHED.map((agent) => ({ agent, schedule: every(HOUR) }));
      const planned = await w.apply(schedule, { dryRun: true });
      expect(await a.team()).toEqual(team);
      const applied = await w.apply(schedule);
      for (const { outcome, ...answer } of [planned, applied]) {
        expect(outcome).not.toBe("refused");
        expect(answer).toMatchObject({
          changes: WATCHED.map((agent) => ({ agent, change: "added", linked: agent !== "ghost" })),
        });
      }
      await w.send("hint", { summary: "fine", openTasks: undefined, staleTasks: undefined });
      expect(await w.send("ghost")).toMatchObject({ outcome: "recorded", linked: false });
      await w.pass(3 * HOUR);
      await a.reconcile();
      expect(await a.tasks()).toEqual(tasks);
      const after = await a.team();
      expect(after.map((agent) => ({ ...agent, heartbeat: undefined }))).toEqual(
        team.map((agent) => ({ ...agent, heartbeat: undefined })),
      );
      const shown = after.filter((agent) => agent.heartbeat !== undefined);
      expect(shown.map((agent) => agent.handle)).toEqual(["Hint", "Torv", "Bot-7"]);
      expect(shown[0]!.heartbeat).toMatchObject({ summary: "fine", health: "degraded", degraded: true });
    },
  },
  {
    title: "tasks of several assignees are counted right, also where a mutation forgot to mirror",
    tell: async (a) => {
      const { world: w } = a;
      await a.watch();
      await w.until(async () => (await a.counts("hint")).countedAt !== undefined);
      await a.expectRightCounts();
      // what the helper sees counts at once
      const [hint, torv, bot] = [await a.idOf("Hint"), await a.idOf("Torv"), await a.idOf("Bot-7")];
      const before = await a.counts("hint");
      const id = await a.app("tasks:create", {
        title: "the plan",
        assignees: [hint, torv, await a.idOf("Ada")],
      });
      expect((await a.counts("hint")).openTasks).toBe(before.openTasks + 1);
      await a.app("tasks:assign", { id, assignees: [torv, bot] });
      await a.expectRightCounts();
      await a.app("tasks:move", { id, state: "shipped" });
      await a.expectRightCounts();
      const { tasks } = await w.ask<{ tasks: Args[] }>("queries/listAgentTasks", {
        agent: "torv",
        at: w.now,
        limit: 200,
      });
      expect(tasks.find((task) => task["taskId"] === id)).toMatchObject({ title: "the plan", counted: "no" });
      expect(tasks[0]).not.toMatchObject({ counted: "no" });
      await a.app("tasks:remove", { id });
      await a.expectRightCounts();
      // what it does not see, the reconcile finds: made, changed and deleted without it
      const right = await a.counts("hint");
      const forgotten = { title: "t", state: "doing", assignees: [hint, bot], lastActivityAt: 0 };
      await a.app("careless:write", { table: "tasks", value: forgotten });
      const [one, other] = (await a.tasks()).filter(
        (task) => task.assignees.includes(hint) && OPEN.includes(task.state),
      );
      await a.app("careless:write", {
        table: "tasks",
        id: one!._id,
        value: { assignees: [bot], state: "idea" },
      });
      await a.app("careless:write", { table: "tasks", id: other!._id });
      expect(await a.counts("hint")).toEqual(right);
      await a.reconcile();
      await a.expectRightCounts();
      expect((await a.counts("hint")).openTasks).toBe(right.openTasks - 1);
      // and a heartbeat that is not counted by its sender says what the counts are as of
      const counted = await a.counts("hint");
      w.later(HOUR);
      await w.send("hint", { openTasks: undefined, staleTasks: undefined });
      const { openTasks, countedAt } = counted;
      expect(await w.row("hint")).toMatchObject({ openTasks, countedAt });
    },
  },
  {
    title: "a db.replace, a renaming and a deletion of an agent by the app lose nothing of ours",
    tell: async (a) => {
      const { world: w } = a;
      await a.watch();
      await w.send("hint", { summary: "before" });
      const profile = { role: "editor", skills: [] };
      const id = await a.idOf("Hint");
      const card = async () => (await a.team()).find((agent) => agent._id === id)?.heartbeat;
      await a.app("agents:saveProfile", { id, handle: "Hint", ...profile });
      expect(await card()).toBeUndefined();
      expect(await w.row("hint")).toMatchObject({ summary: "before", linked: true, health: "ok" });
      expect(await w.send("hint", { summary: "after" })).toMatchObject({ linked: true });
      expect(await card()).toMatchObject({ summary: "after" });
      await a.app("agents:saveProfile", { id, handle: "Hint", ...profile });
      await a.reconcile();
      expect(await card()).toMatchObject({ summary: "after" });
      await a.app("careless:write", {
        table: "agents",
        id,
        value: { heartbeat: { health: "new", degraded: true } },
      });
      await a.reconcile();
      expect(await card()).toMatchObject({ summary: "after" });

      await a.app("careless:write", { table: "agents", id, value: { handle: "Somebody" } });
      expect(await w.send("hint", { summary: "nameless" })).toMatchObject({ linked: false });
      expect(await card()).toBeUndefined();
      // another row says the name from now on
      const [other] = (await a.team()).filter((agent) => agent.handle === "Bot-12");
      await a.app("careless:write", { table: "agents", id: other!._id, value: { handle: "HINT" } });
      await a.reconcile();
      expect(await w.row("hint")).toMatchObject({ linked: true, summary: "nameless" });

      // the row that hint had becomes another agent's, whose card hint leaves alone from then on
      await a.app("careless:write", {
        table: "agents",
        id: await a.idOf("Torv"),
        value: { handle: "Nobody" },
      });
      await a.app("careless:write", { table: "agents", id: other!._id, value: { handle: "Torv" } });
      await a.reconcile();
      await w.send("torv", { summary: "torv's" });
      expect(await w.send("hint")).toMatchObject({ linked: false });
      const cards = (await a.team()).filter((agent) => agent.heartbeat?.["summary"] !== undefined);
      expect(cards).toMatchObject([{ handle: "Torv", heartbeat: { summary: "torv's" } }]);
      await a.app("careless:write", { table: "agents", id: other!._id, value: { handle: "Hint" } });
      // what applying the schedule finds, it tells of as a change
      const again = {
        changes: [
          { change: "unchanged", linked: true },
          { change: "changed", fields: ["link"], linked: true },
        ],
      };
      await a.app("careless:write", {
        table: "agents",
        id: await a.idOf("Nobody"),
        value: { handle: "torv" },
      });
      const schedule = ["hint", "torv"].map((agent) => ({ agent, schedule: every(HOUR) }));
      for (const dryRun of [true, false]) expect(await w.apply(schedule, { dryRun })).toMatchObject(again);
      expect(await w.row("torv")).toMatchObject({ linked: true });

      await a.app("agents:remove", { id: other!._id });
      await a.reconcile();
      expect(await w.row("hint")).toMatchObject({ linked: false });
      await w.pass(HOUR);
      expect(await w.send("hint")).toMatchObject({ outcome: "recorded", linked: false });
      await w.pass(3 * HOUR);
      expect(await w.row("hint")).toMatchObject({ linked: false, health: "degraded", degraded: true });
      expect((await w.history("hint")).heartbeats).toHaveLength(5);
      expect(await w.row("ghost")).toMatchObject({ linked: false, reason: "never reported", degraded: true });
      expect(await a.team()).toHaveLength(19);
    },
  },
];

/** The app of this folder for convex-test. */
async function appIn(place: string): Promise<App> {
  const schema = (await import(join(place, "convex", "schema.ts"))) as { default: App["schema"] };
  return { schema: schema.default, modules: modulesOf(place) };
}

const folder = copyApp();
const convex = join(folder, "convex");
beforeAll(() => adopt(folder, true));

describe("on convex-test", () => {
  let app: App;
  beforeAll(async () => void (app = await appIn(folder)));

  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

  /** Tell a story, and wait for what it has started. */
  async function on(
    given: App,
    tell: (a: Adopted, engine: ReturnType<typeof memoryEngine>) => Promise<void>,
  ) {
    const engine = memoryEngine(given);
    const adopted = new Adopted(engine);
    await adopted.begin();
    await tell(adopted, engine);
    await engine.t.finishInProgressScheduledFunctions();
  }

  test.each(stories)("$title", async ({ tell }) => await on(app, tell));

  test("a mirror that is far off is put right in several steps, and a step of an older reconcile does nothing", () =>
    on(app, async (a, { t }) => {
      await a.watch();
      await a.reconcile();
      const insert = (count: number, ...assignees: Id<"agents">[]) =>
        t.run(async (ctx) => {
          const task = { title: "t", state: "doing", assignees, lastActivityAt: 0 };
          for (let nth = 0; nth < count; nth++) await ctx.db.insert("tasks", task as never);
        });
      const crowd = await t.run((ctx) => {
        const one = { kind: "bot", role: "editor", skills: [], joinedAt: 0 };
        const insertOne = (nth: number) =>
          ctx.db.insert("agents", { ...one, handle: `crowd-${nth}` } as never);
        return Promise.all(Array.from({ length: 82 }, (_, nth) => insertOne(nth)));
      });
      // more documents to write for one page than a step does, and then more tasks gone than a step looks up
      await insert(70, ...crowd);
      await insert(1_000, crowd[0]!);
      await a.reconcile();
      await t.run(async (ctx) => {
        for (const { _id } of await ctx.db.query("tasks").collect()) await ctx.db.delete("tasks", _id);
      });
      await a.reconcile();
      const { countedAt } = await a.counts("hint");
      await insert(1, (await a.idOf("Hint")) as Id<"agents">);
      const step = { begunAt: START_AT - 1, phase: "tasks", cursor: null, unlinked: false, after: -1 };
      await a.app("heartbeat/maintenance:reconcile", { step });
      expect(await a.counts("hint")).toMatchObject({ openTasks: 0, countedAt });
    }));

  test("a heartbeat that is counted from the mirror costs what one counted by an index does", () =>
    on(app, async (a, { t }) => {
      await a.watch();
      await a.reconcile();
      const { openTasks } = await a.counts("hint");
      const uncounted = a.world.heartbeat("hint", { openTasks: undefined, staleTasks: undefined });
      const { documentsRead, documentsWritten } = await t.mutation(async (ctx) => {
        await ctx.runMutation(makeFunctionReference<"mutation">("mutations/recordHeartbeat"), {
          token: TOKENS.sender,
          heartbeat: uncounted,
        });
        return await ctx.meta.getTransactionMetrics();
      });
      expect(openTasks).toBeGreaterThan(3);
      expect(documentsRead.used - openTasks).toBeLessThanOrEqual(12);
      expect(documentsWritten.used).toBeLessThanOrEqual(5);
    }));

  test("a fleet.ts that throws keeps neither the app from writing nor a heartbeat from being recorded", async () => {
    const broken = copyApp();
    adopt(broken, true);
    const fleet = join(broken, "convex", "fleet.ts");
    const complaining = (thing: string) => `{\n  if (${thing}.startsWith("?")) throw new Error("which?");`;
    const text = readFileSync(fleet, "utf8")
      .replace(": string | null {", `: string | null ${complaining("agent.handle")}`)
      .replace(": TaskFacts {", `: TaskFacts ${complaining("task.title")}`);
    writeFileSync(fleet, text);
    const complaint = vi.spyOn(console, "error").mockImplementation(() => undefined);
    await on(await appIn(broken), async (a) => {
      const assignees = [await a.idOf("Hint")];
      await a.watch();
      await a.reconcile();
      const id = (await a.app("tasks:create", { title: "?", assignees })) as string;
      expect(complaint.mock.lastCall).toEqual([expect.stringMatching(`the task ${id} .*which\\?`)]);
      const torv = await a.idOf("Torv");
      await a.app("careless:write", { table: "agents", id: torv, value: { handle: "?" } });
      expect(await a.world.send("torv")).toMatchObject({ outcome: "recorded", linked: false });
      expect(complaint.mock.lastCall).toEqual([expect.stringMatching(`the agents row ${torv}.*which\\?`)]);
      await a.app("careless:write", { table: "tasks", id, value: { title: "!" } });
      await a.reconcile();
      await a.expectRightCounts();
    });
    complaint.mockRestore();
  });
});

describe("on the local backend", () => {
  const functions = join(folder, "functions.mjs");
  beforeAll(() => bundle(convex, functions));

  test.each(toldOnProcess(stories))("$title", ({ tell }) =>
    onProcess(functions, async (engine) => {
      const adopted = new Adopted(engine);
      await adopted.begin();
      await tell(adopted);
    }),
  );
});

test("docs/adopt.md shows the whole fleet.ts that is tested here, and a mutation as it is adopted", () => {
  const [whole, mutation] = codeOf("adopt.md");
  expect(whole).toBe(readFileSync(join(convex, "fleet.ts"), "utf8"));
  const tasks = readFileSync(join(convex, "tasks.ts"), "utf8");
  for (const part of mutation!.split("\n\n")) expect(tasks).toContain(part);
});

test("its own tests pass", () => {
  const theirs = copyApp();
  adopt(theirs);
  const place = { cwd: theirs, encoding: "utf8", stdio: "pipe" } as const;
  expect(execFileSync(join("node_modules", ".bin", "vitest"), ["run"], place)).toContain("4 passed");
});
