/** A team leaves: step by step nothing of ours comes back, and in the end its documents are what they were and our tables are empty. */
import fc from "fast-check";
import { join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { heartbeatTables } from "../../convex/heartbeat/tables";
import { adopt, copyApp, modulesOf } from "./adopted";
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
import { every, HOUR, World } from "./world";

type Step = "stop" | "links" | "cards" | "empty" | "end";
type Left = { done: boolean; changed: number; continueCursor?: string };

const STEPS: Step[] = ["stop", "links", "cards", "empty", "end"];
const OURS = Object.keys(heartbeatTables);
const THEIRS = ["agents", "tasks", "digests"];
const WATCHED = ["hint", "torv", "bot-7", "ghost"];
const UNAUTHORIZED = { code: "unauthorized" };

/** The app in a deployment in which every table of ours has something in it. */
class Leaving {
  readonly world: World;

  constructor(private readonly engine: Engine) {
    this.world = new World(engine);
  }

  async begin(): Promise<void> {
    await this.engine.admin("seed", { at: START_AT });
  }

  /** Agents watched, heard and lost, tasks mirrored. */
  async live(): Promise<void> {
    const { world: w } = this;
    await w.prepare();
    await this.apply();
    await w.send("hint", { summary: "fine" });
    await w.send("ghost");
    await w.pass(3 * HOUR);
    await w.send("torv");
    await this.reconciled();
  }

  async apply(rest: Args = {}) {
    return await this.world.apply(
      WATCHED.map((agent) => ({ agent, schedule: every(HOUR) })),
      rest,
    );
  }

  async reconciled(): Promise<void> {
    await this.world.until(async () =>
      (await this.all("heartbeatReconcile")).some((row) => row["wholeAt"] !== undefined),
    );
  }

  async all(table: string): Promise<Args[]> {
    return (await this.engine.admin("careless:all", { table })) as Args[];
  }

  async tables(names: string[]): Promise<Record<string, Args[]>> {
    const found: Record<string, Args[]> = {};
    for (const name of names) found[name] = await this.all(name);
    return found;
  }

  async app(path: string, args: Args): Promise<unknown> {
    return await this.engine.admin(path, args);
  }

  /** One call. */
  async call(step: Step, rest: Args = {}): Promise<Left> {
    return await this.world.ask("mutations/leave", { step, ...rest });
  }

  /** A step to its end, a few rows at a time; answers how many rows it changed. */
  async take(step: Step, limit = 7): Promise<number> {
    let changed = 0;
    let cursor: string | undefined;
    for (;;) {
      const left = await this.call(step, { limit, ...(cursor === undefined ? {} : { cursor }) });
      expect(left.changed).toBeLessThanOrEqual(limit + 2);
      changed += left.changed;
      if (left.done) return changed;
      cursor = left.continueCursor;
    }
  }

  /** Whatever starts by itself, and what the app's own mutations call; `rests`: nothing of a task is mirrored. */
  async goOn(rests = true): Promise<void> {
    this.world.later(3 * HOUR);
    for (const name of ["sweep", "reconcile", "prune"]) await this.app(`heartbeat/maintenance:${name}`, {});
    const [hint] = await this.all("agents");
    const id = await this.app("tasks:create", { title: "new", assignees: [hint!["_id"]] });
    const mirrored = (await this.all("heartbeatTasks")).some((row) => row["taskId"] === id);
    if (rests) expect(mirrored).toBe(false);
    await this.app("tasks:remove", { id });
  }
}

const stories: { title: string; tell: (l: Leaving) => Promise<void> }[] = [
  {
    title:
      "step by step: what is stopped starts nothing, what is unlinked writes no card, and in the end nothing of ours is there",
    tell: async (l) => {
      const { world: w } = l;
      const before = await l.tables(THEIRS);
      const nothing = Object.fromEntries(OURS.map((name) => [name, []]));
      // where nobody has a token yet, nothing begins
      await l.goOn();
      expect(await l.tables([...OURS, ...THEIRS])).toEqual({ ...nothing, ...before });
      await l.live();
      for (const [name, rows] of Object.entries(await l.tables(OURS))) expect(rows, name).not.toEqual([]);
      // a card that a careless function of the app's carried elsewhere
      const [hint] = await l.all("agents");
      const people = (await l.all("agents")).filter((row) => row["kind"] === "person");
      await l.app("careless:write", {
        table: "agents",
        id: people[0]!["_id"],
        value: { heartbeat: hint!["heartbeat"] },
      });
      expect(await l.tables(THEIRS)).not.toEqual(before);

      const at = w.now;
      expect(await l.take("stop", 2)).toBeGreaterThan(2);
      expect(await l.take("stop")).toBe(0);
      expect(await w.monitor({ as: "admin" })).toMatchObject({ stoppedAt: at });
      for (const as of ["reader", "sender", "hintOnly"] as const) {
        expect(await w.refused("queries/getToken", {}, { as })).toMatchObject(UNAUTHORIZED);
      }
      const stopped = await l.tables([...OURS, ...THEIRS]);
      await l.goOn();
      expect(await l.tables([...OURS, ...THEIRS])).toEqual(stopped);

      expect(await l.take("links", 2)).toBe(3);
      expect(await l.take("links")).toBe(0);
      expect(await l.take("cards")).toBe(4);
      expect(await l.take("cards")).toBe(0);
      expect(await l.tables(THEIRS)).toEqual(before);
      // one that was on its way
      expect(await w.send("hint", {}, { as: "admin" })).toMatchObject({ outcome: "recorded", linked: false });
      await w.control("hint", "paused");
      const { records } = await w.ask<{ records: Args[] }>("queries/exportRecords", { kind: "agents" });
      await w.ask("mutations/importRecords", { kind: "agents", records });
      await l.goOn();
      expect(await l.tables(THEIRS)).toEqual(before);

      expect(await l.take("empty")).toBeGreaterThan(100);
      expect(await l.take("empty")).toBe(0);
      const last = await l.tables(OURS);
      expect(Object.values(last).flat()).toHaveLength(2);
      await l.goOn();
      expect(await l.tables([...OURS, ...THEIRS])).toEqual({ ...last, ...before });
      expect(await l.take("end")).toBe(2);
      expect(await l.tables(OURS)).toEqual(nothing);
      expect(await w.refused("mutations/leave", { step: "end" })).toMatchObject(UNAUTHORIZED);
      await l.goOn();
      expect(await l.tables([...OURS, ...THEIRS])).toEqual({ ...nothing, ...before });
      // and whoever comes back begins anew
      await w.prepare();
      await w.sweep();
      expect(await w.monitor()).toEqual({
        contractVersion: expect.any(Number) as number,
        sweepEveryMs: 60_000,
        sweepRanAt: w.now,
      });
    },
  },
  {
    title: "a heartbeat that is on its way while the tables are emptied fills none of them again",
    tell: async (l) => {
      await l.live();
      for (const step of ["stop", "links", "cards"] as const) await l.take(step);
      const sent: Args[] = [];
      let left = await l.call("empty", { limit: 20 });
      // from the first call on nobody is watched any more
      for (; !left.done; left = await l.call("empty", { limit: 20 })) {
        sent.push(await l.world.refused("mutations/recordHeartbeat", l.world.heartbeat("hint")));
      }
      expect(new Set(sent.map(({ code }) => code))).toEqual(new Set(["unknown_agent"]));
      await l.take("end");
      expect(Object.values(await l.tables(OURS)).flat()).toEqual([]);
    },
  },
  {
    title: "where the tables keep what is in them the token is revoked in the end, and says nothing any more",
    tell: async (l) => {
      await l.live();
      for (const step of ["stop", "links", "cards"] as const) await l.take(step);
      const kept = await l.tables(OURS.filter((name) => name !== "heartbeatTokens"));
      expect(await l.take("end")).toBe(1);
      expect(await l.tables(Object.keys(kept))).toEqual(kept);
      expect((await l.all("heartbeatTokens")).every((row) => row["revokedAt"] !== undefined)).toBe(true);
      expect(await l.world.refused("queries/getToken", {}, { as: "admin" })).toMatchObject(UNAUTHORIZED);
    },
  },
  {
    title: "applying the schedule takes it all back: the sweep goes on, cards and counts are there again",
    tell: async (l) => {
      const { world: w } = l;
      await l.live();
      const [shown, at] = [await l.tables(["agents"]), w.now];
      for (const step of ["stop", "links", "cards"] as const) await l.take(step);
      expect(await l.tables(["agents"])).not.toEqual(shown);
      expect(await l.apply({ dryRun: true })).toMatchObject({ outcome: "planned", stoppedAt: at });
      expect(await w.monitor({ as: "admin" })).toMatchObject({ stoppedAt: at });
      w.later(HOUR);
      expect(await l.apply()).toMatchObject({ outcome: "applied", stoppedAt: at });
      expect(await l.apply()).not.toHaveProperty("stoppedAt");
      await l.reconciled();
      expect(await l.tables(["agents"])).toEqual(shown);
      await w.sweep();
      const monitor = await w.monitor({ as: "admin" });
      expect(monitor).toMatchObject({ sweepRanAt: w.now, holdUntil: expect.any(Number) as number });
      expect(monitor).not.toHaveProperty("stoppedAt");
    },
  },
];

const folder = copyApp();
const convex = join(folder, "convex");
beforeAll(() => adopt(folder, true));

describe("on convex-test", () => {
  let app: App;
  beforeAll(async () => {
    const schema = (await import(join(convex, "schema.ts"))) as { default: App["schema"] };
    app = { schema: schema.default, modules: modulesOf(folder) };
  });

  async function tell(story: (l: Leaving) => Promise<void>): Promise<void> {
    vi.useFakeTimers({ toFake: ["Date"], now: START_AT });
    try {
      const engine = memoryEngine(app);
      const leaving = new Leaving(engine);
      await leaving.begin();
      await story(leaving);
      await engine.t.finishInProgressScheduledFunctions();
    } finally {
      vi.useRealTimers();
    }
  }

  test.each(stories)("$title", async (story) => tell(story.tell));

  test("wherever it is cut off, and however often it is begun again: in the end all is as it was", async () => {
    const calls = fc.array(fc.record({ step: fc.constantFrom(...STEPS.slice(0, 3)), calls: fc.nat(3) }), {
      maxLength: 5,
    });
    const numRuns = process.env["HEARTBEAT_TEST_LONG"] ? 100 : 4;
    await fc.assert(
      fc.asyncProperty(calls, fc.nat(12), fc.boolean(), async (cut, emptied, back) => {
        await tell(async (l) => {
          const before = await l.tables(THEIRS);
          await l.live();
          for (const { step, calls } of cut) {
            let cursor: string | undefined;
            for (let nth = 0; nth < calls; nth++) {
              const left = await l.call(step, { limit: 3, ...(cursor === undefined ? {} : { cursor }) });
              cursor = left.continueCursor;
              if (left.done) break;
            }
            await l.goOn(false);
          }
          if (back) await l.apply();
          for (const step of ["stop", "links", "cards"] as const) await l.take(step);
          for (let nth = 0; nth < emptied; nth++) await l.call("empty", { limit: 3 });
          await l.goOn();
          for (const step of STEPS) await l.take(step);
          expect(await l.tables(THEIRS)).toEqual(before);
          expect(Object.values(await l.tables(OURS)).flat()).toEqual([]);
        });
      }),
      { numRuns },
    );
  });
});

describe("on the local backend", () => {
  const functions = join(folder, "functions.mjs");
  beforeAll(() => bundle(convex, functions));

  test.each(toldOnProcess(stories))("$title", ({ tell }) =>
    onProcess(functions, async (engine) => {
      const leaving = new Leaving(engine);
      await leaving.begin();
      await tell(leaving);
    }),
  );
});
