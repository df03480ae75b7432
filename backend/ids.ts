/**
 * Document ids in Convex's own format (crates/value/src/id_v6.rs): the table's number as a varint, 16 bytes, a
 * Fletcher-16 checksum, all in Crockford-like base32; 31 to 37 characters.
 *
 * Of the 16 bytes the first 8 are the row's sequence number, the others random. The sequence number is the document's
 * `_creationTime` times 4,096 (see clock.ts): a new row always goes to the end of its table, and id order = creation order.
 */
import { randomFillSync } from "node:crypto";

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const DIGITS = new Map([...ALPHABET].map((letter, digit) => [letter, digit]));
const MIN_LENGTH = 31;
const MAX_LENGTH = 37;
const INTERNAL_BYTES = 16;
const SEQUENCE_BYTES = 8;
const MAX_TABLE_NUMBER = 2 ** 32 - 1;

/** Random bytes are taken from the system in blocks: a call for 8 bytes costs as much as one for 4,096. */
const RANDOM_BLOCK = 4096;
const randomBlock = Buffer.alloc(RANDOM_BLOCK);
let randomUsed = RANDOM_BLOCK;

/** What an id says. */
export type DecodedId = { table: number; sequence: number };

function varint(table: number): number[] {
  const bytes: number[] = [];
  let rest = table;
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return bytes;
}

function fletcher16(bytes: Uint8Array, length: number): number {
  let low = 0;
  let high = 0;
  for (let at = 0; at < length; at++) {
    low = (low + (bytes[at] as number)) % 255;
    high = (high + low) % 255;
  }
  return (high << 8) | low;
}

function base32(bytes: Uint8Array): string {
  let text = "";
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET[(buffer >>> bits) & 31];
    }
    buffer &= (1 << bits) - 1;
  }
  return bits > 0 ? text + ALPHABET[(buffer << (5 - bits)) & 31] : text;
}

function unbase32(text: string): Buffer | null {
  const bytes = Buffer.alloc(Math.floor((text.length * 5) / 8));
  let buffer = 0;
  let bits = 0;
  let at = 0;
  for (const letter of text) {
    const digit = DIGITS.get(letter);
    if (digit === undefined) return null;
    buffer = (buffer << 5) | digit;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (buffer >>> bits) & 255;
      buffer &= (1 << bits) - 1;
    }
  }
  // one id has one spelling: what is left over of the last letter must be zero
  return buffer === 0 ? bytes : null;
}

/** Makes an id from a table number and 16 bytes. */
function encode(table: number, internal: Uint8Array): string {
  const head = varint(table);
  const bytes = new Uint8Array(head.length + INTERNAL_BYTES + 2);
  bytes.set(head);
  bytes.set(internal, head.length);
  const footer = fletcher16(bytes, head.length + INTERNAL_BYTES);
  bytes[bytes.length - 2] = footer & 255;
  bytes[bytes.length - 1] = footer >> 8;
  return base32(bytes);
}

/** A new id for row `sequence` (a whole number up to 2^53) of a table. */
export function newId(table: number, sequence: number): string {
  if (randomUsed + SEQUENCE_BYTES > RANDOM_BLOCK) {
    randomFillSync(randomBlock);
    randomUsed = 0;
  }
  const internal = Buffer.alloc(INTERNAL_BYTES);
  internal.writeUInt32BE(Math.floor(sequence / 2 ** 32), 0);
  internal.writeUInt32BE(sequence % 2 ** 32, 4);
  randomBlock.copy(internal, SEQUENCE_BYTES, randomUsed, randomUsed + SEQUENCE_BYTES);
  randomUsed += SEQUENCE_BYTES;
  return encode(table, internal);
}

/** Reads an id; null for anything that is not one in its only spelling. */
export function decodeId(text: string): DecodedId | null {
  if (text.length < MIN_LENGTH || text.length > MAX_LENGTH) return null;
  const bytes = unbase32(text);
  if (bytes === null) return null;
  let table = 0;
  let at = 0;
  for (let scale = 1; ; scale *= 0x80) {
    const byte = bytes[at++] as number;
    table += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
    if (at === 5) return null;
  }
  if (table === 0 || table > MAX_TABLE_NUMBER || bytes.length !== at + INTERNAL_BYTES + 2) return null;
  if (bytes.readUInt16LE(at + INTERNAL_BYTES) !== fletcher16(bytes, at + INTERNAL_BYTES)) return null;
  if (varint(table).length !== at) return null;
  return { table, sequence: bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4) };
}
