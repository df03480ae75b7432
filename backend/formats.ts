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

const [QUOTE, BACKSLASH, MINUS, ZERO, NINE] = ['"', "\\", "-", "0", "9"].map((sign) =>
  sign.charCodeAt(0),
) as [number, number, number, number, number];
/** Signs that a number has only when it is no whole one, or has an exponent. */
const PARTS = new Set([".", "e", "+", "-"].map((sign) => sign.charCodeAt(0)));

/**
 * Writes the JSON text of an encoded value in the given format: as `writeValue` of the parsed text does, several times as fast
 * on long ones.
 *
 * @param text as JSON.stringify writes it.
 */
export function rewrite(text: string, format: Format): string {
  // in a string the quote would have a backslash before it: without int64, bytes and special floats only whole numbers differ
  return text.includes('{"$') ? writeValue(JSON.parse(text) as Json, format) : markFloats(text);
}

/** Puts `.0` behind every whole number of a JSON text. */
function markFloats(text: string): string {
  let marked = "";
  let copied = 0;
  for (let at = 0; at < text.length;) {
    const sign = text.charCodeAt(at++);
    if (sign === QUOTE) {
      for (let inside = text.charCodeAt(at++); inside !== QUOTE; inside = text.charCodeAt(at++)) {
        if (inside === BACKSLASH) at++;
      }
    } else if (sign === MINUS || (sign >= ZERO && sign <= NINE)) {
      let whole = true;
      for (let next = text.charCodeAt(at); ; next = text.charCodeAt(++at)) {
        if (PARTS.has(next)) whole = false;
        else if (!(next >= ZERO && next <= NINE)) break;
      }
      if (!whole) continue;
      marked += `${text.slice(copied, at)}.0`;
      copied = at;
    }
  }
  return marked + text.slice(copied);
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
