/**
 * Convex's limits for one query or mutation, with its sentences, so that what passes here passes there
 * (docs/production/state/limits; texts of crates/database/src/{reads,writes}.rs). A function that hits one fails; nothing of it
 * is kept.
 */
import type { Json } from "./values.ts";

const MIB = 1024 * 1024;

export const MAX_ARGUMENTS_BYTES = 16 * MIB;
export const MAX_RETURN_BYTES = 16 * MIB;
export const MAX_DOCUMENT_BYTES = MIB;
export const MAX_DOCUMENT_FIELDS = 1024;
export const MAX_DOCUMENT_NESTING = 16;
export const MAX_ARRAY_LENGTH = 8192;
export const MAX_PAGE = 32_000;

const OVER_LIMIT_HELP =
  "Consider using smaller limits in your queries, paginating your queries, or using indexed queries " +
  "with a selective index range expressions.";

/** What a transaction may use, by the names of `ctx.meta.getTransactionMetrics()`. */
export const LIMITS = {
  bytesRead: 16 * MIB,
  bytesWritten: 16 * MIB,
  databaseQueries: 4096,
  documentsRead: 32_000,
  documentsWritten: 16_000,
  functionsScheduled: 1000,
  scheduledFunctionArgsBytes: 16 * MIB,
} as const;

export type Measure = keyof typeof LIMITS;

const SENTENCES: Record<Measure, (limit: number) => string> = {
  bytesRead: (limit) =>
    `Too many bytes read in a single function execution (limit: ${limit} bytes). ${OVER_LIMIT_HELP}`,
  bytesWritten: (limit) =>
    `Too many bytes written in a single function execution (limit: ${showBytes(limit)})`,
  databaseQueries: (limit) =>
    `Too many reads in a single function execution (limit: ${limit}). ${OVER_LIMIT_HELP}`,
  documentsRead: (limit) =>
    `Too many documents read in a single function execution (limit: ${limit}). ${OVER_LIMIT_HELP}`,
  documentsWritten: (limit) => `Too many writes in a single function execution (limit: ${limit})`,
  functionsScheduled: (limit) => `Too many functions scheduled by this mutation (limit: ${limit})`,
  scheduledFunctionArgsBytes: (limit) =>
    `Too large total size of the arguments of scheduled functions from this mutation (limit: ${limit} bytes)`,
};

/** Bytes for people, in binary units: `1 MiB`. */
export function showBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  let amount = bytes;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit++;
  }
  return `${Number(amount.toFixed(2))} ${units[unit]}`;
}

/** What one transaction has used so far. A sub-transaction counts on its parent's meter. */
export class Meter {
  readonly used: Record<Measure, number> = {
    bytesRead: 0,
    bytesWritten: 0,
    databaseQueries: 0,
    documentsRead: 0,
    documentsWritten: 0,
    functionsScheduled: 0,
    scheduledFunctionArgsBytes: 0,
  };

  /**
   * Adds to a measure.
   *
   * @throws Error with Convex's sentence when its limit is passed.
   */
  add(measure: Measure, amount: number): void {
    this.used[measure] += amount;
    if (this.used[measure] > LIMITS[measure]) throw new Error(SENTENCES[measure](LIMITS[measure]));
  }

  /** One document read. */
  readDocument(bytes: number): void {
    this.add("documentsRead", 1);
    this.add("bytesRead", bytes);
  }

  /** The answer of `ctx.meta.getTransactionMetrics()`; files do not exist here, so none were used. */
  report(): Json {
    const report: Record<string, Json> = {};
    for (const measure of Object.keys(LIMITS) as Measure[]) {
      report[measure] = { used: this.used[measure], remaining: LIMITS[measure] - this.used[measure] };
    }
    for (const measure of ["filesWritten", "fileWriteBytes", "filesRead", "fileReadBytes"]) {
      report[measure] = { used: 0, remaining: 0 };
    }
    return report;
  }
}
