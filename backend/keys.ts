/**
 * Index keys: byte strings whose order (memcmp, SQLite's BLOB order) is Convex's order of values:
 * undefined < null < int64 < float64 < boolean < string < bytes < array < object (npm convex's values/compare.ts).
 *
 * No encoded value is a prefix of another, so the documents whose first fields equal some values are exactly the keys that
 * begin with the encoding of these values.
 */
import { bytesOf, float64Of, int64Of, kindOf, type Json, type JsonObject } from "./values.ts";

const TAG = {
  undefined: 0x10,
  null: 0x18,
  int64: 0x20,
  float64: 0x28,
  false: 0x30,
  true: 0x31,
  string: 0x38,
  bytes: 0x40,
  array: 0x48,
  object: 0x50,
} as const;

/** Ends an array or an object: below every tag, so that the shorter one comes first. */
const END = 0x00;
/** A zero byte inside text is written 00 FF, the end of text 00 01: shorter text comes first, and no key is a prefix. */
const ZERO_ESCAPE = 0xff;
const TEXT_END = 0x01;

/** First bytes reserved for a key before it has to grow: most keys are an identifier and a number or two. */
const INITIAL_BYTES = 256;

/** Above every key: tags are smaller. */
export const KEY_MAX: Buffer = Buffer.from([0xff]);
/** Below every key. */
export const KEY_MIN: Buffer = Buffer.alloc(0);

let scratch = Buffer.alloc(INITIAL_BYTES);
let used = 0;

function reserve(bytes: number): void {
  if (used + bytes <= scratch.length) return;
  const larger = Buffer.alloc(Math.max(scratch.length * 2, used + bytes));
  scratch.copy(larger, 0, 0, used);
  scratch = larger;
}

function put(byte: number): void {
  reserve(1);
  scratch[used++] = byte;
}

function putFloat(value: number): void {
  reserve(8);
  scratch.writeDoubleBE(value, used);
  // IEEE 754 order as unsigned bytes: flip all bits of negatives, only the sign of the others
  if ((scratch[used] as number) & 0x80) {
    for (let at = used; at < used + 8; at++) scratch[at] = ~(scratch[at] as number) & 0xff;
  } else {
    scratch[used] = (scratch[used] as number) | 0x80;
  }
  used += 8;
}

function putInt(value: bigint): void {
  reserve(8);
  scratch.writeBigUInt64BE(BigInt.asUintN(64, value) ^ (1n << 63n), used);
  used += 8;
}

function putText(bytes: Uint8Array): void {
  reserve(bytes.length * 2 + 2);
  for (const byte of bytes) {
    scratch[used++] = byte;
    if (byte === 0) scratch[used++] = ZERO_ESCAPE;
  }
  scratch[used++] = 0;
  scratch[used++] = TEXT_END;
}

function putString(text: string): void {
  put(TAG.string);
  if (text.includes("\0")) {
    putText(Buffer.from(text));
    return;
  }
  reserve(text.length * 3 + 2);
  used += scratch.write(text, used);
  scratch[used++] = 0;
  scratch[used++] = TEXT_END;
}

function putValue(value: Json | undefined): void {
  const kind = kindOf(value);
  switch (kind) {
    case "undefined":
    case "null":
      put(TAG[kind]);
      return;
    case "boolean":
      put(value === true ? TAG.true : TAG.false);
      return;
    case "string":
      putString(value as string);
      return;
    case "float64":
      put(TAG.float64);
      putFloat(float64Of(value as number | JsonObject));
      return;
    case "int64":
      put(TAG.int64);
      putInt(int64Of(value as JsonObject));
      return;
    case "bytes":
      put(TAG.bytes);
      putText(bytesOf(value as JsonObject));
      return;
    case "array":
      put(TAG.array);
      for (const item of value as Json[]) putValue(item);
      put(END);
      return;
    case "object": {
      const object = value as JsonObject;
      put(TAG.object);
      for (const key of Object.keys(object).sort()) {
        putString(key);
        putValue(object[key]);
      }
      put(END);
    }
  }
}

/** The key of a row: its indexed values one after another. A missing field is `undefined`. */
export function encodeKey(values: readonly (Json | undefined)[]): Buffer {
  used = 0;
  for (const value of values) putValue(value);
  return Buffer.from(scratch.subarray(0, used));
}

/**
 * The smallest key that is greater than every key beginning with `prefix`; KEY_MAX when there is none.
 */
export function afterPrefix(prefix: Buffer): Buffer {
  let end = prefix.length;
  while (end > 0 && prefix[end - 1] === 0xff) end--;
  if (end === 0) return KEY_MAX;
  const next = Buffer.from(prefix.subarray(0, end));
  next[end - 1] = (next[end - 1] as number) + 1;
  return next;
}

/** Convex's order of two values: negative, 0 or positive. */
export function compareValues(left: Json | undefined, right: Json | undefined): number {
  if (typeof left === "string" && left === right) return 0;
  return Buffer.compare(encodeKey([left]), encodeKey([right]));
}
