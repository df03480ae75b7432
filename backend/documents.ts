/**
 * What may be stored: names of tables, shape, size and schema of documents, with Convex's sentences.
 */
import { MAX_ARRAY_LENGTH, MAX_DOCUMENT_FIELDS, MAX_DOCUMENT_NESTING } from "./limits.ts";
import type { Check } from "./validate.ts";
import { encodeInt64, nestingOf, problemOf, type Json, type JsonObject } from "./values.ts";

const TABLE_NAME = /^[a-zA-Z][a-zA-Z0-9_]{0,63}$/;

/** Refuses a table's name as Convex does. */
export function checkTableName(name: string): void {
  if (!TABLE_NAME.test(name)) {
    throw new Error(
      name.startsWith("_")
        ? `Invalid table name ${name} starts with metadata prefix '_'`
        : `Invalid table name ${name}: table names begin with a letter and have at most 64 letters, digits and underscores`,
    );
  }
}

/**
 * Checks a document's value, and resolves commit timestamps in it.
 *
 * @param ts the timestamp that the mutation commits at.
 * @param check the schema's check of the table's documents, undefined when anything goes.
 * @returns a copy, system fields included where they were given.
 * @throws Error with Convex's sentence.
 */
export function checkDocument(
  value: Json,
  tableName: string,
  ts: bigint,
  check: Check | undefined,
): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`Value for table ${tableName} must be an object.`);
  }
  const body = resolveCommitTs(value, ts) as JsonObject;
  const problem = problemOf(body);
  if (problem !== null) throw new Error(problem);
  const fields: JsonObject = {};
  let count = 0;
  for (const name in body) {
    const system = name === "_id" || name === "_creationTime";
    if (name.startsWith("_") && !system) {
      throw new Error(
        `Field '${name}' starts with an underscore, which is only allowed for system fields like '_id'`,
      );
    }
    if (!system) fields[name] = body[name] as Json;
    count++;
  }
  if (count > MAX_DOCUMENT_FIELDS) {
    throw new Error(`Object has too many fields (${count} > maximum number ${MAX_DOCUMENT_FIELDS})`);
  }
  checkShape(body);
  const refusal = check?.(fields);
  if (refusal) {
    throw new Error(
      `Failed to insert or update a document in table "${tableName}" because it does not match the schema: ${refusal}`,
    );
  }
  return body;
}

/** Refuses a system table through `ctx.db`, and a user table through `ctx.db.system`. */
export function checkSystem(tableName: string, system: boolean): void {
  if (tableName.startsWith("_") === system) return;
  throw new Error(
    system
      ? "User tables cannot be accessed with db.system."
      : "System tables can only be accessed with db.system.",
  );
}

/** Whether a patch means that the field be removed. */
export function isUndefinedMark(value: Json | undefined): boolean {
  return typeof value === "object" && value !== null && "$undefined" in value;
}

function checkShape(body: JsonObject): void {
  const nesting = nestingOf(body);
  if (nesting > MAX_DOCUMENT_NESTING) {
    throw new Error(
      `Document is too nested (nested ${nesting} levels deep > maximum nesting ${MAX_DOCUMENT_NESTING})`,
    );
  }
  for (const value of Object.values(body)) checkArrays(value);
}

function checkArrays(value: Json): void {
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value) && value.length > MAX_ARRAY_LENGTH) {
    throw new Error(`Array length is too long (${value.length} > maximum length ${MAX_ARRAY_LENGTH})`);
  }
  for (const item of Object.values(value)) checkArrays(item as Json);
}

/** Mutations run one after another, so that the commit timestamp is known while they run: `db.vars.commitTs` is it. */
function resolveCommitTs(value: Json, ts: bigint): Json {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => resolveCommitTs(item, ts));
  if ("$commitTs" in value) return encodeInt64(ts);
  // by definition, not by assignment: a field named __proto__ must not become the copy's prototype
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, resolveCommitTs(item, ts)]));
}
