/** Index keys and ids, against npm convex's own order and against themselves. */
import fc from "fast-check";
import { compareValues, convexToJson, getConvexSize, type Value } from "convex/values";
import { describe, expect, test } from "vitest";
import { decodeId, newId } from "../../backend/ids.ts";
import { afterPrefix, encodeKey } from "../../backend/keys.ts";
import { sizeOf, type Json } from "../../backend/values.ts";

const text = fc.oneof(
  fc.string(),
  fc.string({ unit: "grapheme" }),
  fc.constantFrom("", "\0", "a\0", "a", "a\0b"),
);
const scalar = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.double(),
  fc.constantFrom(0, -0, NaN, Infinity, -Infinity, Number.MIN_VALUE, 2 ** 53),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  text,
  fc.uint8Array({ maxLength: 6 }).map((bytes) => new Uint8Array(bytes).buffer),
);
const value: fc.Arbitrary<Value> = fc.letrec<{ any: Value }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    scalar as fc.Arbitrary<Value>,
    fc.array(tie("any"), { maxLength: 4 }),
    fc.dictionary(fc.stringMatching(/^[a-c]{0,3}$/), tie("any"), { maxKeys: 3 }),
  ),
})).any;
const optional = fc.oneof(value, fc.constant(undefined));

function key(...values: (Value | undefined)[]): Buffer {
  return encodeKey(values.map((item) => (item === undefined ? undefined : (convexToJson(item) as Json))));
}

describe("index keys", () => {
  test("are ordered as npm convex orders values, across all types and undefined", () => {
    fc.assert(
      fc.property(optional, optional, (left, right) => {
        const order = compareValues(left, right);
        expect(Math.sign(Buffer.compare(key(left), key(right)))).toBe(Math.sign(order));
      }),
      { numRuns: 4000 },
    );
  });

  test("of two fields are ordered by the first, then by the second", () => {
    fc.assert(
      fc.property(optional, optional, optional, optional, (a, b, c, d) => {
        const order = compareValues(a, c) || compareValues(b, d);
        expect(Math.sign(Buffer.compare(key(a, b), key(c, d)))).toBe(Math.sign(order));
      }),
      { numRuns: 1000 },
    );
  });

  test("that begin with a value lie between its key and the end of its prefix, all others outside", () => {
    fc.assert(
      fc.property(optional, optional, optional, (first, second, other) => {
        const prefix = key(first);
        const inside = (found: Buffer): boolean =>
          Buffer.compare(found, prefix) >= 0 && Buffer.compare(found, afterPrefix(prefix)) < 0;
        expect(inside(key(first, second))).toBe(true);
        expect(inside(key(other, second))).toBe(compareValues(first, other) === 0);
      }),
      { numRuns: 1000 },
    );
  });
});

test("sizes are those that npm convex counts", () => {
  fc.assert(
    fc.property(value, (item) => {
      expect(sizeOf(convexToJson(item) as Json)).toBe(getConvexSize(item));
    }),
    { numRuns: 1000 },
  );
});

describe("ids", () => {
  const table = fc.integer({ min: 1, max: 2 ** 32 - 1 });
  const sequence = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

  test("tell their table and sequence number, in 31 to 37 characters", () => {
    fc.assert(
      fc.property(table, sequence, (number, seq) => {
        const id = newId(number, seq);
        expect(id).toMatch(/^[0-9a-hjkmnp-tv-z]{31,37}$/);
        expect(decodeId(id)).toEqual({ table: number, sequence: seq });
      }),
    );
  });

  test("of one table are ordered by sequence number", () => {
    fc.assert(
      fc.property(sequence, sequence, (left, right) => {
        const order = newId(10_001, left) < newId(10_001, right);
        if (left !== right) expect(order).toBe(left < right);
      }),
    );
  });

  test("with any one letter changed are no ids", () => {
    fc.assert(
      fc.property(
        sequence,
        fc.nat(30),
        fc.constantFrom(..."0123456789abcdefghjkmnpqrstvwxyz"),
        (seq, at, letter) => {
          const id = newId(10_001, seq);
          if (id[at] !== letter) expect(decodeId(id.slice(0, at) + letter + id.slice(at + 1))).toBeNull();
        },
      ),
    );
  });

  test("are not junk", () => {
    for (const junk of ["", "hint", "0".repeat(31), "!".repeat(32), "z".repeat(37), "é".repeat(32)]) {
      expect(decodeId(junk)).toBeNull();
    }
  });
});
