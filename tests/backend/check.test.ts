/** `--check`: what it finds, and that it only looks. */
import { createHash } from "node:crypto";
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { beforeAll, describe, expect, test } from "vitest";
import { checkFile, type Report } from "../../backend/check.ts";
import { checkData, ledgerBundle } from "./ledger.ts";
import { startBackend, temporaryFolder } from "./server.ts";

function hashOf(file: string): string {
  return createHash("sha256").update(readFileSync(file)).digest("hex");
}

let sound = "";
let bundle = "";
beforeAll(async () => {
  sound = temporaryFolder();
  bundle = await ledgerBundle();
  const backend = await startBackend(sound, bundle);
  for (let number = 0; number < 20; number++) {
    const move = { key: `k${number}`, from: "a", to: `b${number % 3}`, amount: number };
    await backend.call("mutation", "moves:transfer", number === 0 ? { ...move, settleInMs: 1e9 } : move);
  }
  await backend.end();
});

describe("on data that is whole", () => {
  test("says what is there, and exits 0", async () => {
    const { code, report, stderr } = await checkData(sound);
    expect([code, stderr, report.ok, report.problems]).toEqual([0, "", true, []]);
    expect(report.tables.entries).toMatchObject({
      documents: 40,
      indexes: { by_key: 40, by_account_amount: 40 },
    });
    expect(report).toMatchObject({ format: 1, scheduled: { pending: 1 }, crons: 1 });
  });

  test("refuses while a process has the folder, and after a kill reads the log without changing a byte", async () => {
    const folder = temporaryFolder();
    const backend = await startBackend(folder, bundle);
    await backend.call("mutation", "moves:transfer", { key: "k", from: "a", to: "b", amount: 1 });
    const refused = await checkData(folder);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(`another backend (pid ${backend.process.pid}) uses`);
    await backend.end("SIGKILL");
    const files = ["data.sqlite3", "data.sqlite3-wal"].map((name) => join(folder, "db", name));
    const before = files.map(hashOf);
    const { code, report } = await checkData(folder);
    expect([code, report.tables.entries?.documents]).toEqual([0, 2]);
    expect(files.map(hashOf)).toEqual(before);
  });

  test("says that a folder has no data, and makes none", async () => {
    const { code, stderr } = await checkData("/nowhere");
    expect([code, stderr]).toEqual([2, "heartbeat-backend: there is no data in /nowhere/db\n"]);
  });
});

describe("finds", () => {
  /** A copy of the data, damaged by SQL; `{entries}` and `{by_key}` stand for the names of SQLite's tables. */
  function damaged(sql: string): Report {
    const file = join(temporaryFolder(), "data.sqlite3");
    copyFileSync(join(sound, "db", "data.sqlite3"), file);
    const db = new DatabaseSync(file);
    const { number } = db.prepare("SELECT number FROM tables WHERE name = 'entries'").get() as {
      number: number;
    };
    const { id } = db.prepare("SELECT id FROM indexes WHERE tab = ? AND name = 'by_key'").get(number) as {
      id: number;
    };
    db.exec(sql.replaceAll("{entries}", `d${number}`).replaceAll("{by_key}", `x${id}`));
    db.close();
    return checkFile(file);
  }

  test.each([
    [
      "a document without its index entry",
      "DELETE FROM {by_key} WHERE seq = (SELECT max(seq) FROM {by_key})",
      "is not under its key in entries.by_key",
    ],
    [
      "an entry whose document is gone",
      "DELETE FROM {entries} WHERE seq = (SELECT max(seq) FROM {entries})",
      "has an entry for row",
    ],
    [
      "a document under a second key",
      "INSERT INTO {by_key} SELECT x'00', max(seq) FROM {entries}",
      "under a key that is not its own",
    ],
    [
      "a document that changed without its entry",
      `UPDATE {entries} SET doc = replace(doc, '"key":"k7"', '"key":"k8"')`,
      "is not under its key in entries.by_key",
    ],
    [
      "a wrong size",
      "UPDATE {entries} SET size = size + 1 WHERE seq = (SELECT max(seq) FROM {entries})",
      "bytes, not",
    ],
    [
      "a document cut off",
      "UPDATE {entries} SET doc = substr(doc, 1, 40) WHERE seq = (SELECT max(seq) FROM {entries})",
      "is no JSON",
    ],
    [
      "a document that the schema refuses",
      `UPDATE {entries} SET doc = replace(doc, '"amount":7', '"amount":"7"')`,
      "does not match the schema",
    ],
    [
      "a document under another's number",
      "UPDATE {entries} SET seq = seq + 1 WHERE seq = (SELECT max(seq) FROM {entries})",
      "has the id",
    ],
    ["a table without rows", "DROP TABLE {entries}", "table entries has lost its rows"],
    [
      "an answer of a commit that is not there",
      "INSERT INTO sessions VALUES ('s', 1, '1', '9999999999999999999', 1)",
      "is of a commit that is not there",
    ],
    ["a cron that never comes", "UPDATE crons SET next = 0", 'the cron "every second"'],
    [
      "a scheduled function of no known state",
      `UPDATE d1 SET doc = replace(doc, '"pending"', '"lost"')`,
      "has the state lost",
    ],
    ["a newer format", "UPDATE meta SET value = 99 WHERE name = 'format'", "the file is in format 99"],
  ])("%s", (_name, sql, sentence) => {
    const report = damaged(sql);
    expect(report.ok).toBe(false);
    expect(report.problems.join("\n")).toContain(sentence);
    expect(report.problemCount).toBe(report.problems.length);
  });

  test("pages that were overwritten", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "db"));
    const file = join(folder, "db", "data.sqlite3");
    copyFileSync(join(sound, "db", "data.sqlite3"), file);
    const handle = openSync(file, "r+");
    for (let at = 4096; at < statSync(file).size; at += 4096) writeSync(handle, "overwritten", at);
    closeSync(handle);
    const { code, report } = await checkData(folder);
    expect([code, report.ok]).toEqual([1, false]);
    expect(report.problems.join("\n")).toMatch(/SQLite: |cannot be read to its end/);
  });
});
