/** The file over the years: formats, growth, the write-ahead log. */
import { existsSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { Store, type Row, type Table } from "../../backend/store.ts";
import { indexKey } from "../../backend/transaction.ts";
import { bringUp, type Upgrade } from "../../backend/upgrade.ts";
import type { JsonObject } from "../../backend/values.ts";
import { DataFile, ledgerBundle } from "./ledger.ts";
import { argumentsFor, eventually, runToEnd, startBackend, temporaryFolder } from "./server.ts";

const DAY_MS = 24 * 3600 * 1000;

describe("a file of an older format", () => {
  const addColour: Upgrade = {
    title: "tables have a colour",
    run: (db) => db.exec("ALTER TABLE tables ADD COLUMN colour TEXT DEFAULT 'green'"),
  };
  const fail: Upgrade = {
    title: "this step fails",
    run: (db) => db.exec("DROP TABLE crons; SELECT * FROM nowhere"),
  };

  function oldFile(): string {
    const file = join(temporaryFolder(), "data.sqlite3");
    const store = new Store(file);
    store.createTable("notes");
    store.close();
    return file;
  }

  const columns = (db: DatabaseSync): string[] =>
    db
      .prepare("SELECT name FROM pragma_table_info('tables')")
      .all()
      .map(({ name }) => name as string);

  test("is upgraded step by step, with a whole copy of before beside it", () => {
    const file = oldFile();
    const addShade: Upgrade = {
      title: "and a shade",
      run: (db) => db.exec("ALTER TABLE tables ADD COLUMN shade TEXT; UPDATE tables SET shade = colour"),
    };
    const store = new Store(file, [addColour, addShade]);
    expect(store.meta("format")).toBe(3);
    expect(store.rows("SELECT name, shade FROM tables")).toEqual([["notes", "green"]]);
    store.close();
    const copy = new DatabaseSync(`${file}.format-1`);
    expect(copy.prepare("SELECT value FROM meta WHERE name = 'format'").get()).toEqual({ value: 1 });
    expect(columns(copy)).toEqual(["number", "name", "validator"]);
    copy.close();
    // and is not upgraded again
    new Store(file, [addColour, addShade]).close();
  });

  test("whose upgrade fails in the middle is as it was", () => {
    const file = oldFile();
    expect(() => new Store(file, [addColour, fail])).toThrow("no such table: nowhere");
    const store = new Store(file);
    expect(store.meta("format")).toBe(1);
    expect(columns(store.db)).toEqual(["number", "name", "validator"]);
    expect(store.rows("SELECT count(*) FROM crons")).toEqual([[0]]);
    store.close();
  });

  test("that cannot be copied is not touched", () => {
    const file = oldFile();
    const db = new DatabaseSync(file);
    // a folder that does not exist stands for every way in which a copy fails
    const nowhere = join(dirname(file), "nowhere", "data.sqlite3");
    expect(() => bringUp(db, nowhere, [addColour], () => undefined)).toThrow(
      /^the data cannot be copied to .*nowhere.* before its upgrade: /,
    );
    expect(columns(db)).toEqual(["number", "name", "validator"]);
    db.close();
  });

  test("that is newer than the program is refused by it, and stays as it is", async () => {
    const folder = temporaryFolder();
    const backend = await startBackend(folder, await ledgerBundle());
    await backend.end();
    const db = new DatabaseSync(join(folder, "db", "data.sqlite3"));
    db.exec("UPDATE meta SET value = 2 WHERE name = 'format'; DROP TABLE sessions");
    db.close();
    const refused = await runToEnd(argumentsFor(folder, await ledgerBundle()));
    expect([refused.code, refused.stdout]).toEqual([2, ""]);
    expect(refused.stderr).toBe(
      "heartbeat-backend: the data was written in format 2; this version reads formats up to 1. Use the version that wrote it.\n",
    );
    const after = new DatabaseSync(join(folder, "db", "data.sqlite3"), { readOnly: true });
    expect(after.prepare("SELECT 1 FROM sqlite_master WHERE name = 'sessions'").get()).toBeUndefined();
    after.close();
  });
});

describe("what is kept for a while only", () => {
  /** Makes every scheduled function one that finished at `at`. */
  function ageJobs(store: Store, at: number): void {
    const table = store.table("_scheduled_functions") as Table;
    for (const [seq, size, doc] of store.rows(`SELECT seq, size, doc FROM d${table.number}`) as Row[]) {
      const before = JSON.parse(doc) as JsonObject;
      const after = { ...before, completedTime: at };
      for (const index of table.indexes) {
        index.remove.run(indexKey(index, before), seq);
        index.insert.run(indexKey(index, after), seq);
      }
      table.update.run(seq, size, JSON.stringify(after));
    }
  }

  test("old answers and finished scheduled functions are gone soon after a start", async () => {
    const folder = temporaryFolder();
    const bundle = await ledgerBundle();
    const first = await startBackend(folder, bundle);
    await first.call("mutation", "moves:transfer", {
      key: "k",
      from: "a",
      to: "b",
      amount: 1,
      settleInMs: 0,
    });
    await eventually(
      async () => (await first.call("query", "faults:count", { key: "k" })).value,
      (count) => count === 1,
    );
    await first.end();
    const file = join(folder, "db", "data.sqlite3");
    const store = new Store(file);
    const now = Date.now();
    ageJobs(store, now - 8 * DAY_MS);
    const session = "INSERT INTO sessions VALUES (?, ?, '1', '1', ?)";
    store.db.exec("BEGIN");
    for (let request = 0; request < 5000; request++) store.run(session, "old", request, now - 15 * DAY_MS);
    store.db.exec("COMMIT");
    store.run(session, "young", 1, now - 13 * DAY_MS);
    store.close();
    const second = await startBackend(folder, bundle);
    const left = async (): Promise<Record<string, unknown>[]> => {
      const reader = new DatabaseSync(file, { readOnly: true });
      const rows = reader.prepare("SELECT session FROM sessions UNION ALL SELECT doc FROM d1").all();
      reader.close();
      return rows;
    };
    expect(await eventually(left, (rows) => rows.length === 1)).toEqual([{ session: "young" }]);
    expect(await second.end()).toBe(0);
  });
});

test("the write-ahead log stays short under constant writing, and is cut back after a huge commit", () => {
  const file = join(temporaryFolder(), "data.sqlite3");
  const store = new Store(file);
  const table = store.createTable("notes");
  let longest = 0;
  let sequence = 0;
  const commit = (documents: number): void => {
    store.db.exec("BEGIN IMMEDIATE");
    for (let count = 0; count < documents; count++) table.insert.run(++sequence, 1, "x".repeat(100_000));
    store.db.exec("COMMIT");
    longest = Math.max(longest, statSync(`${file}-wal`).size);
  };
  for (let count = 0; count < 50; count++) commit(25);
  expect(longest).toBeLessThan(80 * 1024 * 1024);
  commit(1200);
  expect(longest).toBeGreaterThan(110 * 1024 * 1024);
  for (let count = 0; count < 3; count++) commit(1);
  expect(statSync(`${file}-wal`).size).toBeLessThanOrEqual(96 * 1024 * 1024);
  store.close();
  expect(existsSync(`${file}-wal`)).toBe(false);
});

test("an app whose crons are refused has not changed the schema either", async () => {
  const folder = temporaryFolder();
  const bundle = join(folder, "app.mjs");
  const crons = `{ isCrons: true, export: () => '{"bad":{"name":"nowhere:f","args":[{}],"schedule":{"type":"interval","hours":1}}}' }`;
  const schema = `{ export: () => '{"tables":[{"tableName":"fresh","indexes":[],"documentType":null}],"schemaValidation":true}' }`;
  writeFileSync(
    bundle,
    `export const modules = { crons: { default: ${crons} } }; export const schema = ${schema};`,
  );
  const refused = await runToEnd(argumentsFor(folder, bundle));
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain('the cron "bad" calls nowhere:f, which does not exist');
  const data = new DataFile(folder);
  expect(data.rows("SELECT name FROM tables")).toEqual([]);
  data.close();
});
