/**
 * Running a query: its range is read in chunks, filtered, cut. A stream remembers what it has read (reads.ts) and counts it
 * (limits.ts).
 */
import { createHash } from "node:crypto";
import { compileFilter, type Filter } from "./filter.ts";
import { compileRange, type Order, type Range, type SerializedQuery } from "./ranges.ts";
import type { Index, KeyedRow, Row, Table } from "./store.ts";
import type { Transaction } from "./transaction.ts";
import type { JsonObject } from "./values.ts";

/** Rows read from SQLite at once: few for the reader that wants one, then more, so that long scans are cheap. */
const FIRST_CHUNK = 8;
const MAX_CHUNK = 512;

/** Where a stream stands, just after this row; `key` only on an index. */
export type Position = { key: Uint8Array | null; seq: number };

/** Which part of a range a page wants. */
export type Part = {
  /** Rows up to and with this position are not read. */
  after: Position | null;
  /** Rows behind this position are not read. */
  until: Position | null;
  /** Rows to look at, at most; the same in bytes, which the last row may pass. */
  maxRows: number;
  maxBytes: number;
  /** How many rows the reader will probably take. */
  expected: number;
};

const WHOLE: Part = {
  after: null,
  until: null,
  maxRows: Infinity,
  maxBytes: Infinity,
  expected: FIRST_CHUNK,
};

/** Whether `left` comes after `right` in the order of a range. */
function isAfter(left: Position, right: Position, order: Order): boolean {
  const byKey = left.key !== null && right.key !== null ? Buffer.compare(left.key, right.key) : 0;
  const difference = byKey !== 0 ? byKey : left.seq - right.seq;
  return order === "asc" ? difference > 0 : difference < 0;
}

/**
 * Whether a position is one of a range's rows. Cursors come from callers, who can write what they like: one outside would begin a
 * page where the function reads nothing, at another's rows.
 */
function isInside({ table, index, exactKey, lo, hi, seqLo, seqHi }: Range, { key, seq }: Position): boolean {
  if (table === undefined || (index === null) !== (key === null)) return false;
  const inSequences = seq >= seqLo && seq < seqHi;
  if (key === null) return inSequences;
  if (exactKey) return inSequences && Buffer.compare(key, lo) === 0;
  return Buffer.compare(key, lo) >= 0 && Buffer.compare(key, hi) < 0;
}

/** A running query: documents one by one, as JSON text. */
export class Stream {
  readonly range: Range;
  readonly #tx: Transaction;
  readonly #steps: ({ filter: Filter } | { limit: number; taken: number })[];
  readonly #record: { lo: Buffer | number; hi: Buffer | number } | null;
  /** Rows not yet handed on, read at once. */
  #chunk: (Row | KeyedRow)[] = [];
  #at = 0;
  #chunkSize: number;
  #exhausted = false;
  readonly #part: Part;
  rowsRead = 0;
  bytesRead = 0;
  /** Whether it ended because of the part's `maxRows` or `maxBytes`. */
  limited = false;
  /** The last row that was looked at, filtered out or not. */
  position: Position | null;
  /** Whether there is nothing more: the end of the range was reached, or the query's limit. */
  done = false;
  #ended = false;

  /** @throws Error for an index or a range that does not exist, or a part that is none of the range. */
  constructor(tx: Transaction, query: SerializedQuery, part: Part = WHOLE) {
    this.#tx = tx;
    this.#part = part;
    tx.meter.add("databaseQueries", 1);
    this.range = compileRange(tx, query.source);
    for (const position of [part.after, part.until]) {
      if (position !== null && !isInside(this.range, position)) {
        throw new Error("InvalidCursor: this cursor is from a different query.");
      }
    }
    this.#steps = query.operators.map((operator) =>
      "filter" in operator ? { filter: compileFilter(operator.filter) } : { limit: operator.limit, taken: 0 },
    );
    this.position = part.after;
    const first = this.#steps[0];
    const expected = first !== undefined && "limit" in first ? first.limit : part.expected;
    this.#chunkSize = Math.min(expected, MAX_CHUNK);
    this.#record = this.#recordRead();
    this.#exhausted = this.range.table === undefined || this.#isEmpty();
  }

  /** The next document that passes, or null at the end. */
  next(): string | null {
    scan: for (;;) {
      for (const step of this.#steps) {
        if ("limit" in step && step.taken >= step.limit) {
          this.done = true;
          this.close();
          return null;
        }
      }
      const row = this.#nextRow();
      if (row === null) return null;
      let document: JsonObject | undefined;
      for (const step of this.#steps) {
        if ("filter" in step) {
          document ??= JSON.parse(row[2]) as JsonObject;
          if (!step.filter(document)) continue scan;
        } else {
          step.taken++;
        }
      }
      return row[2];
    }
  }

  /** Nothing more is read: only what was looked at counts as read. */
  close(): void {
    const record = this.#record;
    const here = this.position;
    if (record === null || this.#ended) return;
    const { index, order } = this.range;
    if (here === null) record.hi = record.lo;
    else if (order === "desc") record.lo = index === null ? here.seq : Buffer.from(here.key as Uint8Array);
    else record.hi = index === null ? here.seq + 1 : afterKey(Buffer.from(here.key as Uint8Array));
  }

  /** The next row of the range, whatever the filters say; counted as read. */
  #nextRow(): Row | KeyedRow | null {
    const { maxRows, maxBytes, until } = this.#part;
    if (this.rowsRead >= maxRows || this.bytesRead >= maxBytes) {
      this.limited = true;
      return null;
    }
    if (this.#at >= this.#chunk.length && !this.#fill()) return this.#end();
    const row = this.#chunk[this.#at++] as Row | KeyedRow;
    const position = { key: row[3] ?? null, seq: row[0] };
    if (until !== null && isAfter(position, until, this.range.order)) return this.#end();
    this.#tx.meter.readDocument(row[1]);
    this.rowsRead++;
    this.bytesRead += row[1];
    this.position = position;
    return row;
  }

  #end(): null {
    this.done = true;
    this.#ended = true;
    return null;
  }

  #isEmpty(): boolean {
    const { index, exactKey, lo, hi, seqLo, seqHi } = this.range;
    if (index !== null && !exactKey) return Buffer.compare(lo, hi) >= 0;
    return seqLo >= seqHi;
  }

  #fill(): boolean {
    if (this.#exhausted) return false;
    const limit = Math.max(1, this.#chunkSize);
    this.#chunk =
      this.range.index === null ? this.#readTable(limit) : this.#readIndex(this.range.index, limit);
    this.#at = 0;
    this.#chunkSize = Math.min(limit * 4, MAX_CHUNK);
    if (this.#chunk.length < limit) this.#exhausted = true;
    return this.#chunk.length > 0;
  }

  #readTable(limit: number): Row[] {
    const { table, order } = this.range;
    const [lo, hi] = this.#sequencesLeft();
    const direction = order === "asc" ? "ASC" : "DESC";
    return this.#tx.world.store.rows(
      `SELECT seq, size, doc FROM d${(table as Table).number} WHERE seq >= ? AND seq < ? ORDER BY seq ${direction} LIMIT +?`,
      lo,
      hi,
      limit,
    ) as Row[];
  }

  /** The sequence bounds, moved past the position. */
  #sequencesLeft(): [number, number] {
    const { seqLo, seqHi, order } = this.range;
    if (this.#last === null) return [seqLo, seqHi];
    return order === "asc"
      ? [Math.max(seqLo, this.#last.seq + 1), seqHi]
      : [seqLo, Math.min(seqHi, this.#last.seq)];
  }

  #readIndex(index: Index, limit: number): KeyedRow[] {
    const { table, lo, hi, exactKey, order } = this.range;
    const [direction, sign] = order === "asc" ? ["ASC", ">"] : ["DESC", "<"];
    const last = this.#last;
    const head = `SELECT x.seq, d.size, d.doc, x.key FROM x${index.id} x CROSS JOIN d${(table as Table).number} d ON d.seq = x.seq`;
    const tail = `ORDER BY x.key ${direction}, x.seq ${direction} LIMIT +?`;
    const { store } = this.#tx.world;
    if (exactKey) {
      const [seqLo, seqHi] = this.#sequencesLeft();
      return store.rows(
        `${head} WHERE x.key = ? AND x.seq >= ? AND x.seq < ? ${tail}`,
        lo,
        seqLo,
        seqHi,
        limit,
      ) as KeyedRow[];
    }
    if (last === null) {
      return store.rows(`${head} WHERE x.key >= ? AND x.key < ? ${tail}`, lo, hi, limit) as KeyedRow[];
    }
    const bound = order === "asc" ? "x.key < ?" : "x.key >= ?";
    return store.rows(
      `${head} WHERE (x.key, x.seq) ${sign} (?, ?) AND ${bound} ${tail}`,
      last.key as Uint8Array,
      last.seq,
      order === "asc" ? hi : lo,
      limit,
    ) as KeyedRow[];
  }

  /** The last row read from SQLite, or where the page begins. */
  get #last(): Position | null {
    const row = this.#chunk.at(-1);
    return row === undefined ? this.position : { key: row[3] ?? null, seq: row[0] };
  }

  #recordRead(): { lo: Buffer | number; hi: Buffer | number } | null {
    const { table, index } = this.range;
    if (table === undefined) return null;
    const [lo, hi] = this.#pageBounds();
    return index === null
      ? this.#tx.reads.sequences(table, lo as number, hi as number)
      : this.#tx.reads.keys(table, index, lo as Buffer, hi as Buffer);
  }

  /** The range's bounds without what lies before and behind the page. */
  #pageBounds(): [Buffer, Buffer] | [number, number] {
    const { index, lo, hi, seqLo, seqHi, order } = this.range;
    const [first, last] =
      order === "asc" ? [this.#part.after, this.#part.until] : [this.#part.until, this.#part.after];
    if (index === null) {
      const from = first === null ? seqLo : order === "asc" ? first.seq + 1 : first.seq;
      const to = last === null ? seqHi : order === "asc" ? last.seq + 1 : last.seq;
      return [from, to];
    }
    // rows of one key stand on both sides of a position: the whole key belongs to the page
    const from = first === null ? lo : Buffer.from(first.key as Uint8Array);
    const to = last === null ? hi : afterKey(Buffer.from(last.key as Uint8Array));
    return [from, to];
  }
}

/** The smallest key after this one. */
function afterKey(key: Buffer): Buffer {
  return Buffer.concat([key, Buffer.from([0])]);
}

/** Short name of a query, to tell whether a cursor belongs to it. */
export function fingerprint(query: SerializedQuery): string {
  return createHash("sha256").update(JSON.stringify(query)).digest("base64url").slice(0, 12);
}
