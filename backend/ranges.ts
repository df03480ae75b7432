/**
 * The range that a query scans: the source that npm convex serialises, compiled into bounds of keys or sequence numbers.
 */
import { decodeId } from "./ids.ts";
import { afterPrefix, encodeKey, KEY_MAX, KEY_MIN } from "./keys.ts";
import { SEQUENCES_PER_MS, type Index, type Table } from "./store.ts";
import type { Transaction } from "./transaction.ts";
import { float64Of, kindOf, type Json, type JsonObject } from "./values.ts";

type RangeExpression = { type: "Eq" | "Gt" | "Gte" | "Lt" | "Lte"; fieldPath: string; value: Json };
/** Which way a range is read. */
export type Order = "asc" | "desc";

/** A query as npm convex sends it. */
export type SerializedQuery = {
  source:
    | { type: "FullTableScan"; tableName: string; order: Order | null }
    | { type: "IndexRange"; indexName: string; range: RangeExpression[]; order: Order | null }
    | { type: "Search"; indexName: string };
  operators: ({ filter: Json } | { limit: number })[];
};

/** The least sequence number that no row can have. */
const SEQUENCE_END = Number.MAX_SAFE_INTEGER;

/**
 * The range a query scans. On an index: lo <= key < hi; when all of its fields are fixed, `lo` is the whole key and the
 * sequence bounds apply too. Without an index: sequence bounds of the table.
 */
export type Range = {
  table: Table | undefined;
  index: Index | null;
  lo: Buffer;
  hi: Buffer;
  seqLo: number;
  seqHi: number;
  exactKey: boolean;
  order: Order;
};

/** Compiles a source. @throws Error with Convex's sentence for an index or a range that does not exist. */
export function compileRange(tx: Transaction, source: SerializedQuery["source"]): Range {
  if (source.type === "Search") {
    throw new Error(`Search indexes are not supported by this backend (${source.indexName}).`);
  }
  const whole = { index: null, lo: KEY_MIN, hi: KEY_MAX, seqLo: 0, seqHi: SEQUENCE_END, exactKey: false };
  const order = source.order ?? "asc";
  if (source.type === "FullTableScan") {
    return { ...whole, table: tx.tableToRead(source.tableName), order };
  }
  const [tableName, indexName] = source.indexName.split(".") as [string, string];
  const table = tx.tableToRead(tableName);
  if (indexName === "by_creation_time" || indexName === "by_id") {
    const field = indexName === "by_id" ? "_id" : "_creationTime";
    const [seqLo, seqHi] = sequenceBounds(source.range, field, source.indexName);
    return { ...whole, table, seqLo, seqHi, order };
  }
  const index = table?.indexes.find((candidate) => candidate.name === indexName);
  if (index === undefined) throw new Error(`Index ${source.indexName} not found.`);
  return { ...indexBounds(source.range, index, source.indexName), table, order };
}

/** Splits the expressions into equalities and bounds of consecutive index fields. */
function indexBounds(range: RangeExpression[], index: Index, name: string): Omit<Range, "table" | "order"> {
  const fields = index.fields.map((path) => path.join("."));
  const fixed: (Json | undefined)[] = [];
  let at = 0;
  while (at < fields.length && range[at]?.type === "Eq") {
    const expression = range[at] as RangeExpression;
    if (expression.fieldPath !== fields[at]) throw outOfOrder(name, fields, range);
    fixed.push(operand(expression.value));
    at++;
  }
  const prefix = encodeKey(fixed);
  const rest = range.slice(at);
  if (at === fields.length && fields.length > 0) {
    const [seqLo, seqHi] = sequenceBounds(rest, "_creationTime", name);
    return { index, lo: prefix, hi: afterPrefix(prefix), seqLo, seqHi, exactKey: true };
  }
  let lo = prefix;
  let hi = prefix.length > 0 ? afterPrefix(prefix) : KEY_MAX;
  for (const expression of boundsOf(rest, fields[at] as string, name, () =>
    outOfOrder(name, fields, range),
  )) {
    const key = encodeKey([...fixed, operand(expression.value)]);
    if (expression.type === "Gt") lo = afterPrefix(key);
    else if (expression.type === "Gte") lo = key;
    else if (expression.type === "Lt") hi = key;
    else hi = afterPrefix(key);
  }
  return { index, lo, hi, seqLo: 0, seqHi: SEQUENCE_END, exactKey: false };
}

/** At most one lower and one upper bound, on the one field that may have them. */
function boundsOf(
  range: RangeExpression[],
  field: string,
  name: string,
  misplaced: () => Error,
): RangeExpression[] {
  const sides = new Set<string>();
  for (const expression of range) {
    if (expression.type === "Eq" || expression.fieldPath !== field) throw misplaced();
    const side = expression.type.startsWith("G") ? "lower" : "upper";
    if (sides.has(side)) {
      throw new Error(`Already defined ${side} bound in index range of ${name} on "${field}".`);
    }
    sides.add(side);
  }
  return range;
}

function outOfOrder(name: string, fields: string[], range: RangeExpression[]): Error {
  const stray = range.find((expression) => ![...fields, "_creationTime"].includes(expression.fieldPath));
  const indexed = `[${[...fields, "_creationTime"].map((field) => `"${field}"`).join(", ")}]`;
  if (stray !== undefined) {
    return new Error(
      `The index range included a comparison with "${stray.fieldPath}", but ${name} with fields ${indexed} doesn't index this field. For more information see https://docs.convex.dev/using/indexes.`,
    );
  }
  const queried = `[${range.map((expression) => `"${expression.fieldPath}"`).join(", ")}]`;
  return new Error(
    `Tried to query index ${name} but the query didn't use the index fields in order.\nIndex fields: ${indexed}\nQuery fields: ${queried}\nFor more information see https://docs.convex.dev/using/indexes.`,
  );
}

function operand(value: Json): Json | undefined {
  return typeof value === "object" && value !== null && "$undefined" in value ? undefined : value;
}

/** Bounds on `_creationTime` or `_id` as bounds on the sequence number: lo inclusive, hi exclusive. */
function sequenceBounds(range: RangeExpression[], field: string, name: string): [number, number] {
  let lo = 0;
  let hi = SEQUENCE_END;
  for (const { type, fieldPath, value } of range) {
    if (fieldPath !== field) {
      throw new Error(
        `The index range included a comparison with "${fieldPath}", but ${name} doesn't index this field there. For more information see https://docs.convex.dev/using/indexes.`,
      );
    }
    const [from, to] = field === "_id" ? idPlace(operand(value), name) : timePlace(operand(value));
    if (type === "Eq" || type === "Gte") lo = Math.max(lo, from);
    if (type === "Gt") lo = Math.max(lo, to);
    if (type === "Eq" || type === "Lte") hi = Math.min(hi, to);
    if (type === "Lt") hi = Math.min(hi, from);
  }
  return [lo, hi];
}

/** The sequence numbers equal to a time: from inclusive, to exclusive; empty at its place when there is none. */
function timePlace(value: Json | undefined): [number, number] {
  const kind = kindOf(value);
  if (kind !== "float64") {
    const below = kind === "undefined" || kind === "null" || kind === "int64";
    return below ? [0, 0] : [SEQUENCE_END, SEQUENCE_END];
  }
  const place = float64Of(value as number | JsonObject) * SEQUENCES_PER_MS;
  if (Number.isNaN(place) || place >= SEQUENCE_END) return [SEQUENCE_END, SEQUENCE_END];
  const from = Math.max(0, Math.ceil(place));
  return [from, Math.max(0, Math.floor(place) + 1)];
}

function idPlace(value: Json | undefined, name: string): [number, number] {
  const id = typeof value === "string" ? decodeId(value) : null;
  if (id === null) throw new Error(`A range of ${name} compares with something that is not an ID.`);
  return [id.sequence, id.sequence + 1];
}
