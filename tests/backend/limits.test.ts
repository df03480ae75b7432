/** Convex's limits, each with its sentence: what passes here passes there. */
import type { Value } from "convex/values";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBackend, type Backend } from "./server.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.end());

async function fails(kind: string, path: string, args: object): Promise<string> {
  const { status, errorMessage = "" } = await backend.call(kind, path, args);
  expect(status).toBe("error");
  return errorMessage;
}

describe("one transaction", () => {
  test("writes 16,000 documents, and no more", async () => {
    const sentence = "Too many writes in a single function execution (limit: 16000)";
    expect(await fails("mutation", "limits:write", { count: 16_001, bytes: 1 })).toContain(sentence);
    // nothing of it is there
    expect((await backend.call("query", "limits:read", { count: 10 })).value).toBe(0);
    for (let time = 0; time < 2; time++) {
      const written = await backend.call("mutation", "limits:write", { count: 16_000, bytes: 1 });
      expect(written.status).toBe("success");
    }
  });

  test("reads 32,000 documents, and no more", async () => {
    expect((await backend.call("query", "limits:read", { count: 32_000 })).value).toBe(32_000);
    await backend.call("mutation", "limits:write", { count: 1, bytes: 1 });
    expect(await fails("query", "limits:read", { count: 32_001 })).toContain(
      "Too many documents read in a single function execution (limit: 32000). Consider using smaller limits",
    );
  });

  test("writes 16 MiB, and reads as much", async () => {
    expect(await fails("mutation", "limits:write", { count: 17, bytes: 1_000_000 })).toContain(
      "Too many bytes written in a single function execution (limit: 16 MiB)",
    );
    for (const count of [16, 1]) await backend.call("mutation", "limits:write", { count, bytes: 1_000_000 });
    expect(await fails("query", "limits:readNewest", { count: 17 })).toContain(
      "Too many bytes read in a single function execution (limit: 16777216 bytes).",
    );
    expect((await backend.call("query", "limits:readNewest", { count: 16 })).value).toBe(16);
  });

  test("schedules 1,000 functions, and 16 MiB of their arguments", async () => {
    expect(await fails("mutation", "limits:schedule", { count: 1001, bytes: 1 })).toContain(
      "Too many functions scheduled by this mutation (limit: 1000)",
    );
    expect(await fails("mutation", "limits:schedule", { count: 17, bytes: 1_000_000 })).toContain(
      "Too large total size of the arguments of scheduled functions from this mutation (limit: 16777216 bytes)",
    );
  });

  test("counts what its sub-transactions do as its own", async () => {
    expect(await fails("mutation", "limits:writeNested", { count: 9_000, bytes: 1 })).toContain(
      "Too many writes in a single function execution (limit: 16000)",
    );
  });
});

describe("a function", () => {
  test("returns 16 MiB, counted in bytes", async () => {
    expect(await fails("query", "limits:textOf", { bytes: 17_000_000 })).toContain(
      "Function limits:textOf return value is too large (actual: 16.21 MiB, limit: 16 MiB)",
    );
    expect((await backend.call("query", "limits:textOf", { bytes: 16_000_000 })).status).toBe("success");
  });

  test("takes 16 MiB of arguments, counted in bytes", async () => {
    expect(await fails("action", "limits:pass", { bytes: 17_000_000 })).toContain(
      "Arguments for limits:lengthOf are too large (actual: 16.21 MiB, limit: 16 MiB)",
    );
    expect((await backend.call("action", "limits:pass", { bytes: 16_000_000 })).value).toBe(8_000_000);
  });

  test("is not handed a body of more, and the connection goes on", async () => {
    const response = await fetch(`${backend.url}/api/query`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ path: "limits:lengthOf", args: { text: "x".repeat(16.1 * 1024 * 1024) } }),
    });
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([
      400,
      "BadJsonBody",
    ]);
    expect((await backend.call("query", "limits:lengthOf", { text: "x".repeat(1e6) })).value).toBe(1e6);
  });
});

describe("a document", () => {
  const nested = (depth: number): Value => (depth === 0 ? 1 : [nested(depth - 1)]);
  const wide = (count: number): Value =>
    Object.fromEntries(Array.from({ length: count }, (_, number) => [`f${number}`, 1]));

  test.each<[string, Value, Value, string]>([
    [
      "1 MiB",
      { text: "x".repeat(1_048_000) },
      { text: "x".repeat(1_048_576) },
      "Value is too large (1 MiB > maximum size 1 MiB)",
    ],
    ["1,024 fields", wide(1024), wide(1025), "Object has too many fields (1025 > maximum number 1024)"],
    [
      "16 levels",
      { v: nested(15) },
      { v: nested(16) },
      "Document is too nested (nested 17 levels deep > maximum nesting 16)",
    ],
    [
      "8,192 elements",
      { v: Array(8192).fill(1) },
      { v: Array(8193).fill(1) },
      "Array length is too long (8193 > maximum length 8192)",
    ],
  ])("has at most %s", async (_name, fits, tooMuch, sentence) => {
    expect((await backend.call("mutation", "values:put", { document: fits })).status).toBe("success");
    expect(await fails("mutation", "values:put", { document: tooMuch })).toContain(sentence);
  });

  test.each<[string, object, string]>([
    ["starts with an underscore", { _mine: 1 }, "starts with an underscore"],
    ["starts with a dollar", { $mine: 1 }, "starts with a '$'"],
    ["is not ASCII", { né: 1 }, "ASCII"],
    ["is longer than 1,024", { ["x".repeat(1025)]: 1 }, "1024"],
  ])("has no field whose name %s", async (_name, document, words) => {
    expect(await fails("mutation", "values:put", { document })).toContain(words);
  });

  test.each(["_mine", "with blank", "9lives", ""])("does not go into a table named %j", async (table) => {
    expect(await fails("mutation", "limits:into", { table })).toMatch(/[Ii]nvalid table name|System tables/);
  });
});
