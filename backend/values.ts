/**
 * Convex values as they travel: JSON with `$integer`, `$float` and `$bytes` objects (the "encoded" form of
 * npm convex's values/value.ts). Documents are stored, compared, validated and sent in this form, so that a value is
 * decoded only inside a function, by the convex package itself.
 */

export type Json = null | boolean | number | string | Json[] | JsonObject;
export type JsonObject = { [key: string]: Json };

/** What a JSON value is as a Convex value; `undefined` is a missing field. */
export type Kind =
  "undefined" | "null" | "int64" | "float64" | "boolean" | "string" | "bytes" | "array" | "object";

/** Deepest nesting of a value that Convex accepts anywhere (crates/value/src/size.rs). */
export const MAX_VALUE_NESTING = 64;
/** Longest name of a field, in characters (values/value.ts). */
const MAX_FIELD_NAME = 1024;

const MIN_INT64 = -(2n ** 63n);
const MAX_INT64 = 2n ** 63n - 1n;

/** The kind of an encoded value. A one-key object named `$integer`, `$float` or `$bytes` is a scalar. */
export function kindOf(value: Json | undefined): Kind {
  switch (typeof value) {
    case "undefined":
      return "undefined";
    case "number":
      return "float64";
    case "boolean":
      return "boolean";
    case "string":
      return "string";
    default:
  }
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if ("$integer" in value) return "int64";
  if ("$float" in value) return "float64";
  if ("$bytes" in value) return "bytes";
  return "object";
}

/** The bigint behind `{"$integer": base64}`. */
export function int64Of(value: JsonObject): bigint {
  return Buffer.from(value.$integer as string, "base64").readBigInt64LE(0);
}

/** `{"$integer": base64}` for a bigint; the caller keeps it within 64 bits. */
export function encodeInt64(value: bigint): JsonObject {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(value);
  return { $integer: bytes.toString("base64") };
}

/** Whether a bigint fits Convex's int64. */
export function fitsInt64(value: bigint): boolean {
  return value >= MIN_INT64 && value <= MAX_INT64;
}

/** The number behind a float64 in either form. */
export function float64Of(value: number | JsonObject): number {
  return typeof value === "number" ? value : Buffer.from(value.$float as string, "base64").readDoubleLE(0);
}

/** A float64 in encoded form: NaN, the infinities and -0 become `$float`. */
export function encodeFloat64(value: number): Json {
  if (Number.isFinite(value) && !Object.is(value, -0)) return value;
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return { $float: bytes.toString("base64") };
}

/** The bytes behind `{"$bytes": base64}`. */
export function bytesOf(value: JsonObject): Buffer {
  return Buffer.from(value.$bytes as string, "base64");
}

/**
 * Size in bytes as Convex counts it (npm convex's values/size.ts), of an encoded value.
 */
export function sizeOf(value: Json | undefined): number {
  switch (typeof value) {
    case "undefined":
      return 0;
    case "number":
      return 9;
    case "boolean":
      return 1;
    case "string":
      return 2 + Buffer.byteLength(value);
    default:
  }
  if (value === null) return 1;
  let size = 2;
  if (Array.isArray(value)) {
    for (const item of value) size += sizeOf(item);
    return size;
  }
  const kind = kindOf(value);
  if (kind === "int64" || kind === "float64") return 9;
  if (kind === "bytes") return 2 + bytesOf(value).length;
  for (const key in value) size += key.length + 1 + sizeOf(value[key]);
  return size;
}

/** How deep a value nests: 0 for a scalar, 1 for an array of scalars. */
export function nestingOf(value: Json): number {
  if (typeof value !== "object" || value === null) return 0;
  if (!Array.isArray(value) && kindOf(value) !== "object") return 0;
  let deepest = 0;
  for (const item of Array.isArray(value) ? value : Object.values(value)) {
    deepest = Math.max(deepest, nestingOf(item));
  }
  return deepest + 1;
}

function base64Length(text: Json | undefined): number {
  return typeof text === "string" && /^[A-Za-z0-9+/]*={0,2}$/.test(text)
    ? Buffer.from(text, "base64").length
    : -1;
}

function checkScalarObject(value: JsonObject): string | null {
  if ("$integer" in value) {
    return base64Length(value.$integer) === 8 ? null : "Malformed $integer: expected 8 bytes in base64";
  }
  if ("$float" in value) {
    if (base64Length(value.$float) !== 8) return "Malformed $float: expected 8 bytes in base64";
    const float = float64Of(value);
    if (!Number.isFinite(float) || Object.is(float, -0)) return null;
    return `Float ${float} should be encoded as a number`;
  }
  return base64Length(value.$bytes) >= 0 ? null : "Malformed $bytes: expected base64";
}

/**
 * Checks that JSON from outside is a well-formed encoded value.
 *
 * @returns null, or a sentence that says what is wrong.
 */
export function problemOf(value: Json, depth = 0): string | null {
  if (typeof value === "string" && !value.isWellFormed()) {
    return "String has one half of a surrogate pair alone, which is no character: was it cut in the middle of one?";
  }
  if (typeof value !== "object" || value === null) return null;
  if (depth >= MAX_VALUE_NESTING) {
    return `Value is too nested (nested ${depth + 1} levels deep > maximum nesting ${MAX_VALUE_NESTING})`;
  }
  if (Array.isArray(value)) {
    for (const item of value) {
      const problem = problemOf(item, depth + 1);
      if (problem !== null) return problem;
    }
    return null;
  }
  const keys = Object.keys(value);
  for (const key of keys) {
    if (key.startsWith("$")) {
      if (keys.length === 1 && (key === "$integer" || key === "$float" || key === "$bytes")) {
        return checkScalarObject(value);
      }
      return `Field name ${key} starts with a '$', which is reserved.`;
    }
    if (key.length > MAX_FIELD_NAME) {
      return `Field name ${key} exceeds maximum field name length ${MAX_FIELD_NAME}.`;
    }
    if (!/^[\x20-\x7e]*$/.test(key)) {
      return `Field name ${key} has an invalid character: Field names can only contain non-control ASCII characters`;
    }
    const problem = problemOf(value[key] as Json, depth + 1);
    if (problem !== null) return problem;
  }
  return null;
}

/** The value at a dotted path of a document, undefined when any part is missing. */
export function fieldAt(document: JsonObject, path: readonly string[]): Json | undefined {
  let value: Json | undefined = document;
  for (const name of path) {
    if (kindOf(value) !== "object") return undefined;
    const holder: JsonObject = value as JsonObject;
    value = Object.hasOwn(holder, name) ? holder[name] : undefined;
  }
  return value;
}

/**
 * A value for people, as Convex prints it in validation messages: `{a: 1.0, b: "x"}`.
 */
export function show(value: Json | undefined): string {
  switch (kindOf(value)) {
    case "undefined":
      return "undefined";
    case "int64":
      return String(int64Of(value as JsonObject));
    case "float64":
      return showFloat(float64Of(value as number | JsonObject));
    case "bytes":
      return `b"${bytesOf(value as JsonObject).toString("hex")}"`;
    case "array":
      return `[${(value as Json[]).map(show).join(", ")}]`;
    case "object": {
      const object = value as JsonObject;
      const keys = Object.keys(object).sort();
      return `{${keys.map((key) => `${key}: ${show(object[key])}`).join(", ")}}`;
    }
    default:
      return JSON.stringify(value);
  }
}

function showFloat(value: number): string {
  if (Number.isInteger(value)) return Object.is(value, -0) ? "-0.0" : `${value}.0`;
  return Number.isFinite(value) ? String(value) : value > 0 ? "inf" : value < 0 ? "-inf" : "NaN";
}
