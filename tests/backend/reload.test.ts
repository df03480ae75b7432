/** `--watch`: what is saved is taken up, what cannot be used is told, and nobody notices more than that. */
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ConvexClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bundleFolder } from "../../backend/bundler.ts";
import { eventually, makeApp, startBackend, temporaryFolder, type Backend } from "./server.ts";

const HEAD = `
  import { actionGeneric as action, internalMutationGeneric as internalMutation, makeFunctionReference,
    mutationGeneric as mutation, queryGeneric as query } from "convex/server";`;
const add = makeFunctionReference<"mutation", { text: string }, string>("notes:add");
const texts = makeFunctionReference<"query", Record<string, never>, string[]>("notes:texts");
const count = makeFunctionReference<"query", Record<string, never>, number>("notes:count");

const notes = (shown: string, more = ""): string => `${HEAD}
  export const add = mutation((ctx, args) => ctx.db.insert("notes", args));
  export const addLater = internalMutation((ctx, args) => ctx.db.insert("notes", args));
  export const texts = query(async (ctx) => (await ctx.db.query("notes").collect()).map((note) => ${shown}));
  export const slowly = action(async (ctx, { text, ms }) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    await ctx.runMutation(makeFunctionReference("notes:addLater"), { text });
    return "of before";
  });
  ${more}`;
const schema = (fields: string, indexes = ""): string =>
  `import { defineSchema, defineTable } from "convex/server"; import { v } from "convex/values";
   export default defineSchema({ notes: defineTable(${fields})${indexes} });`;

const PLAIN = schema("{ text: v.string() }");
const COUNT = `export const count = query(async (ctx) => (await ctx.db.query("notes").collect()).length);`;

let app: string;
let backend: Backend;
let client: ConvexClient;
beforeAll(async () => {
  app = makeApp({ "notes.ts": notes("note.text"), "schema.ts": PLAIN });
  backend = await startBackend(undefined, app, 0, ["--watch"]);
  client = new ConvexClient(backend.url);
});
afterAll(async () => {
  await client.close();
  expect(await backend.end()).toBe(0);
});

function save(name: string, text: string): void {
  writeFileSync(join(app, name), text);
}

/** Waits until so many of the backend's own lines contain the words. @returns the last of them. */
async function told(words: string, times = 1): Promise<string> {
  const lines = await eventually(
    () => Promise.resolve(backend.log().split("\n")),
    (all) => all.filter((line) => line.includes(words)).length >= times,
  );
  const found = lines.filter((line) => line.includes(words));
  expect(found.length).toBeGreaterThanOrEqual(times);
  return found.at(-1) as string;
}

/** Saves, and waits until it is taken up. */
async function push(name: string, text: string): Promise<void> {
  const before = backend.log().split("are taken up anew").length - 1;
  save(name, text);
  await told("are taken up anew", before + 1);
}

/** What there is, asked afresh. */
async function all(): Promise<string[]> {
  return (await backend.call("query", "notes:texts")).value as string[];
}

async function until<Value>(ask: () => Value, expected: (value: Value) => boolean): Promise<Value> {
  return eventually(() => Promise.resolve(ask()), expected);
}

describe("a change that is saved", () => {
  test("is what subscribers see, on the connection that they have", async () => {
    const seen: string[][] = [];
    client.onUpdate(texts, {}, (found) => void seen.push(found));
    await client.mutation(add, { text: "one" });
    expect(seen.at(-1)).toEqual(["one"]);
    const states: boolean[] = [];
    client.subscribeToConnectionState(({ isWebSocketConnected }) => void states.push(isWebSocketConnected));
    await push("notes.ts", notes("note.text.toUpperCase()"));
    await until(
      () => seen.at(-1),
      (found) => found?.[0] === "ONE",
    );
    expect(seen.at(-1)).toEqual(["ONE"]);
    expect(states).not.toContain(false);
  });

  test("brings functions that were asked for before, and takes others away", async () => {
    const seen: (number | Error)[] = [];
    client.onUpdate(
      count,
      {},
      (found) => void seen.push(found),
      (error) => void seen.push(error),
    );
    await until(
      () => seen.at(-1),
      (found) => found instanceof Error,
    );
    await push("notes.ts", notes("note.text", COUNT));
    expect(
      await until(
        () => seen.at(-1),
        (found) => found === 1,
      ),
    ).toBe(1);
    await push("notes.ts", notes("note.text"));
    const last = await until(
      () => seen.at(-1),
      (found) => found instanceof Error,
    );
    expect(String(last)).toContain("Could not find public function for 'notes:count'");
  });

  test("fills a new index, and drops the one that is gone", async () => {
    const byText = `export const byText = query(async (ctx) =>
      (await ctx.db.query("notes").withIndex("by_text").collect()).map((note) => note.text));`;
    for (const text of ["b", "a"]) await client.mutation(add, { text });
    // two files, saved together, are taken up together
    save("schema.ts", schema("{ text: v.string() }", '.index("by_text", ["text"])'));
    await push("notes.ts", notes("note.text", byText));
    expect((await backend.call("query", "notes:byText")).value).toEqual(["a", "b", "one"]);
    await push("schema.ts", PLAIN);
    expect((await backend.call("query", "notes:byText")).errorMessage).toContain("by_text not found");
  });

  test("does not disturb who writes meanwhile: every mutation happens once", async () => {
    const before = (await all()).length;
    let running = true;
    let written = 0;
    const write = async (writer: number): Promise<void> => {
      for (let step = 0; running; step++) {
        const answer = await backend.call("mutation", "notes:add", { text: `${writer}-${step}` });
        expect(answer.status).toBe("success");
        written++;
      }
    };
    const writers = [0, 1, 2, 3].map(write);
    for (let change = 0; change < 4; change++) await push("notes.ts", notes(`note.text + "${change}"`));
    running = false;
    await Promise.all(writers);
    const found = await all();
    expect(written).toBeGreaterThan(0);
    expect([found.length, new Set(found).size]).toEqual([before + written, before + written]);
  });

  test("lets a running action end on the functions that it began with, and call on", async () => {
    const action = backend.call("action", "notes:slowly", { text: "late", ms: 700 });
    await push("notes.ts", notes("note.text").replace("of before", "of now"));
    expect((await action).value).toBe("of before");
    expect(await all()).toContain("late");
    expect((await backend.call("action", "notes:slowly", { text: "later", ms: 0 })).value).toBe("of now");
  });
});

describe("a change that cannot be used is told, and the functions of before serve on:", () => {
  test.each([
    ["it does not bundle", "notes.ts", "export const add = (", "do not build"],
    [
      "it throws when it is loaded",
      "notes.ts",
      `export {};\nthrow new Error("broken at import");`,
      "broken at import",
    ],
    [
      "its crons call what is not there",
      "crons.ts",
      `import { cronJobs, makeFunctionReference } from "convex/server";
      const crons = cronJobs();
      crons.interval("lost", { hours: 1 }, makeFunctionReference("no:where"));
      export default crons;`,
      "lost",
    ],
    [
      "documents do not fit",
      "schema.ts",
      schema("{ text: v.string(), stars: v.number() }"),
      "missing the required field `stars`",
    ],
  ])("%s", async (_name, file, text, words) => {
    save(file, text);
    const line = await told(words);
    expect(line).toMatch(/^heartbeat-backend: .* The functions of before serve on\.$/);
    if (file === "schema.ts") expect(line).toMatch(/Document with ID "[0-9a-z]{32}" .* in table "notes"/);
    expect(await client.mutation(add, { text: `in spite of ${words}` })).toMatch(/^[0-9a-z]{32}$/);
    expect((await all()).at(-1)).toBe(`in spite of ${words}`);
    save(
      file,
      file === "schema.ts" ? PLAIN : file === "notes.ts" ? notes("note.text") : "export default null;",
    );
  });

  test("and what can be used again is taken up again", async () => {
    await push("notes.ts", notes("note.text + '!'"));
    expect((await all()).at(-1)).toMatch(/!$/);
    await push("notes.ts", notes("note.text"));
  });

  test("it never comes to its end when it is loaded", async () => {
    save("notes.ts", "export {};\nfor (;;) Math.random();");
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(await client.mutation(add, { text: "meanwhile" })).toMatch(/^[0-9a-z]{32}$/);
    save("notes.ts", notes("note.text"));
    expect(await all()).toContain("meanwhile");
  });
});

test("a bundle file is watched too, also when another one takes its name", async () => {
  const folder = temporaryFolder();
  const file = join(folder, "functions.mjs");
  const bundled = async (shown: string): Promise<string> =>
    bundleFolder(makeApp({ "notes.ts": notes(shown), "schema.ts": PLAIN }));
  writeFileSync(file, await bundled("note.text"));
  const other = await startBackend(undefined, file, 0, ["--watch"]);
  await other.call("mutation", "notes:add", { text: "a" });
  writeFileSync(`${file}.new`, await bundled("note.text + note.text"));
  renameSync(`${file}.new`, file);
  const answer = await eventually(
    () => other.call("query", "notes:texts"),
    ({ value }) => (value as string[])[0] === "aa",
  );
  expect(answer.value).toEqual(["aa"]);
  expect(await other.end()).toBe(0);
});
