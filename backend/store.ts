/**
 * The database file: one SQLite table per Convex table, one per index, and a few of our own. Everything here is
 * synchronous and runs in the engine's worker, the only user of the file.
 *
 *   d<table>   seq INTEGER PRIMARY KEY, size, doc       a document: JSON text of its encoded value, `_id` first
 *   x<index>   key BLOB, seq (primary key of both)      an index entry: keys.ts gives the key, seq the document
 *   tables     number, name, validator                  numbers are for ever: ids carry them
 *   indexes    id, tab, name, fields
 *   meta       name, value                              format (upgrade.ts), ts (the last commit, nanoseconds since the epoch)
 *   sessions   answers of mutations by (session, request), so that a client may ask twice
 *   crons      scheduler.ts
 *
 * `seq` is `_creationTime` * 4096: a float64 of milliseconds has steps of 2^-12 ms until the year 2039, so the product is
 * a whole number below 2^53, and the next representable time is the next sequence number. One number thus orders a table by
 * creation time, by id and by insertion.
 */
import { DatabaseSync, type StatementSync, type SQLInputValue } from "node:sqlite";
import { bringUp, UPGRADES, type Upgrade } from "./upgrade.ts";

/** Sequence numbers per millisecond: the precision of a float64 of today's milliseconds. */
export const SEQUENCES_PER_MS = 4096;

/** Numbers of tables: Convex, too, keeps the first 10,000 for itself. */
const FIRST_SYSTEM_TABLE = 1;
const FIRST_USER_TABLE = 10_001;

/** How long a write waits for another process that writes to the file (a backup tool), ms. */
const BUSY_MS = 5000;
/** Pages of 4 KiB that the cache may hold: 64 MB, to keep hot index pages of a million rows in memory. */
const CACHE_KIB = 65_536;
/**
 * Frames after which SQLite moves the log into the file, in the middle of a commit that then takes longer: 64 MB. A page that was
 * written many times is moved once, and four times as rarely as with 4000 frames, for less than twice the time.
 */
const CHECKPOINT_FRAMES = 16_000;
/** A log that one huge commit made longer than this, bytes, is cut back to it once it has been moved into the file. */
const LOG_BYTES = 96 * 1024 * 1024;

const TABLES = `
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS tables (number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, validator TEXT);
  CREATE TABLE IF NOT EXISTS indexes (id INTEGER PRIMARY KEY AUTOINCREMENT, tab INTEGER NOT NULL, name TEXT NOT NULL,
    fields TEXT NOT NULL, UNIQUE (tab, name));
  CREATE TABLE IF NOT EXISTS sessions (session TEXT, request INTEGER, result TEXT NOT NULL, ts TEXT NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (session, request)) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS sessions_by_at ON sessions (at);
  CREATE TABLE IF NOT EXISTS crons (name TEXT PRIMARY KEY, spec TEXT NOT NULL, next REAL NOT NULL) WITHOUT ROWID;
`;

/** A row of a table: sequence number, size in bytes as Convex counts, JSON text. */
export type Row = [seq: number, size: number, doc: string];
/** A row reached through an index. */
export type KeyedRow = [seq: number, size: number, doc: string, key: Uint8Array];

/** A Convex index, with the statements that keep it. */
export type Index = {
  id: number;
  name: string;
  /** Dotted paths, split; without the implied `_creationTime`. */
  fields: string[][];
  insert: StatementSync;
  remove: StatementSync;
};

/** A Convex table. */
export type Table = {
  number: number;
  name: string;
  indexes: Index[];
  read: StatementSync;
  insert: StatementSync;
  update: StatementSync;
  remove: StatementSync;
};

/** The open database. */
export class Store {
  readonly db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #byName = new Map<string, Table>();
  readonly #byNumber = new Map<number, Table>();
  #nextSystemTable = FIRST_SYSTEM_TABLE;
  #nextUserTable = FIRST_USER_TABLE;

  /**
   * Opens or makes the file; one of an older format is upgraded (upgrade.ts).
   *
   * @throws Error when it was written in a newer format, or cannot be upgraded.
   */
  constructor(file: string, upgrades: readonly Upgrade[] = UPGRADES) {
    this.db = new DatabaseSync(file, { timeout: BUSY_MS });
    this.db.exec(
      `PRAGMA cache_size=-${CACHE_KIB}; PRAGMA wal_autocheckpoint=${CHECKPOINT_FRAMES}; PRAGMA temp_store=MEMORY;` +
        // on macOS an ordinary fsync leaves the data in the drive's cache
        `PRAGMA synchronous=FULL; PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON; PRAGMA journal_size_limit=${LOG_BYTES}`,
    );
    const [mode] = this.rows("PRAGMA journal_mode=WAL")[0] as [string];
    if (mode !== "wal") throw new Error(`${file} is on a file system without SQLite's write-ahead log`);
    bringUp(this.db, file, upgrades, () => this.db.exec(TABLES));
    for (const [number, name] of this.rows("SELECT number, name FROM tables") as [number, string][]) {
      this.#remember(number, name);
    }
    for (const [id, tab, name, fields] of this.rows(
      "SELECT id, tab, name, fields FROM indexes ORDER BY id",
    ) as [number, number, string, string][]) {
      (this.#byNumber.get(tab) as Table).indexes.push(
        this.#openIndex(id, name, JSON.parse(fields) as string[]),
      );
    }
  }

  /**
   * A prepared statement, kept for ever: texts are few. Rows come as arrays.
   *
   * A limit is written `LIMIT +?`: SQLite looks into a bare `?` there while it plans, and would plan anew with every value.
   */
  statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.db.prepare(sql);
      statement.setReturnArrays(true);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** All rows of a query. */
  rows(sql: string, ...values: SQLInputValue[]): unknown[][] {
    return this.statement(sql).all(...values) as unknown as unknown[][];
  }

  /** Runs a statement for its effect. */
  run(sql: string, ...values: SQLInputValue[]): void {
    this.statement(sql).run(...values);
  }

  /** A value of the `meta` table; a whole number beyond 2^53 must be stored as text. */
  meta(name: string): unknown {
    return this.rows("SELECT value FROM meta WHERE name = ?", name)[0]?.[0];
  }

  setMeta(name: string, value: string | number): void {
    this.run(
      "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
      name,
      value,
    );
  }

  /** The table of that name, undefined when nothing was ever written to it nor a schema named it. */
  table(name: string): Table | undefined {
    return this.#byName.get(name);
  }

  /** The table behind an id. */
  tableNumbered(number: number): Table | undefined {
    return this.#byNumber.get(number);
  }

  /** All tables, system tables (`_…`) included. */
  tables(): Iterable<Table> {
    return this.#byName.values();
  }

  /** The largest sequence number of all tables, 0 when there is no document. */
  lastSequence(): number {
    const maxima = [...this.tables()].map(({ number }) => {
      const [row] = this.rows(`SELECT max(seq) FROM d${number}`);
      return (row?.[0] as number | null) ?? 0;
    });
    return Math.max(0, ...maxima);
  }

  /** Makes a table; its number is never used again for another name. */
  createTable(name: string): Table {
    const number = name.startsWith("_") ? this.#nextSystemTable : this.#nextUserTable;
    this.run("INSERT INTO tables (number, name) VALUES (?, ?)", number, name);
    this.db.exec(
      `CREATE TABLE d${number} (seq INTEGER PRIMARY KEY, size INTEGER NOT NULL, doc TEXT NOT NULL)`,
    );
    return this.#remember(number, name);
  }

  /** Forgets a table whose making was rolled back. */
  forgetTable(table: Table): void {
    this.#byName.delete(table.name);
    this.#byNumber.delete(table.number);
    this.#statements.clear();
  }

  /** Makes an empty index; the caller fills it (schema.ts). */
  createIndex(table: Table, name: string, fields: string[]): Index {
    const [row] = this.rows(
      "INSERT INTO indexes (tab, name, fields) VALUES (?, ?, ?) RETURNING id",
      table.number,
      name,
      JSON.stringify(fields),
    );
    const id = (row as [number])[0];
    this.db.exec(`CREATE TABLE x${id} (key BLOB, seq INTEGER, PRIMARY KEY (key, seq)) WITHOUT ROWID`);
    const index = this.#openIndex(id, name, fields);
    table.indexes.push(index);
    return index;
  }

  /** Drops an index and its entries. */
  dropIndex(table: Table, index: Index): void {
    table.indexes = table.indexes.filter((other) => other !== index);
    this.db.exec(`DROP TABLE x${index.id}`);
    this.run("DELETE FROM indexes WHERE id = ?", index.id);
  }

  #remember(number: number, name: string): Table {
    const table: Table = {
      number,
      name,
      indexes: [],
      read: this.statement(`SELECT seq, size, doc FROM d${number} WHERE seq = ?`),
      insert: this.statement(`INSERT INTO d${number} VALUES (?, ?, ?)`),
      update: this.statement(`UPDATE d${number} SET size = ?2, doc = ?3 WHERE seq = ?1`),
      remove: this.statement(`DELETE FROM d${number} WHERE seq = ?`),
    };
    this.#byName.set(name, table);
    this.#byNumber.set(number, table);
    if (number < FIRST_USER_TABLE) this.#nextSystemTable = Math.max(this.#nextSystemTable, number + 1);
    else this.#nextUserTable = Math.max(this.#nextUserTable, number + 1);
    return table;
  }

  #openIndex(id: number, name: string, fields: string[]): Index {
    return {
      id,
      name,
      fields: fields.map((field) => field.split(".")),
      insert: this.statement(`INSERT INTO x${id} VALUES (?, ?)`),
      remove: this.statement(`DELETE FROM x${id} WHERE key = ? AND seq = ?`),
    };
  }

  close(): void {
    this.#statements.clear();
    this.db.close();
  }
}
