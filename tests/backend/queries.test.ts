/** Index ranges, filters and pages of a real backend, through npm convex's HTTP client. */
import { ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { compareValues, type Value } from "convex/values";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startBackend, type Backend } from "./server.ts";

const fill = makeFunctionReference<"mutation">("values:fill");
const clear = makeFunctionReference<"mutation">("values:clear");
const sorted = makeFunctionReference<"query", { descending: boolean }, number[]>("values:sorted");
const between = makeFunctionReference<
  "query",
  { lower: Value[]; upper: Value[]; inclusive: boolean },
  number[]
>("values:between");
const where = makeFunctionReference<"query", { tree: unknown }, number[]>("filters:where");
const page = makeFunctionReference<
  "query",
  { size: number; cursor: string | null; descending?: boolean },
  { page: string[]; isDone: boolean; continueCursor: string }
>("notes:page");

let backend: Backend;
let client: ConvexHttpClient;
beforeAll(async () => {
  backend = await startBackend();
  client = new ConvexHttpClient(backend.url);
});
afterAll(() => backend.end());

/** One of every kind, and the corners of each. */
const VALUES: Value[] = [
  ...[null, -5n, 0n, 2n ** 63n - 1n, -Infinity, -1.5, -0, 0, 2, Infinity, NaN, false, true],
  ...["", "\0", "a", "a\0b", "aa", "é", "😀", new Uint8Array([]).buffer, new Uint8Array([0, 1]).buffer],
  ...[[], [null], [1, 2], ["a"], {}, { a: 1 }, { a: 1, b: null }, { b: 0 }],
];
const MISSING = 2;

describe("an index over values of every kind", () => {
  beforeAll(() => client.mutation(fill, { values: [...VALUES].reverse(), missing: MISSING }));
  const place = (value: Value): number =>
    VALUES.length - 1 - VALUES.findIndex((other) => Object.is(value, other));

  test("is read in Convex's order, missing fields first, and backwards", async () => {
    const expected = [...Array.from({ length: MISSING }, () => -1), ...VALUES.map(place)];
    expect(await client.query(sorted, { descending: false })).toEqual(expected);
    expect(await client.query(sorted, { descending: true })).toEqual([...expected].reverse());
  });

  test("gives exactly the range that was asked for", async () => {
    const bound = fc.option(fc.constantFrom(...VALUES), { nil: undefined });
    await fc.assert(
      fc.asyncProperty(bound, bound, fc.boolean(), async (lower, upper, inclusive) => {
        const least = inclusive ? 0 : 1;
        const expected = VALUES.filter(
          (value) =>
            (lower === undefined || compareValues(value, lower) >= least) &&
            (upper === undefined || compareValues(upper, value) >= least),
        ).map(place);
        const found = await client.query(between, {
          lower: lower === undefined ? [] : [lower],
          upper: upper === undefined ? [] : [upper],
          inclusive,
        });
        const missing = lower === undefined ? Array.from({ length: MISSING }, () => -1) : [];
        expect(found).toEqual([...missing, ...expected]);
      }),
      { numRuns: 60 },
    );
  });

  test.each([
    ["eq", (order: number) => order === 0],
    ["neq", (order: number) => order !== 0],
    ["lt", (order: number) => order < 0],
    ["lte", (order: number) => order <= 0],
    ["gt", (order: number) => order > 0],
    ["gte", (order: number) => order >= 0],
  ])("can be filtered with %s across kinds, missing fields included", async (operator, holds) => {
    const values = [...VALUES, ...Array.from({ length: MISSING }, () => undefined)];
    for (const operand of VALUES.filter((_, position) => position % 3 === 0)) {
      const expected = values.filter((value) => holds(compareValues(value, operand)));
      const tree = [operator, ["field", "value"], ["value", operand]];
      const found = await client.query(where, { tree });
      expect([...found].sort()).toEqual(
        expected.map((value) => (value === undefined ? -1 : place(value))).sort(),
      );
    }
  });

  test("can be emptied, and is empty then", async () => {
    await client.mutation(clear, {});
    expect(await client.query(sorted, { descending: false })).toEqual([]);
  });
});

test("an index over a field of a nested object finds its document", async () => {
  await backend.call("mutation", "notes:addPerson", { name: "Ada", mail: "ada@example.org" });
  await backend.call("mutation", "notes:addPerson", { name: "Bob" });
  expect((await backend.call("query", "notes:personByMail", { mail: "ada@example.org" })).value).toBe("Ada");
});

describe("pages", () => {
  beforeEach(async () => {
    for (const { _id } of (await backend.call("query", "notes:list")).value as { _id: string }[]) {
      await backend.call("mutation", "notes:remove", { id: _id });
    }
    // two with the same key: a cursor between them must not skip one
    for (const [text, stars] of Object.entries({ a: 1, b: 2, c: 2, d: 3, e: 4 })) {
      await backend.call("mutation", "notes:add", { text, stars });
    }
  });

  test.each([
    ["forwards", false, ["ab", "cd", "e"]],
    ["backwards", true, ["ed", "cb", "a"]],
  ])("go through everything once, %s", async (_name, descending, expected) => {
    const pages: string[] = [];
    let cursor: string | null = null;
    for (let isDone = false; !isDone;) {
      const found: { page: string[]; isDone: boolean; continueCursor: string } = await client.query(page, {
        ...{ size: 2, cursor, descending },
      });
      if (found.page.length > 0) pages.push(found.page.join(""));
      ({ isDone, continueCursor: cursor } = found);
    }
    expect(pages).toEqual(expected);
  });

  test("go on at the right place when rows came and went", async () => {
    const first = await client.query(page, { size: 2, cursor: null });
    const notes = (await backend.call("query", "notes:list")).value as { _id: string; text: string }[];
    const id = notes.find(({ text }) => text === "b")?._id;
    await backend.call("mutation", "notes:remove", { id });
    await backend.call("mutation", "notes:add", { text: "early", stars: 0 });
    const second = await client.query(page, { size: 2, cursor: first.continueCursor });
    expect(second.page).toEqual(["c", "d"]);
  });

  test("refuse a cursor of another query", async () => {
    const first = await client.query(page, { size: 2, cursor: null });
    const other = { size: 2, cursor: first.continueCursor, descending: true };
    await expect(client.query(page, other)).rejects.toThrow("InvalidCursor");
  });

  test("stop at a range's end", async () => {
    expect((await backend.call("query", "notes:withStars", { from: 2, to: 4 })).value).toEqual([
      "b",
      "c",
      "d",
    ]);
  });
});
