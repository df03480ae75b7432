/**
 * One query or mutation's view of the database: reads and writes of single documents, what it has read and written, and
 * what it has used of its limits. Writes go straight to SQLite inside a savepoint that the engine opened; a
 * sub-transaction is one more savepoint, which rolls back alone.
 *
 * Ranges are read in query.ts.
 */
import { checkDocument, checkSystem, checkTableName, isUndefinedMark } from "./documents.ts";
import { decodeId, newId } from "./ids.ts";
import { encodeKey } from "./keys.ts";
import { MAX_DOCUMENT_BYTES, Meter, showBytes } from "./limits.ts";
import { ReadSet, type Write } from "./reads.ts";
import { SEQUENCES_PER_MS, type Index, type Row, type Store, type Table } from "./store.ts";
import type { Clock } from "./clock.ts";
import type { Check } from "./validate.ts";
import { fieldAt, sizeOf, type Json, type JsonObject } from "./values.ts";

/** Bytes that `_id` and `_creationTime` add to a document, as Convex counts them (values/size.ts). */
export const SYSTEM_FIELDS_BYTES = 38 + 23;
/** The tables of Convex's own that functions may read through `ctx.db.system`. */
const READABLE_SYSTEM_TABLES = ["_scheduled_functions"];

/** What a transaction needs of the engine. */
export type World = {
  store: Store;
  clock: Clock;
  /** The schema's check of a table's documents; undefined when anything goes. */
  documentCheck: (table: string) => Check | undefined;
};

type Savepoint = { writes: number; created: number };

/** The key of a document in an index. */
export function indexKey(index: Pick<Index, "fields">, document: JsonObject): Buffer {
  return encodeKey(index.fields.map((path) => fieldAt(document, path)));
}

/** A transaction; made by the engine, one at a time. */
export class Transaction {
  readonly meter = new Meter();
  readonly reads = new ReadSet();
  readonly writes: Write[] = [];
  /** ms since the epoch: what `Date.now()` says during the whole run. */
  readonly now: number;
  /** The timestamp that this transaction commits at; of a query, the snapshot that it reads. */
  readonly ts: bigint;
  readonly writable: boolean;
  readonly world: World;
  readonly #created: Table[] = [];
  readonly #savepoints: Savepoint[] = [];
  #failure: Error | null = null;
  /** Documents already read or written, parsed: a patch after a get reads and parses nothing again. */
  readonly #documents = new Map<number, JsonObject>();

  constructor(world: World, writable: boolean, now: number, ts: bigint) {
    this.world = world;
    this.writable = writable;
    this.now = now;
    this.ts = ts;
  }

  /** Opens a savepoint. @returns its number, by which `release` or `rollback` closes it. */
  savepoint(): number {
    this.#checkAlive();
    const number = this.#savepoints.length;
    this.world.store.run(`SAVEPOINT s${number}`);
    this.#savepoints.push({ writes: this.writes.length, created: this.#created.length });
    return number;
  }

  /** Keeps what was written since a savepoint, except what a sub-transaction that has not ended wrote: nobody waited for it. */
  release(number: number): void {
    if (number >= this.#savepoints.length) return;
    this.rollback(number + 1);
    this.#savepoints.pop();
    this.world.store.run(`RELEASE s${number}`);
  }

  /** Undoes what was written since a savepoint; nothing when one below it was closed already. */
  rollback(number: number): void {
    const savepoint = this.#savepoints[number];
    if (savepoint === undefined) return;
    this.#savepoints.length = number;
    if (this.world.store.db.isTransaction) {
      this.world.store.run(`ROLLBACK TO s${number}`);
      this.world.store.run(`RELEASE s${number}`);
    }
    this.writes.length = savepoint.writes;
    for (const table of this.#created.splice(savepoint.created)) this.world.store.forgetTable(table);
    this.#documents.clear();
  }

  /** The table of a name for reading. System tables only with `system`, and only those that exist here. */
  tableToRead(name: string): Table | undefined {
    if (name.startsWith("_") && !READABLE_SYSTEM_TABLES.includes(name)) {
      throw new Error(`The system table ${name} is not supported by this backend.`);
    }
    const table = this.world.store.table(name);
    if (table === undefined) this.reads.missing.add(name);
    return table;
  }

  /** The id's text if it names a row that could be in the table; null otherwise. */
  normalizeId(tableName: string, id: string): string | null {
    const decoded = decodeId(id);
    const table = this.world.store.table(tableName);
    return decoded !== null && table !== undefined && decoded.table === table.number ? id : null;
  }

  /**
   * A document's JSON text by id; null when it does not exist.
   *
   * @throws Error for text that is no id, or an id of another table than `tableName`, or of the wrong half of
   *   `ctx.db` and `ctx.db.system`.
   */
  get(id: string, tableName: string | undefined, system: boolean): string | null {
    const decoded = decodeId(id);
    if (decoded === null) {
      throw new Error(`Invalid argument \`id\` for \`db.get\`: Unable to decode ID: "${id}" is not an ID`);
    }
    this.meter.add("databaseQueries", 1);
    const table = this.world.store.tableNumbered(decoded.table);
    if (table === undefined) return null;
    checkSystem(table.name, system);
    this.#checkTable(table, id, tableName, "get");
    this.tableToRead(table.name);
    this.reads.sequences(table, decoded.sequence, decoded.sequence + 1);
    const row = this.#row(table, decoded.sequence, id);
    if (row === undefined) return null;
    this.meter.readDocument(row[1]);
    return row[2];
  }

  /** Inserts a document. @returns its id. @throws Error with Convex's sentence when the value or the table is refused. */
  insert(tableName: string, value: Json): string {
    this.#checkWritable();
    checkTableName(tableName);
    const body = this.#checked(value, tableName);
    if ("_id" in body || "_creationTime" in body) {
      throw new Error(
        `Can't insert a document with the system fields _id or _creationTime into ${tableName}.`,
      );
    }
    return this.insertRow(this.tableToWrite(tableName), body);
  }

  /** Merges fields into a document; a field of `{"$undefined": null}` is removed. */
  patch(id: string, tableName: string | undefined, changes: JsonObject): void {
    const { table, sequence, document } = this.#existing(id, tableName, "patch", "Update");
    const body: JsonObject = { ...document };
    for (const [name, value] of Object.entries(changes)) {
      if (isUndefinedMark(value)) delete body[name];
      else body[name] = value;
    }
    this.#rewrite(table, sequence, document, body);
  }

  /** Puts another value in a document's place. */
  replace(id: string, tableName: string | undefined, value: Json): void {
    const { table, sequence, document } = this.#existing(id, tableName, "replace", "Replace");
    this.#rewrite(table, sequence, document, value as JsonObject);
  }

  /** Deletes a document. */
  remove(id: string, tableName: string | undefined): void {
    const { table, sequence, document } = this.#existing(id, tableName, "delete", "Delete");
    this.meter.add("documentsWritten", 1);
    this.removeRow(table, sequence, document);
  }

  /** The table of a name for writing, made when it is new. */
  tableToWrite(name: string): Table {
    const known = this.world.store.table(name);
    if (known !== undefined) return known;
    return this.#apply(() => {
      const table = this.world.store.createTable(name);
      this.#created.push(table);
      return table;
    });
  }

  /** The commit failed: the tables that this transaction has made do not exist. */
  forgetTables(): void {
    for (const table of this.#created.splice(0)) this.world.store.forgetTable(table);
  }

  /** Why the database failed a write; such a transaction must not be committed. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Names of the tables that this transaction has made. */
  createdTables(): string[] {
    return this.#created.map((table) => table.name);
  }

  /** Inserts a checked body, of a system table too. */
  insertRow(table: Table, body: JsonObject): string {
    const sequence = this.world.clock.nextSequence(this.now);
    const id = newId(table.number, sequence);
    const document: JsonObject = { _id: id, _creationTime: sequence / SEQUENCES_PER_MS, ...body };
    const size = this.#measure(table, body);
    const keys = table.indexes.map((index) => ({ index: index.id, key: indexKey(index, document) }));
    this.#apply(() => {
      table.insert.run(sequence, size, JSON.stringify(document));
      table.indexes.forEach((index, at) => index.insert.run((keys[at] as { key: Buffer }).key, sequence));
    });
    this.writes.push({ table: table.number, seq: sequence, keys });
    this.#documents.set(sequence, document);
    return id;
  }

  /** Writes a checked body (without system fields) over a document, of a system table too. */
  updateRow(table: Table, sequence: number, before: JsonObject, body: JsonObject): void {
    const document: JsonObject = {
      _id: before._id as Json,
      _creationTime: before._creationTime as Json,
      ...body,
    };
    const size = this.#measure(table, body);
    const keys: Write["keys"] = [];
    this.#apply(() => {
      table.update.run(sequence, size, JSON.stringify(document));
      for (const index of table.indexes) {
        const old = indexKey(index, before);
        const key = indexKey(index, document);
        keys.push({ index: index.id, key: old });
        if (old.equals(key)) continue;
        index.remove.run(old, sequence);
        index.insert.run(key, sequence);
        keys.push({ index: index.id, key });
      }
    });
    this.writes.push({ table: table.number, seq: sequence, keys });
    this.#documents.set(sequence, document);
  }

  /** Deletes a document, of a system table too. */
  removeRow(table: Table, sequence: number, document: JsonObject): void {
    const keys: Write["keys"] = [];
    this.#apply(() => {
      table.remove.run(sequence);
      for (const index of table.indexes) {
        const key = indexKey(index, document);
        index.remove.run(key, sequence);
        keys.push({ index: index.id, key });
      }
    });
    this.writes.push({ table: table.number, seq: sequence, keys });
    this.#documents.delete(sequence);
  }

  /** A document of a system table by id, parsed; undefined when it does not exist. */
  systemDocument(table: Table, id: string): { sequence: number; document: JsonObject } | undefined {
    const decoded = decodeId(id);
    if (decoded === null || decoded.table !== table.number) return undefined;
    const document = this.#document(table, decoded.sequence, id);
    return document && { sequence: decoded.sequence, document };
  }

  #row(table: Table, sequence: number, id: string): Row | undefined {
    const row = table.read.get(sequence) as unknown as Row | undefined;
    // ids of one sequence number differ in their random half
    return row !== undefined && row[2].startsWith(`{"_id":"${id}"`) ? row : undefined;
  }

  #document(table: Table, sequence: number, id: string): JsonObject | undefined {
    const known = this.#documents.get(sequence);
    if (known !== undefined) return known._id === id ? known : undefined;
    const row = this.#row(table, sequence, id);
    if (row === undefined) return undefined;
    const document = JSON.parse(row[2]) as JsonObject;
    this.#documents.set(sequence, document);
    return document;
  }

  #existing(id: string, tableName: string | undefined, method: string, verb: string) {
    this.#checkWritable();
    const decoded = decodeId(id);
    if (decoded === null) {
      throw new Error(
        `Invalid argument \`id\` for \`db.${method}\`: Unable to decode ID: "${id}" is not an ID`,
      );
    }
    const table = this.world.store.tableNumbered(decoded.table);
    if (table?.name.startsWith("_")) throw new Error("System tables (prefixed with `_`) are read-only.");
    if (table !== undefined) this.#checkTable(table, id, tableName, method);
    // Convex counts the document that a write replaces as read
    this.meter.add("databaseQueries", 1);
    const document = table && this.#document(table, decoded.sequence, id);
    if (table === undefined || document === undefined) {
      throw new Error(`${verb} on nonexistent document ID ${id}`);
    }
    this.reads.sequences(table, decoded.sequence, decoded.sequence + 1);
    this.meter.readDocument(sizeOf(document));
    return { table, sequence: decoded.sequence, document };
  }

  #checkTable(table: Table, id: string, tableName: string | undefined, method: string): void {
    if (tableName !== undefined && table.name !== tableName) {
      throw new Error(
        `Invalid argument \`id\` for \`db.${method}\`: ID "${id}" is from table \`${table.name}\`, not from table \`${tableName}\``,
      );
    }
  }

  /**
   * Runs SQLite writes that belong together. One that fails half-way spoils the whole transaction, even if the function
   * catches the error: after a full disk SQLite has rolled back by itself, and would commit each further write on its own.
   */
  #apply<Result>(work: () => Result): Result {
    this.#checkAlive();
    try {
      return work();
    } catch (error) {
      this.#failure = error as Error;
      throw error;
    }
  }

  #checkAlive(): void {
    this.#checkWritable();
    if (this.#failure !== null) throw this.#failure;
    if (!this.world.store.db.isTransaction) {
      this.#failure = new Error("SQLite has rolled the transaction back");
      throw this.#failure;
    }
  }

  #checkWritable(): void {
    if (!this.writable) throw new Error("Queries cannot write to the database: use a mutation.");
  }

  #rewrite(table: Table, sequence: number, before: JsonObject, value: JsonObject): void {
    const body = this.#checked(value, table.name);
    for (const name of ["_id", "_creationTime"]) {
      const given = body[name];
      if (given !== undefined && given !== before[name]) {
        throw new Error(`The system field ${name} of document ${String(before._id)} cannot be changed.`);
      }
      delete body[name];
    }
    this.updateRow(table, sequence, before, body);
  }

  #checked(value: Json, tableName: string): JsonObject {
    return checkDocument(value, tableName, this.ts, this.world.documentCheck(tableName));
  }

  #measure(table: Table, body: JsonObject): number {
    const size = sizeOf(body) + SYSTEM_FIELDS_BYTES;
    // a scheduled function whose end could not be written down would run again and again
    if (table.name.startsWith("_")) return size;
    if (size > MAX_DOCUMENT_BYTES) {
      throw new Error(
        `Value is too large (${showBytes(size)} > maximum size ${showBytes(MAX_DOCUMENT_BYTES)})`,
      );
    }
    this.meter.add("documentsWritten", 1);
    this.meter.add("bytesWritten", size);
    return size;
  }
}
