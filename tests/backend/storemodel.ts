/** The store's model: a list of documents in memory, ordered and compared by npm convex's own rules. */
import { compareValues, jsonToConvex, type Value } from "convex/values";
import type { SerializedQuery } from "../../backend/ranges.ts";
import type { Json, JsonObject } from "../../backend/values.ts";

export const TABLE = "items";

/** Indexes that the schema may have at a time. */
export const SCHEMAS: { indexDescriptor: string; fields: string[] }[][] = [
  [{ indexDescriptor: "by_a", fields: ["a"] }],
  [
    { indexDescriptor: "by_a", fields: ["a"] },
    { indexDescriptor: "by_a_b", fields: ["a", "b"] },
  ],
  [
    { indexDescriptor: "by_a", fields: ["b"] },
    { indexDescriptor: "by_a_b", fields: ["a", "b"] },
  ],
  [],
];

export type Read = {
  type: "read";
  index: string;
  order: "asc" | "desc";
  /** Values that the first fields have. */
  equal: Json[];
  lower: { value: Json; inclusive: boolean } | null;
  upper: { value: Json; inclusive: boolean } | null;
  limit: number;
  /** The index's fields. */
  fields: string[];
};

export type Operation =
  | { type: "insert" | "replace"; k: number; fields: JsonObject }
  | { type: "patch"; k: number; changes: JsonObject }
  | { type: "remove"; k: number }
  | { type: "nested"; operations: Operation[]; kept: boolean }
  | Read;

export type Request =
  | { type: "open"; indexes: { indexDescriptor: string; fields: string[] }[] }
  | { type: "transact"; operations: Operation[]; fail: boolean };

/** A read as npm convex sends it. */
export function rangeOf({ index, order, equal, lower, upper, limit, fields }: Read): SerializedQuery {
  const bounded = fields[equal.length] ?? "_creationTime";
  const range: { type: "Eq" | "Gt" | "Gte" | "Lt" | "Lte"; fieldPath: string; value: Json }[] = equal.map(
    (value, at) => ({ type: "Eq", fieldPath: fields[at] as string, value }),
  );
  if (lower !== null)
    range.push({ type: lower.inclusive ? "Gte" : "Gt", fieldPath: bounded, value: lower.value });
  if (upper !== null)
    range.push({ type: upper.inclusive ? "Lte" : "Lt", fieldPath: bounded, value: upper.value });
  return {
    source: { type: "IndexRange", indexName: `${TABLE}.${index}`, range, order },
    operators: [{ limit }],
  };
}

/** The documents by `k`, in the order in which they were made. */
export type State = ReadonlyMap<number, JsonObject>;

function compare(left: Json | undefined, right: Json | undefined): number {
  const decode = (json: Json | undefined): Value | undefined =>
    json === undefined ? undefined : jsonToConvex(json);
  return compareValues(decode(left), decode(right));
}

function isWithin(value: Json | undefined, { lower, upper }: Read): boolean {
  const above = lower === null ? 1 : compare(value, lower.value);
  const below = upper === null ? -1 : compare(value, upper.value);
  return (
    (above > 0 || (above === 0 && lower?.inclusive === true)) &&
    (below < 0 || (below === 0 && upper?.inclusive === true))
  );
}

function read(state: State, request: Read): JsonObject[] {
  const { fields, equal, order, limit } = request;
  const bounded = fields[equal.length];
  const found = [...state.values()]
    .filter((document) => equal.every((value, at) => compare(document[fields[at] as string], value) === 0))
    .filter((document) => bounded === undefined || isWithin(document[bounded], request))
    .sort((left, right) => {
      for (const field of fields) {
        const difference = compare(left[field], right[field]);
        if (difference !== 0) return difference;
      }
      return (left.k as number) - (right.k as number);
    });
  if (order === "desc") found.reverse();
  return found.slice(0, limit);
}

/** What becomes of a state; `answers` gets what is read on the way. */
export function perform(state: State, operations: Operation[], answers: JsonObject[][]): State {
  let now = new Map(state);
  for (const operation of operations) {
    switch (operation.type) {
      case "insert":
      case "replace":
        now.set(operation.k, { k: operation.k, ...operation.fields });
        break;
      case "patch": {
        const patched = { ...now.get(operation.k), ...operation.changes };
        const kept = Object.entries(patched).filter(
          ([, value]) => JSON.stringify(value) !== '{"$undefined":null}',
        );
        now.set(operation.k, Object.fromEntries(kept));
        break;
      }
      case "remove":
        now.delete(operation.k);
        break;
      case "nested": {
        const inner = perform(now, operation.operations, answers);
        if (operation.kept) now = new Map(inner);
        break;
      }
      case "read":
        answers.push(read(now, operation));
    }
  }
  return now;
}
