/**
 * The ways in which a caller over HTTP may have values written (crates/value/src/export.rs of Convex).
 * Whole float64 numbers are always written with a fraction, `2.0`: Convex's Python client refuses JSON integers.
 */
import { bytesOf, float64Of, int64Of, kindOf, type Json, type JsonObject } from "./values.ts";

export type Format = "json" | "convex_encoded_json" | "export_json";

const NAMES: Record<string, Format> = {
  json: "json",
  convex_clean_json: "json",
  convex_encoded_json: "convex_encoded_json",
  convex_json: "convex_encoded_json",
  export_json: "export_json",
};

/** The format a caller named, or null for a word that Convex does not know. */
export function formatNamed(name: string): Format | null {
  return Object.hasOwn(NAMES, name) ? (NAMES[name] as Format) : null;
}

/**
 * Writes an encoded value as JSON text in the given format.
 *
 * `json` is lossy: int64 as decimal text, bytes as base64, NaN and the infinities as words. `export_json` writes int64 as
 * a JSON integer. `convex_encoded_json` is the encoded form itself.
 */
export function writeValue(value: Json, format: Format): string {
  switch (kindOf(value)) {
    case "float64":
      return writeFloat(value as number | JsonObject, format);
    case "int64":
      if (format === "convex_encoded_json") return JSON.stringify(value);
      return format === "json" ? `"${int64Of(value as JsonObject)}"` : String(int64Of(value as JsonObject));
    case "bytes":
      return format === "convex_encoded_json"
        ? JSON.stringify(value)
        : `"${bytesOf(value as JsonObject).toString("base64")}"`;
    case "array":
      return `[${(value as Json[]).map((item) => writeValue(item, format)).join(",")}]`;
    case "object": {
      const parts: string[] = [];
      for (const [key, item] of Object.entries(value as JsonObject)) {
        parts.push(`${JSON.stringify(key)}:${writeValue(item, format)}`);
      }
      return `{${parts.join(",")}}`;
    }
    default:
      return JSON.stringify(value);
  }
}

function writeFloat(value: number | JsonObject, format: Format): string {
  const float = float64Of(value);
  if (Number.isInteger(float) && !Object.is(float, -0)) {
    const text = String(float);
    return text.includes("e") ? text : `${text}.0`;
  }
  if (format === "convex_encoded_json") return JSON.stringify(value);
  if (Object.is(float, -0)) return "-0.0";
  return Number.isFinite(float) ? String(float) : `"${float}"`;
}
