/**
 * The two clocks of the engine, both strictly increasing and both moved past whatever was seen before: sequence numbers
 * (`_creationTime` of documents) and commit timestamps. A wall clock set back only makes them tick in their smallest steps.
 */
import { SEQUENCES_PER_MS } from "./store.ts";

const NS_PER_MS = 1_000_000n;

/** Gives out sequence numbers and commit timestamps. */
export class Clock {
  #sequence: number;
  #ts: bigint;

  /**
   * @param ts the last commit timestamp given out, nanoseconds since the epoch; 0 for a new database.
   * @param sequence the largest sequence number stored.
   */
  constructor(ts: bigint, sequence: number) {
    this.#ts = ts;
    this.#sequence = sequence;
  }

  /** The last commit timestamp, nanoseconds since the epoch. */
  get ts(): bigint {
    return this.#ts;
  }

  /** The timestamp of a commit at `now` (ms since the epoch). */
  nextTs(now: number): bigint {
    const wall = BigInt(Math.floor(now)) * NS_PER_MS;
    this.#ts = wall > this.#ts ? wall : this.#ts + 1n;
    return this.#ts;
  }

  /** Moves past a timestamp that a client has seen: its server had a database that we do not have. */
  observe(ts: bigint): void {
    if (ts > this.#ts) this.#ts = ts;
  }

  /** The sequence number of a document made at `now` (ms since the epoch). */
  nextSequence(now: number): number {
    this.#sequence = Math.max(Math.ceil(now * SEQUENCES_PER_MS), this.#sequence + 1);
    return this.#sequence;
  }
}

// functions get another `process`; the engine keeps what it needs of the real one
const { hrtime } = process;

/** Milliseconds of the system's monotonic clock: the same in all threads, and never set. */
export function monotonicMs(): number {
  return Number(hrtime.bigint() / 1000n) / 1000;
}

/** A timestamp as the protocol writes it: base64 of 8 little-endian bytes. */
export function writeTs(ts: bigint): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(ts);
  return bytes.toString("base64");
}

/** Reads a timestamp of the protocol; null when it is not one. */
export function readTs(text: unknown): bigint | null {
  if (typeof text !== "string") return null;
  const bytes = Buffer.from(text, "base64");
  return bytes.length === 8 ? bytes.readBigUInt64LE(0) : null;
}
