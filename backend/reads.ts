/**
 * What a query has read, and what a mutation has written, so that a subscription runs again only when a commit
 * touched its read set. A read is a range: of sequence numbers of a table, or of keys of an index.
 */
import type { Index, Table } from "./store.ts";

type KeyRange = { lo: Buffer; hi: Buffer };
type SequenceRange = { lo: number; hi: number };

/** Ranges read of one table. `hi` is exclusive. */
type TableReads = { sequences: SequenceRange[]; keys: Map<number, KeyRange[]> };

/** One document written: where it stands, and its index entries before and after. */
export type Write = { table: number; seq: number; keys: { index: number; key: Buffer }[] };

/** All that one run of a query has read. */
export class ReadSet {
  readonly tables = new Map<number, TableReads>();
  /** Names of tables that were asked for and did not exist. */
  readonly missing = new Set<string>();

  #of(table: Table): TableReads {
    let reads = this.tables.get(table.number);
    if (reads === undefined) {
      reads = { sequences: [], keys: new Map() };
      this.tables.set(table.number, reads);
    }
    return reads;
  }

  /** Documents lo <= seq < hi of a table. The range is returned: whoever stops early may narrow it. */
  sequences(table: Table, lo: number, hi: number): SequenceRange {
    const range = { lo, hi };
    this.#of(table).sequences.push(range);
    return range;
  }

  /** Entries lo <= key < hi of an index. */
  keys(table: Table, index: Index, lo: Buffer, hi: Buffer): KeyRange {
    const range = { lo, hi };
    const { keys } = this.#of(table);
    const ranges = keys.get(index.id);
    if (ranges === undefined) keys.set(index.id, [range]);
    else ranges.push(range);
    return range;
  }

  /** Whether a write falls into what was read. */
  touchedBy(write: Write): boolean {
    const reads = this.tables.get(write.table);
    if (reads === undefined) return false;
    if (reads.sequences.some((range) => write.seq >= range.lo && write.seq < range.hi)) return true;
    return write.keys.some(({ index, key }) =>
      reads.keys
        .get(index)
        ?.some((range) => Buffer.compare(key, range.lo) >= 0 && Buffer.compare(key, range.hi) < 0),
    );
  }
}
