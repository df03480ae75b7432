/** The official command line, unchanged, against a real backend: what it can ask is answered, what it cannot is refused at once. */
import { spawn, type ChildProcess } from "node:child_process";
import { copyFileSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, startBackend, temporaryFolder, type Backend } from "./server.ts";

const LONG = process.env.HEARTBEAT_TEST_LONG === "1";
const REPOSITORY = fileURLToPath(new URL("../..", import.meta.url));
/** A refusal that the command line would try again after takes it half a minute and more. */
const AT_ONCE_MS = 10_000;

let backend: Backend;
let project: string;
beforeAll(async () => {
  backend = await startBackend();
  for (const text of ["one", "two"]) await backend.call("mutation", "notes:add", { text });
  project = temporaryFolder();
  mkdirSync(join(project, "convex"));
  copyFileSync(join(REPOSITORY, "package.json"), join(project, "package.json"));
  symlinkSync(join(REPOSITORY, "node_modules"), join(project, "node_modules"));
});
afterAll(() => backend.end());

type Output = { stdout: string; stderr: string };

function convex(...args: string[]): { child: ChildProcess; output: Output; ended: Promise<number | null> } {
  const bin = join(REPOSITORY, "node_modules", "convex", "bin", "main.js");
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: project,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      HOME: project,
      // then it reports no errors to its makers
      CI: "1",
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
      CONVEX_SELF_HOSTED_URL: backend.url,
      CONVEX_SELF_HOSTED_ADMIN_KEY: backend.adminKey,
    },
  });
  const output: Output = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output.stderr += chunk.toString()));
  return { child, output, ended: new Promise((resolve) => child.once("close", resolve)) };
}

async function run(...args: string[]): Promise<Output & { code: number | null }> {
  const { output, ended } = convex(...args);
  const code = await ended;
  return { code, ...output };
}

describe("convex run", () => {
  test("runs queries, mutations, actions and internal functions", async () => {
    const [echo, add, action, internal] = await Promise.all([
      run("run", "values:echo", '{"value": {"list": [1, "x"]}}'),
      run("run", "notes:add", '{"text": "from the command line"}'),
      run("run", "runtime:viaAction", '{"name": "cli"}'),
      run("run", "notes:secret"),
    ]);
    expect(JSON.parse(echo.stdout)).toEqual({ list: [1, "x"] });
    expect(add.stdout).toMatch(/^"[0-9a-z]{32}"\n$/);
    expect(JSON.parse(action.stdout)).toEqual({ count: 1, data: { name: "cli" } });
    expect(internal.stdout).toBe('"for the admin"\n');
  });

  test("says what failed, with the stack, and what there is instead of what is not", async () => {
    const [crash, missing] = await Promise.all([run("run", "notes:crash"), run("run", "notes:nothing")]);
    expect([crash.code, missing.code]).toEqual([1, 1]);
    expect(crash.stderr).toContain("Uncaught Error: broken on purpose");
    expect(crash.stderr).toContain("    at handler");
    expect(missing.stderr).toContain("Available functions:");
    expect(missing.stderr).toContain("notes:addInternal");
  });

  test("--watch prints each new result until it is interrupted", async () => {
    const list = "watched by the command line";
    const { child, output, ended } = convex(
      "run",
      "--watch",
      "rows:first",
      JSON.stringify({ list, count: 2 }),
    );
    const lines = (expected: string): Promise<string> =>
      eventually(
        () => Promise.resolve(output.stdout.replace(/\s/g, "")),
        (text) => text === expected,
      );
    expect(await lines("[]")).toBe("[]");
    await backend.call("mutation", "rows:add", { list, number: 5 });
    expect(await lines("[][5]")).toBe("[][5]");
    child.kill("SIGINT");
    await ended;
  });
});

describe("convex data", () => {
  test("lists the tables, and a table's documents", async () => {
    const [tables, notes, jobs] = await Promise.all([
      run("data"),
      run("data", "notes", "--order", "asc", "--format", "jsonLines", "--limit", "2"),
      run("data", "_scheduled_functions"),
    ]);
    expect(tables.stdout.split("\n")).toEqual(
      expect.arrayContaining(["anything", "notes", "people", "runs"]),
    );
    expect(tables.stdout).not.toContain("_scheduled");
    const texts = notes.stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { text: string }).text);
    expect(texts).toEqual(["one", "two"]);
    expect(jobs.stderr).toContain("There are no documents in this table.");
  });
});

describe("what the backend does not do", () => {
  /** The same answers to other commands: http.test.ts asks for most of them, and each process of the command line costs more than a backend. */
  const others: [string[], number, string][] = [
    [["logs"], 1, "its own stderr"],
    [["env", "set", "NAME", "value"], 1, "no environment variables that could be set"],
    [["env", "list"], 0, "No environment variables set"],
    [["export", "--path", "/nowhere/export.zip"], 1, "no import and export"],
  ];

  test.each<[string[], number, string]>([[["dev", "--once"], 1, "takes no pushes"], ...(LONG ? others : [])])(
    "is said at once: convex %s",
    async (args, code, words) => {
      const startedAt = Date.now();
      const done = await run(...args);
      expect([done.code, done.stdout + done.stderr]).toEqual([code, expect.stringContaining(words)]);
      expect(Date.now() - startedAt).toBeLessThan(AT_ONCE_MS);
    },
  );
});
