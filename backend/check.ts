/**
 * `--check`: whether a data file is whole. It reads only, row by row, so that memory stays flat, and looks at
 *
 *   - SQLite's own integrity check, and the stored format;
 *   - every document: its id, creation time, size, and the schema that was applied last;
 *   - every index against its table, both ways: each document has exactly its key, and there is no other entry;
 *   - the answers kept for clients, the scheduled functions, the crons.
 */
import { existsSync, statSync } from "node:fs";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import { decodeId } from "./ids.ts";
import { SEQUENCES_PER_MS } from "./store.ts";
import { indexKey, SYSTEM_FIELDS_BYTES } from "./transaction.ts";
import { formatOf, newestFormat, UPGRADES } from "./upgrade.ts";
import { compileValidator, type Check, type ValidatorJson } from "./validate.ts";
import { sizeOf, type Json, type JsonObject } from "./values.ts";

/** Problems written out; a file with more has one cause for all of them. */
const MAX_SHOWN = 20;
const NS_PER_MS = 1_000_000n;
const JOBS_TABLE = "_scheduled_functions";
const OPEN_STATES = ["pending", "inProgress"];
const DONE_STATES = ["success", "failed", "canceled"];

type StoredIndex = { id: number; name: string; fields: string[][] };
type StoredTable = { number: number; name: string; validator: string | null; indexes: StoredIndex[] };

/** What was found; `problems` holds the first of `problemCount`. */
export type Report = {
  ok: boolean;
  file: string;
  /** null when nothing is stored yet. */
  format: number | null;
  /** Of the file and its write-ahead log. */
  bytes: number;
  /** The last commit, ms since the epoch; null when there was none. */
  lastCommitAt: number | null;
  documents: number;
  entries: number;
  sessions: number;
  crons: number;
  /** Scheduled functions by state. */
  scheduled: Record<string, number>;
  tables: Record<string, { documents: number; bytes: number; indexes: Record<string, number> }>;
  problems: string[];
  problemCount: number;
};

/** Checks a file that no process has open for writing. */
export function checkFile(file: string): Report {
  const log = `${file}-wal`;
  // without a log nothing needs to be put together, and SQLite need not make one
  const place = pathToFileURL(file);
  if (!existsSync(log)) place.searchParams.set("immutable", "1");
  const db = new DatabaseSync(place, { readOnly: true });
  try {
    return new Inspection(db, file, statSync(file).size + (existsSync(log) ? statSync(log).size : 0)).run();
  } finally {
    db.close();
  }
}

class Inspection {
  readonly #db: DatabaseSync;
  readonly #report: Report;
  /** The last commit, nanoseconds since the epoch. */
  #lastTs = 0n;

  constructor(db: DatabaseSync, file: string, bytes: number) {
    this.#db = db;
    this.#report = {
      ...{ ok: false, file, format: null, bytes, lastCommitAt: null, documents: 0, entries: 0, sessions: 0 },
      ...{ crons: 0, scheduled: {}, tables: {}, problems: [], problemCount: 0 },
    };
  }

  run(): Report {
    const report = this.#report;
    try {
      this.#inspect();
    } catch (error) {
      // a damaged page ends a scan anywhere
      this.#problem(`the file cannot be read to its end: ${(error as Error).message}`);
    }
    report.ok = report.problemCount === 0;
    return report;
  }

  #problem(sentence: string): void {
    this.#report.problemCount++;
    if (this.#report.problems.length < MAX_SHOWN) this.#report.problems.push(sentence);
  }

  #inspect(): void {
    for (const [line] of this.#rows(`PRAGMA integrity_check(${MAX_SHOWN})`)) {
      if (line !== "ok") this.#problem(`SQLite: ${String(line)}`);
    }
    this.#report.format = formatOf(this.#db);
    if (this.#report.format === null) return;
    const newest = newestFormat(UPGRADES);
    if (this.#report.format !== newest) {
      this.#problem(`the file is in format ${this.#report.format}; this version checks format ${newest}`);
      return;
    }
    const [ts] = [...this.#rows("SELECT value FROM meta WHERE name = 'ts'")][0] ?? ["0"];
    this.#lastTs = BigInt(ts as string);
    if (this.#lastTs > 0n) this.#report.lastCommitAt = Number(this.#lastTs / NS_PER_MS);
    const tables = this.#catalogue();
    const names = new Map(tables.map(({ number, name }) => [number, name]));
    for (const table of tables) this.#inspectTable(table, (number) => names.get(number));
    this.#inspectSessions();
    this.#inspectCrons();
  }

  *#rows(sql: string, ...values: (string | number)[]): Generator<unknown[]> {
    const statement = this.#prepare(sql);
    for (const row of statement.iterate(...values)) yield row as unknown as unknown[];
  }

  #prepare(sql: string): StatementSync {
    const statement = this.#db.prepare(sql);
    statement.setReturnArrays(true);
    return statement;
  }

  /** The tables and indexes that are there both in our lists and in SQLite's. */
  #catalogue(): StoredTable[] {
    const stored = new Set<string>();
    for (const [name] of this.#rows(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '[dx][0-9]*'",
    )) {
      stored.add(name as string);
    }
    const there = (name: string, owner: string): boolean => {
      if (stored.delete(name)) return true;
      this.#problem(`${owner} has lost its rows: there is no ${name}`);
      return false;
    };
    const tables: StoredTable[] = [];
    for (const row of this.#rows("SELECT number, name, validator FROM tables")) {
      const [number, name, validator] = row as [number, string, string | null];
      if (there(`d${number}`, `table ${name}`)) tables.push({ number, name, validator, indexes: [] });
    }
    for (const row of this.#rows("SELECT id, tab, name, fields FROM indexes")) {
      const [id, tab, name, fields] = row as [number, number, string, string];
      const table = tables.find(({ number }) => number === tab);
      if (table === undefined) this.#problem(`index ${name} belongs to table ${tab}, which does not exist`);
      const paths = (JSON.parse(fields) as string[]).map((field) => field.split("."));
      if (there(`x${id}`, `index ${table?.name ?? tab}.${name}`))
        table?.indexes.push({ id, name, fields: paths });
    }
    for (const name of stored) this.#problem(`${name} belongs to no table and no index`);
    return tables;
  }

  #inspectTable(table: StoredTable, tableNames: (number: number) => string | undefined): void {
    const found = { documents: 0, bytes: 0, indexes: {} as Record<string, number> };
    this.#report.tables[table.name] = found;
    const check =
      table.validator === null
        ? null
        : compileValidator(JSON.parse(table.validator) as ValidatorJson, tableNames);
    const finders = table.indexes.map((index) => ({
      index,
      find: this.#prepare(`SELECT 1 FROM x${index.id} WHERE key = ? AND seq = ?`),
    }));
    for (const row of this.#rows(`SELECT seq, size, doc FROM d${table.number} ORDER BY seq`)) {
      const [seq, size, doc] = row as [number, number, string];
      found.documents++;
      found.bytes += size;
      const document = this.#inspectDocument(table, seq, size, doc, check);
      if (document === null) continue;
      for (const { index, find } of finders) {
        if (find.get(indexKey(index, document), seq) === undefined) {
          this.#problem(`${String(document._id)} is not under its key in ${table.name}.${index.name}`);
        }
      }
    }
    for (const index of table.indexes) {
      const [count] = [...this.#rows(`SELECT count(*) FROM x${index.id}`)][0] as [number];
      found.indexes[index.name] = count;
      this.#report.entries += count;
      // each document's one entry was found above: as many entries as documents, and there is no other
      if (count !== found.documents) this.#nameStrays(table, index, count, found.documents);
    }
    this.#report.documents += found.documents;
  }

  #inspectDocument(
    table: StoredTable,
    seq: number,
    size: number,
    doc: string,
    check: Check | null,
  ): JsonObject | null {
    const where = `row ${seq} of ${table.name}`;
    let document: JsonObject;
    try {
      document = JSON.parse(doc) as JsonObject;
    } catch {
      this.#problem(`${where} is no JSON`);
      return null;
    }
    const { _id, _creationTime, ...fields } = document;
    const id = decodeId(String(_id));
    if (id?.table !== table.number || id.sequence !== seq)
      this.#problem(`${where} has the id ${String(_id)}`);
    if ((_creationTime as number) * SEQUENCES_PER_MS !== seq) {
      this.#problem(`${where} has the creation time ${String(_creationTime)}`);
    }
    const actual = sizeOf(fields) + SYSTEM_FIELDS_BYTES;
    if (actual !== size) this.#problem(`${where} has ${actual} bytes, not ${size}`);
    const refusal = check?.(fields) ?? null;
    if (refusal !== null) this.#problem(`${where} does not match the schema: ${refusal}`);
    if (table.name === JOBS_TABLE) this.#inspectJob(where, document);
    return document;
  }

  #nameStrays(table: StoredTable, index: StoredIndex, entries: number, documents: number): void {
    this.#problem(`${table.name}.${index.name} has ${entries} entries for ${documents} documents`);
    const sql = `SELECT x.key, x.seq, d.doc FROM x${index.id} x LEFT JOIN d${table.number} d ON d.seq = x.seq`;
    for (const row of this.#rows(sql)) {
      const [key, seq, doc] = row as [Uint8Array, number, string | null];
      if (doc === null)
        this.#problem(`${table.name}.${index.name} has an entry for row ${seq}, which is gone`);
      else if (Buffer.compare(indexKey(index, JSON.parse(doc) as JsonObject), key) !== 0) {
        this.#problem(`${table.name}.${index.name} has row ${seq} under a key that is not its own`);
      }
    }
  }

  #inspectJob(where: string, job: JsonObject): void {
    const { kind } = (job.state ?? {}) as { kind?: string };
    const { scheduled } = this.#report;
    scheduled[String(kind)] = (scheduled[String(kind)] ?? 0) + 1;
    const open = OPEN_STATES.includes(String(kind));
    if (!open && !DONE_STATES.includes(String(kind))) this.#problem(`${where} has the state ${String(kind)}`);
    else if (open !== (job.completedTime === undefined)) {
      this.#problem(
        `${where} is ${String(kind)} ${open ? "and yet completed" : "without having been completed"}`,
      );
    }
    if (typeof job.name !== "string" || !Array.isArray(job.args) || typeof job.scheduledTime !== "number") {
      this.#problem(`${where} does not say what to run, with what, and when`);
    }
  }

  #inspectSessions(): void {
    for (const row of this.#rows("SELECT session, request, result, ts FROM sessions")) {
      const [session, request, result, ts] = row as [string, number, string, string];
      this.#report.sessions++;
      const where = `the answer to request ${request} of session ${session}`;
      if (!isJson(result)) this.#problem(`${where} is no JSON`);
      if (!/^\d+$/.test(ts) || BigInt(ts) > this.#lastTs)
        this.#problem(`${where} is of a commit that is not there`);
    }
  }

  #inspectCrons(): void {
    for (const row of this.#rows("SELECT name, spec, next FROM crons")) {
      const [name, spec, next] = row as [string, string, number];
      this.#report.crons++;
      if (!isJson(spec) || !(next > 0)) this.#problem(`the cron "${name}" does not say what to run, or when`);
    }
  }
}

function isJson(text: string): boolean {
  try {
    return (JSON.parse(text) as Json) !== undefined;
  } catch {
    return false;
  }
}
