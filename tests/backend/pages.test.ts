/** Pages of a subscription while their rows come and go, and the read sets that say when to run again. */
import { ConvexClient } from "convex/browser";
import { makeFunctionReference, type PaginationResult } from "convex/server";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { eventually, runsOf, startBackend, type Backend } from "./server.ts";

type Page = PaginationResult<number>;
type Asked = {
  list: string;
  cursor: string | null;
  numItems: number;
  endCursor?: string | null;
  descending?: boolean;
  odd?: boolean;
  maximumRowsRead?: number;
  maximumBytesRead?: number;
};

const page = makeFunctionReference<"query", Asked, Page>("rows:page");
const first = makeFunctionReference<"query", { list: string; count: number }, number[]>("rows:first");
const search = makeFunctionReference<"query", { list: string; number: number }, number | null>("rows:search");
const add = makeFunctionReference<"mutation", { list: string; number: number; text?: string }>("rows:add");
const remove = makeFunctionReference<"mutation", { list: string; number: number }>("rows:remove");

let backend: Backend;
let client: ConvexClient;
const subscriptions: (() => void)[] = [];
beforeAll(async () => {
  backend = await startBackend();
  client = new ConvexClient(backend.url);
});
afterEach(() => {
  for (const unsubscribe of subscriptions.splice(0)) unsubscribe();
});
afterAll(async () => {
  await client.close();
  await backend.end();
});

let lists = 0;
async function makeList(numbers: number[]): Promise<string> {
  const list = `list${++lists}`;
  for (const number of numbers) await client.mutation(add, { list, number });
  return list;
}

/** Subscribes to a page. @returns what was seen so far, last at the end; at least one. */
async function watch(asked: Asked): Promise<Page[]> {
  const seen: Page[] = [];
  subscriptions.push(client.onUpdate(page, asked, (found) => void seen.push(found)));
  await eventually(
    () => Promise.resolve(seen.length),
    (length) => length > 0,
  );
  return seen;
}

function runs(line: string): Promise<number> {
  return runsOf(backend, line);
}

const tens = (count: number): number[] => Array.from({ length: count }, (_, position) => (position + 1) * 10);

describe("a subscribed page", () => {
  test("keeps its ends while rows come and go inside and at them", async () => {
    const list = await makeList(tens(6));
    const one = await watch({ list, cursor: null, numItems: 2 });
    const two = await watch({ list, cursor: one[0]?.continueCursor ?? "", numItems: 2 });
    expect([one, two].map((seen) => seen.at(-1)?.page)).toEqual([
      [10, 20],
      [30, 40],
    ]);
    // before the first row, inside, just behind its end, just before the next one's end, behind that
    for (const number of [5, 15, 25, 39, 41]) await client.mutation(add, { list, number });
    expect(one.at(-1)?.page).toEqual([5, 10, 15, 20]);
    expect(two.at(-1)?.page).toEqual([25, 30, 39, 40]);
    // the rows at the ends themselves
    for (const number of [20, 40]) await client.mutation(remove, { list, number });
    expect(one.at(-1)?.page).toEqual([5, 10, 15]);
    expect(two.at(-1)?.page).toEqual([25, 30, 39]);
    await client.mutation(add, { list, number: 20 });
    expect(one.at(-1)?.page).toEqual([5, 10, 15]);
    expect(two.at(-1)?.page).toEqual([20, 25, 30, 39]);
    expect(new Set(one.map(({ continueCursor }) => continueCursor)).size).toBe(1);
  });

  test("that was the last one takes in what is added behind it", async () => {
    const list = await makeList([10]);
    const seen = await watch({ list, cursor: null, numItems: 5 });
    expect(seen[0]?.isDone).toBe(true);
    for (const number of tens(9)) await client.mutation(add, { list, number: number + 1 });
    expect(seen.at(-1)?.page.length).toBe(10);
    expect(seen.at(-1)?.isDone).toBe(true);
  });

  test("together with its neighbours shows every row exactly once, whatever is done", async () => {
    const step = fc.record({ number: fc.integer({ min: 0, max: 12 }), removes: fc.boolean() });
    const property = fc.asyncProperty(
      fc.uniqueArray(fc.integer({ min: 0, max: 12 })),
      fc.array(step, { maxLength: 12 }),
      fc.boolean(),
      async (start, steps, descending) => {
        const list = await makeList(start);
        const pages: Page[][] = [];
        for (let cursor: string | null = null; ;) {
          const seen = await watch({ list, cursor, numItems: 2, descending });
          pages.push(seen);
          if (seen[0]?.isDone) break;
          cursor = seen[0]?.continueCursor ?? null;
        }
        const model = new Set(start);
        for (const { number, removes } of steps) {
          if (removes === model.has(number)) await client.mutation(removes ? remove : add, { list, number });
          if (removes) model.delete(number);
          else model.add(number);
        }
        const shown = pages.flatMap((seen) => seen.at(-1)?.page ?? []);
        const sorted = [...model].sort((left, right) => (descending ? right - left : left - right));
        expect(shown).toEqual(sorted);
        for (const unsubscribe of subscriptions.splice(0)) unsubscribe();
      },
    );
    await fc.assert(property, { numRuns: 25 });
  });
});

describe("a page", () => {
  test("with an end cursor goes there, whatever its size and limits say", async () => {
    const list = await makeList(tens(6));
    const four = await client.query(page, { list, cursor: null, numItems: 4 });
    const end = { cursor: null, endCursor: four.continueCursor, numItems: 1, maximumRowsRead: 1 };
    const again = await client.query(page, { list, ...end });
    expect([again.page, again.continueCursor, again.isDone]).toEqual([tens(4), four.continueCursor, false]);
  });

  test("can be split in its middle without losing a row", async () => {
    const list = await makeList(tens(6));
    const whole = await client.query(page, { list, cursor: null, numItems: 6 });
    const middle = whole.splitCursor as string;
    const parts = [
      await client.query(page, { list, cursor: null, endCursor: middle, numItems: 6 }),
      await client.query(page, { list, cursor: middle, endCursor: whole.continueCursor, numItems: 6 }),
    ];
    expect(parts.flatMap((part) => part.page)).toEqual(whole.page);
    expect(parts.every((part) => part.page.length > 0)).toBe(true);
  });

  test("ends early, and says so, when it may read no more rows or bytes", async () => {
    const list = await makeList([]);
    for (const number of tens(4)) await client.mutation(add, { list, number, text: "x".repeat(1000) });
    const rows = await client.query(page, { list, cursor: null, numItems: 4, maximumRowsRead: 2 });
    expect([rows.page, rows.isDone, rows.pageStatus]).toEqual([[10, 20], false, "SplitRequired"]);
    // the row that passes the limit still belongs to the page, so that every page gets on
    const bytes = await client.query(page, { list, cursor: null, numItems: 4, maximumBytesRead: 1500 });
    expect([bytes.page, bytes.isDone, bytes.pageStatus]).toEqual([[10, 20], false, "SplitRequired"]);
    const rest = await client.query(page, { list, cursor: bytes.continueCursor, numItems: 4 });
    expect([rest.page, rest.isDone, rest.pageStatus]).toEqual([[30, 40], true, null]);
  });

  test("that filters goes on behind the last row it looked at", async () => {
    const list = await makeList([1, 2, 4, 6, 7, 8]);
    const limited = { list, odd: true, numItems: 2, maximumRowsRead: 3 };
    const one = await client.query(page, { ...limited, cursor: null });
    const two = await client.query(page, { ...limited, cursor: one.continueCursor });
    expect([one.page, two.page]).toEqual([[1], [7]]);
  });

  test.each([
    [{ numItems: 0 }, "Must request at least 1 document while paginating"],
    [{ numItems: 32_001 }, "Requested too many items: 32001"],
    [{ maximumRowsRead: 0 }, "maximumRowsRead and maximumBytesRead must be greater than 0"],
    [{ maximumBytesRead: 0 }, "maximumRowsRead and maximumBytesRead must be greater than 0"],
    [{ cursor: "junk" }, "InvalidCursor"],
  ])("is refused with %j", async (wrong, sentence) => {
    const asked = { list: "none", cursor: null, numItems: 1, ...wrong };
    await expect(client.query(page, asked)).rejects.toThrow(sentence);
  });
});

describe("a subscription runs again only for what it has read:", () => {
  test("a page not for rows behind its end", async () => {
    const list = await makeList(tens(30));
    const seen = await watch({ list, cursor: null, numItems: 3 });
    for (const number of [31, 45, 291]) await client.mutation(add, { list, number });
    expect(await runs(`page of ${list}`)).toBe(1);
    await client.mutation(add, { list, number: 29 });
    expect(seen.at(-1)?.page).toEqual([10, 20, 29, 30]);
    expect(await runs(`page of ${list}`)).toBe(2);
    // now that its end is known, it reads to there and no further
    await client.mutation(add, { list, number: 32 });
    expect(await runs(`page of ${list}`)).toBe(2);
  });

  test("the first few not for later ones, a search not for what lies behind what it found", async () => {
    const list = await makeList(tens(30));
    const seen: unknown[] = [];
    subscriptions.push(client.onUpdate(first, { list, count: 2 }, (found) => void seen.push(found)));
    subscriptions.push(client.onUpdate(search, { list, number: 25 }, (found) => void seen.push(found)));
    await eventually(
      () => Promise.resolve(seen.length),
      (length) => length === 2,
    );
    for (const number of [31, 45, 291]) await client.mutation(add, { list, number });
    expect(await Promise.all([runs(`first of ${list}`), runs(`search of ${list}`)])).toEqual([1, 1]);
    await client.mutation(add, { list, number: 26 });
    expect(await Promise.all([runs(`first of ${list}`), runs(`search of ${list}`)])).toEqual([1, 2]);
    await client.mutation(add, { list, number: 11 });
    expect(await Promise.all([runs(`first of ${list}`), runs(`search of ${list}`)])).toEqual([2, 3]);
    expect(seen.slice(2)).toEqual([26, [10, 11]]);
  });
});

describe("a cursor that its caller has written", () => {
  /** Makes a cursor begin, or end, elsewhere. */
  function forged(cursor: string, change: (position: { key: Buffer; seq: unknown }) => object): string {
    const { query, key, seq } = JSON.parse(Buffer.from(cursor, "base64url").toString()) as Record<
      string,
      string
    >;
    const { key: moved, ...rest } = change({ key: Buffer.from(key ?? "", "base64url"), seq }) as {
      key: unknown;
    };
    const written = moved instanceof Buffer ? moved.toString("base64url") : moved;
    return Buffer.from(JSON.stringify({ query, key: written, seq, ...rest })).toString("base64url");
  }
  const ask = async (asked: Asked): Promise<string> => {
    const { value, errorMessage } = await backend.call("query", "rows:page", asked);
    return errorMessage ?? JSON.stringify((value as Page).page);
  };

  test.each([false, true])("does not open another's rows, descending: %s", async (descending) => {
    // lists are named in their order: the neighbours lie on both sides of the middle one
    const [, list] = [await makeList([1, 2]), await makeList([1, 2, 3]), await makeList([1, 2])] as [
      string,
      string,
      string,
    ];
    const { value } = await backend.call("query", "rows:page", {
      list,
      cursor: null,
      numItems: 1,
      descending,
    });
    const { continueCursor } = value as Page;
    expect(await ask({ list, cursor: continueCursor, numItems: 9, descending })).toBe(
      descending ? "[2,1]" : "[2,3]",
    );
    const outside = [Buffer.alloc(0), Buffer.from([0]), Buffer.from([0xff, 0xff])];
    for (const key of outside) {
      const cursor = forged(continueCursor, () => ({ key }));
      expect(await ask({ list, cursor, numItems: 9, descending })).toContain("InvalidCursor");
      expect(await ask({ list, cursor: null, endCursor: cursor, numItems: 9, descending })).toContain(
        "InvalidCursor",
      );
    }
  });

  test.each<[string, object]>([
    ["no key", { key: null }],
    ["a key that is no text", { key: 5 }],
    ["a key of another kind", { key: { length: 1 } }],
    ["a number that is none", { key: Buffer.from([0x38]), seq: "1" }],
    ["a number past all", { key: Buffer.from([0x38]), seq: 1e300 }],
  ])("with %s is none", async (_name, change) => {
    const list = await makeList([1, 2]);
    const { value } = await backend.call("query", "rows:page", { list, cursor: null, numItems: 1 });
    const cursor = forged((value as Page).continueCursor, () => change);
    expect(await ask({ list, cursor, numItems: 9 })).toContain("Uncaught Error: InvalidCursor");
  });
});
