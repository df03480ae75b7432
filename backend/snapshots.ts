/**
 * What was committed at some instant, kept readable for a while (`/api/query_ts`, `/api/query_at_ts`): a connection each that
 * holds a read transaction of SQLite's. While one is held, the write-ahead log only grows; hence the bounds.
 */
import { Store } from "./store.ts";

/** How long a snapshot is kept, ms: what npm convex promises for `consistentQuery`. */
const KEEP_MS = 30_000;
/** How many are kept; beyond it the oldest goes. */
const MAX_KEPT = 16;
/** Page cache of a snapshot, KiB: it is read a few times, then closed. */
const CACHE_KIB = 2048;

type Snapshot = { store: Store; madeAt: number };

/** The snapshots of one data file. */
export class Snapshots {
  readonly #file: string;
  readonly #kept = new Map<bigint, Snapshot>();

  constructor(file: string) {
    this.#file = file;
  }

  /** Keeps what is committed now. Only between transactions. @param ts the last commit. @param now ms since the epoch. */
  keep(ts: bigint, now: number): void {
    const known = this.#kept.get(ts);
    if (known !== undefined) {
      known.madeAt = now;
      return;
    }
    const store = new Store(this.#file);
    store.db.exec(`PRAGMA cache_size=-${CACHE_KIB}; PRAGMA query_only=ON; BEGIN`);
    // SQLite takes the snapshot at the first read
    store.meta("ts");
    this.#kept.set(ts, { store, madeAt: now });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MAX_KEPT) this.#drop(oldest as bigint);
  }

  /** The database as it was at a commit; undefined when that is not kept, or not any more. */
  at(ts: bigint): Store | undefined {
    return this.#kept.get(ts)?.store;
  }

  /** Drops what is too old at `now`, ms since the epoch. */
  expire(now: number): void {
    for (const [ts, { madeAt }] of this.#kept) {
      // also when the clock was set back
      if (Math.abs(now - madeAt) > KEEP_MS) this.#drop(ts);
    }
  }

  /** Drops all. */
  close(): void {
    for (const ts of this.#kept.keys()) this.#drop(ts);
  }

  #drop(ts: bigint): void {
    this.#kept.get(ts)?.store.close();
    this.#kept.delete(ts);
  }
}
