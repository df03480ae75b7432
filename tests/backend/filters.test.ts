/** `.filter(...)` and index ranges: every operator, every form, with Convex's sentences for what cannot be. */
import { ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import type { Value } from "convex/values";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBackend, type Backend } from "./server.ts";

type Tree = [operator: string, ...operands: unknown[]];
type Bound = [method: string, field: string, value?: Value];

const put = makeFunctionReference<"mutation", { document: Value }, string>("values:put");
const where = makeFunctionReference<"query", { tree: Tree }, number[]>("filters:where");
const inRange = makeFunctionReference<
  "query",
  { index: string; range: Bound[]; descending?: boolean },
  number[]
>("filters:inRange");

let backend: Backend;
let client: ConvexHttpClient;
/** Ids and creation times by position. */
const ids: string[] = [];
const times: number[] = [];
beforeAll(async () => {
  backend = await startBackend();
  client = new ConvexHttpClient(backend.url);
  for (const [position, document] of DOCUMENTS.entries()) {
    const id = await client.mutation(put, { document: { position, ...document } });
    const { value } = await backend.call("query", "values:get", { id });
    ids.push(id);
    times.push((value as { _creationTime: number })._creationTime);
  }
});
afterAll(() => backend.end());

/** Sorted by (value, b) already, so that a position is a place in the index. */
const DOCUMENTS: { value?: Value; b?: Value; n?: { deep: Value } }[] = [
  { b: 1 },
  { value: null, b: 1 },
  { value: 7n },
  { value: 1, b: 1, n: { deep: true } },
  { value: 1, b: 2, n: { deep: false } },
  { value: 1, b: 2 },
  { value: 1, b: 3 },
  { value: 5, b: 0 },
  { value: "x", b: 1 },
];

const field: Tree = ["field", "value"];
const b: Tree = ["field", "b"];
const value = (given: Value): Tree => ["value", given];
/** Documents whose `value` is a number: arithmetic works on them alone. */
const numbersOnly = (tree: Tree): Tree => ["and", ["gt", field, value(0)], ["lt", field, value(false)], tree];

describe("a filter", () => {
  test.each<[string, Tree, number[]]>([
    ["a missing field", ["eq", field, ["missing"]], [0]],
    ["a field inside of another", ["eq", ["field", "n.deep"], value(true)], [3]],
    [
      "a field inside of what is no object",
      ["eq", ["field", "value.deep"], ["missing"]],
      [0, 1, 2, 3, 4, 5, 6, 7, 8],
    ],
    ["two fields", ["eq", field, b], [3]],
    ["_creationTime", ["gt", ["field", "_creationTime"], value(0)], [0, 1, 2, 3, 4, 5, 6, 7, 8]],
    ["add", numbersOnly(["eq", ["add", field, b], value(3)]), [4, 5]],
    ["sub", numbersOnly(["eq", ["sub", field, b], value(5)]), [7]],
    ["mul", numbersOnly(["eq", ["mul", b, value(2)], value(4)]), [4, 5]],
    ["div", numbersOnly(["eq", ["div", b, value(2)], value(0.5)]), [3]],
    ["div by zero", numbersOnly(["eq", ["div", field, b], value(Infinity)]), [7]],
    ["mod", numbersOnly(["eq", ["mod", b, value(2)], value(1)]), [3, 6]],
    ["neg", numbersOnly(["eq", ["neg", b], value(-2)]), [4, 5]],
    ["int64 arithmetic", ["eq", ["sub", ["mul", value(3n), value(5n)], value(8n)], field], [2]],
    [
      "int64 division, to zero",
      ["and", ["eq", ["div", value(-15n), value(2n)], value(-7n)], ["eq", b, value(0)]],
      [7],
    ],
    ["int64 remainder", ["eq", ["add", ["mod", value(-15n), value(8n)], value(14n)], field], [2]],
    ["and", ["and", ["eq", field, value(1)], ["eq", b, value(2)]], [4, 5]],
    ["and of nothing", ["and"], [0, 1, 2, 3, 4, 5, 6, 7, 8]],
    ["or", ["or", ["eq", field, value(5)], ["eq", b, value(3)]], [6, 7]],
    ["or of nothing", ["or"], []],
    ["not", ["not", ["lt", field, value("a")]], [8]],
    ["and, that stops at the first that does not hold", ["and", value(false), ["neg", value("x")]], []],
    [
      "or, that stops at the first that holds",
      ["and", ["or", value(true), ["neg", value("x")]], ["eq", field, value("x")]],
      [8],
    ],
    ["a boolean by itself", ["and", ["eq", b, value(0)], value(true)], [7]],
  ])("knows %s", async (_name, tree, expected) => {
    expect(await client.query(where, { tree })).toEqual(expected);
  });

  test.each<[string, Tree, string]>([
    [
      "adds a number and a text",
      ["eq", ["add", value(1), value("x")], value(1)],
      'Cannot add 1.0 (type float64) and "x" (type string)',
    ],
    [
      "mixes int64 and float64",
      ["eq", ["mul", value(1n), value(1)], value(1)],
      "Cannot multiply 1 (type int64) and 1.0 (type float64)",
    ],
    [
      "adds to what is missing",
      ["eq", ["add", ["field", "none"], value(1)], value(1)],
      "Cannot add undefined (type undefined)",
    ],
    ["negates a text", ["eq", ["neg", value("x")], value(1)], 'Cannot negate "x" (type string)'],
    ["divides an int64 by zero", ["eq", ["div", value(1n), value(0n)], value(1n)], "Cannot divide"],
    ["leaves int64", ["eq", ["add", value(2n ** 63n - 1n), value(1n)], value(1n)], "out of range for Int64"],
    ["is no boolean", ["and", field], "boolean"],
  ])("that %s fails with a sentence", async (_name, tree, sentence) => {
    await expect(client.query(where, { tree })).rejects.toThrow(sentence);
  });
});

describe("an index range", () => {
  const index = "by_value_and_b";
  test.each<[string, Bound[], number[]]>([
    ["nothing", [], [0, 1, 2, 3, 4, 5, 6, 7, 8]],
    ["eq on the first field", [["eq", "value", 1]], [3, 4, 5, 6]],
    ["eq with a missing field", [["eq", "value"]], [0]],
    ["eq with null", [["eq", "value", null]], [1]],
    [
      "eq on both",
      [
        ["eq", "value", 1],
        ["eq", "b", 2],
      ],
      [4, 5],
    ],
    [
      "eq and gt",
      [
        ["eq", "value", 1],
        ["gt", "b", 1],
      ],
      [4, 5, 6],
    ],
    [
      "eq and gte with lt",
      [
        ["eq", "value", 1],
        ["gte", "b", 1],
        ["lt", "b", 3],
      ],
      [3, 4, 5],
    ],
    [
      "eq and gt with lte",
      [
        ["eq", "value", 1],
        ["gt", "b", 1],
        ["lte", "b", 2],
      ],
      [4, 5],
    ],
    ["gt on the first field", [["gt", "value", 1]], [7, 8]],
    [
      "gte with lte",
      [
        ["gte", "value", 7n],
        ["lte", "value", 1],
      ],
      [2, 3, 4, 5, 6],
    ],
    ["lt, missing and null included", [["lt", "value", 1]], [0, 1, 2]],
    [
      "gt what is missing",
      [
        ["gt", "value"],
        ["lt", "value", 7n],
      ],
      [1],
    ],
    [
      "bounds that hold nothing",
      [
        ["gt", "value", 5],
        ["lt", "value", 1],
      ],
      [],
    ],
  ])("knows %s", async (_name, range, expected) => {
    expect(await client.query(inRange, { index, range })).toEqual(expected);
    const backwards = await client.query(inRange, { index, range, descending: true });
    expect(backwards).toEqual([...expected].reverse());
  });

  test("goes on with _creationTime when all its fields are fixed", async () => {
    const fixed: Bound[] = [
      ["eq", "value", 1],
      ["eq", "b", 2],
    ];
    const after = await client.query(inRange, {
      index,
      range: [...fixed, ["gt", "_creationTime", times[4] as number]],
    });
    expect(after).toEqual([5]);
    const upTo = await client.query(inRange, {
      index,
      range: [...fixed, ["lte", "_creationTime", times[4] as number]],
    });
    expect(upTo).toEqual([4]);
  });

  test("may be one of creation time, or of the id", async () => {
    const between: Bound[] = [
      ["gt", "_creationTime", times[2] as number],
      ["lt", "_creationTime", times[5] as number],
    ];
    expect(await client.query(inRange, { index: "by_creation_time", range: between })).toEqual([3, 4]);
    const exactly: Bound[] = [["eq", "_id", ids[6] as string]];
    expect(await client.query(inRange, { index: "by_id", range: exactly })).toEqual([6]);
  });

  test.each<[string, string, Bound[], string]>([
    ["names an index that is not there", "by_nothing", [], "Index anything.by_nothing not found."],
    ["skips a field", index, [["eq", "b", 1]], "didn't use the index fields in order"],
    [
      "fixes a field behind a bound",
      index,
      [
        ["gt", "value", 1],
        ["eq", "b", 1],
      ],
      "didn't use the index fields in order",
    ],
    ["names a field that is not indexed", index, [["eq", "n", 1]], "doesn't index this field"],
    [
      "has two lower bounds",
      index,
      [
        ["gt", "value", 1],
        ["gte", "value", 2],
      ],
      "Already defined lower bound",
    ],
    [
      "has two upper bounds",
      index,
      [
        ["lt", "value", 1],
        ["lte", "value", 2],
      ],
      "Already defined upper bound",
    ],
  ])("that %s fails with Convex's sentence", async (_name, name, range, sentence) => {
    await expect(client.query(inRange, { index: name, range })).rejects.toThrow(sentence);
  });
});
