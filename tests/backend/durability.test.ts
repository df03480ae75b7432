/** What must hold at a start and at every answer: the lock, the schema, the commit. Kills are in kill.test.ts. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Store } from "../../backend/store.ts";
import { APP, appIn, argumentsFor, makeBundle, runToEnd, startBackend, temporaryFolder } from "./server.ts";

type Note = { text: string };

/** An app of one file of functions and a schema. */
function makeNotes(schema: string): Promise<string> {
  const notes = `import { mutationGeneric as mutation, queryGeneric as query } from "convex/server";
     export const add = mutation((ctx, args) => ctx.db.insert("notes", args));
     export const byText = query((ctx) => ctx.db.query("notes").withIndex("by_text").collect());`;
  return makeBundle({ "schema.ts": schema, "notes.ts": notes });
}

const schemaOf = (fields: string, index = ""): string =>
  `import { defineSchema, defineTable } from "convex/server"; import { v } from "convex/values";
   export default defineSchema({ notes: defineTable(${fields})${index} });`;

test("an answer leaves only after its commit: not while somebody else holds the database", async () => {
  const folder = temporaryFolder();
  const backend = await startBackend(folder);
  const other = new DatabaseSync(join(folder, "db", "data.sqlite3"), { timeout: 2000 });
  other.exec("BEGIN IMMEDIATE");
  let answered = false;
  const calls = Promise.all(
    [0, 1, 2].map(async (number) => {
      const answer = await backend.call("mutation", "notes:add", { text: String(number) });
      answered = true;
      return answer.status;
    }),
  );
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(answered).toBe(false);
  other.exec("COMMIT");
  expect(await calls).toEqual(["success", "success", "success"]);
  other.close();
  await backend.end();
});

test("commits are synced to disk: write-ahead log, synchronous FULL", () => {
  const store = new Store(join(temporaryFolder(), "data.sqlite3"));
  expect(store.rows("PRAGMA journal_mode")).toEqual([["wal"]]);
  expect(store.rows("PRAGMA synchronous")).toEqual([[2]]);
  store.close();
});

describe("a start that cannot be", () => {
  test("on a folder that another process uses, says whose it is", async () => {
    const folder = temporaryFolder();
    const backend = await startBackend(folder);
    const second = await runToEnd(argumentsFor(folder));
    expect(second.code).toBe(2);
    expect(second.stderr).toMatch(
      new RegExp(`^heartbeat-backend: another backend \\(pid ${backend.process.pid}\\) uses .*\\n$`),
    );
    expect((await backend.call("query", "notes:list")).status).toBe("success");
    await backend.end();
  });

  test.each([
    ["without arguments", [], "--functions is missing"],
    ["with an unknown option", ["--color"], "Unknown option"],
    ["without functions", ["--functions", "/nowhere"], "there is no /nowhere"],
  ])("%s is one line and exit code 2", async (_name, extra, sentence) => {
    const [main = "", ...rest] = argumentsFor(temporaryFolder());
    const args = extra.length === 0 ? [main] : [main, ...rest, ...extra];
    const ended = await runToEnd(args);
    expect([ended.code, ended.stdout]).toEqual([2, ""]);
    expect(ended.stderr).toMatch(/^heartbeat-backend: [^\n]*\n$/);
    expect(ended.stderr).toContain(sentence);
  });

  test("on a port that is taken, or data of another format", async () => {
    const folder = temporaryFolder();
    const backend = await startBackend();
    const { port } = new URL(backend.url);
    const app = await appIn(folder);
    const taken = await runToEnd(argumentsFor(folder, app, Number(port)));
    expect([taken.code, taken.stderr]).toEqual([
      2,
      `heartbeat-backend: port ${port} on 127.0.0.1 is taken\n`,
    ]);
    await backend.end();
    const store = new Store(join(folder, "db", "data.sqlite3"));
    store.setMeta("format", 99);
    store.close();
    const newer = await runToEnd(argumentsFor(folder, app));
    expect(newer.code).toBe(2);
    expect(newer.stderr).toContain("the data was written in format 99");
  });
});

describe("a schema that changed", () => {
  test("gets its new index filled and its old one dropped", async () => {
    const folder = temporaryFolder();
    const before = await startBackend(folder, await makeNotes(schemaOf("{ text: v.string() }")));
    for (const text of ["b", "a"]) await before.call("mutation", "notes:add", { text });
    expect((await before.call("query", "notes:byText")).errorMessage).toContain(
      "Index notes.by_text not found.",
    );
    await before.end();
    const indexed = await makeNotes(schemaOf("{ text: v.string() }", '.index("by_text", ["text"])'));
    const after = await startBackend(folder, indexed);
    const notes = (await after.call("query", "notes:byText")).value as Note[];
    expect(notes.map(({ text }) => text)).toEqual(["a", "b"]);
    await after.end();
  });

  test("that a document does not fit refuses the start, names id and field, and changes nothing", async () => {
    const folder = temporaryFolder();
    const before = await startBackend(folder, await makeNotes(schemaOf("{ text: v.string() }")));
    const id = (await before.call("mutation", "notes:add", { text: "a" })).value as string;
    await before.end();
    const numbers = await makeNotes(schemaOf("{ text: v.number() }", '.index("by_text", ["text"])'));
    const refused = await runToEnd(argumentsFor(folder, numbers));
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(`Document with ID "${id}"`);
    expect(refused.stderr).toContain("Path: .text");
    const again = await startBackend(folder, await makeNotes(schemaOf("{ text: v.string() }")));
    expect((await again.call("mutation", "notes:add", { text: "b" })).status).toBe("success");
    await again.end();
  });
});

test("a ready bundle runs without its sources, under the hash of the folder that it was made of", async () => {
  const out = join(temporaryFolder(), "functions.mjs");
  const bundle = fileURLToPath(new URL("../../backend/bundle.ts", import.meta.url));
  const made = spawnSync(process.execPath, [bundle, APP, out], { encoding: "utf8" });
  expect([made.status, made.stderr]).toEqual([0, ""]);
  const [fromFolder, fromBundle] = await Promise.all([
    startBackend(undefined, APP),
    startBackend(undefined, out),
  ]);
  expect(made.stdout.trim()).toBe(fromFolder.functionsHash);
  expect(fromBundle.functionsHash).toBe(fromFolder.functionsHash);
  expect((await fromBundle.call("query", "values:echo", { value: 1 })).value).toBe(1);
  expect(readFileSync(out, "utf8")).not.toContain(APP);
  await Promise.all([fromFolder.end(), fromBundle.end()]);
});
