/** Starts the real backend process for a test, and ends it. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { bundleFolder } from "../../backend/bundler.ts";

/** A clock that a file sets. */
const CLOCK = new URL("../convex/clock.mjs", import.meta.url).href;
const MAIN = fileURLToPath(new URL("../../backend/main.ts", import.meta.url));
export const APP = fileURLToPath(new URL("./app", import.meta.url));

export type Answer = {
  status?: "success" | "error";
  value?: unknown;
  errorMessage?: string;
  errorData?: unknown;
  code?: string;
};

export type Backend = {
  url: string;
  siteUrl: string;
  adminKey: string;
  functionsHash: string;
  process: ChildProcess;
  /** What it has written on stderr: its own lines, and what functions log. */
  log: () => string;
  call: (kind: string, path: string, args?: object, headers?: Record<string, string>) => Promise<Answer>;
  /** Sends a signal and waits for the end. @returns the exit code, null after a kill. */
  end: (signal?: NodeJS.Signals) => Promise<number | null>;
};

const leftovers: (() => void)[] = [];

/** Has something undone after the last test of the file, last first, whatever failed. */
export function atTheEnd(undo: () => void): void {
  leftovers.push(undo);
}

/** Undoes it all; cleanup.ts calls it after each file. */
export function undoAll(): void {
  for (const undo of leftovers.splice(0).reverse()) undo();
}

/** A folder that lives as long as the test file runs. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "backend-test-"));
  atTheEnd(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/** Writes an app into a folder of its own, where npm packages resolve. @param files texts by name. @returns its convex folder. */
export function makeApp(files: Record<string, string>): string {
  const project = temporaryFolder();
  symlinkSync(fileURLToPath(new URL("../../node_modules", import.meta.url)), join(project, "node_modules"));
  const folder = join(project, "convex");
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

/** The same as a ready bundle. @returns its file. */
export async function makeBundle(files: Record<string, string>): Promise<string> {
  const folder = makeApp(files);
  const file = join(folder, "..", "functions.mjs");
  writeFileSync(file, await bundleFolder(folder));
  return file;
}

let bundled: Promise<string> | undefined;
/** The test app as a ready bundle inside a folder: starting it costs no build. */
export async function appIn(folder: string): Promise<string> {
  const file = join(folder, "app.mjs");
  writeFileSync(file, await (bundled ??= bundleFolder(APP)));
  return file;
}

/** Arguments of a backend on any free ports. */
export function argumentsFor(folder: string, functions = APP, port = 0): string[] {
  const key = join(folder, "admin-key");
  const ports = ["--port", String(port), "--site-port", "0"];
  return [MAIN, "--functions", functions, "--data", join(folder, "db"), ...ports, "--admin-key-file", key];
}

/** Runs a backend that is expected to end by itself. */
export function runToEnd(args: string[]): Promise<{ code: number | null; stderr: string; stdout: string }> {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const texts = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk: Buffer) => (texts.stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (texts.stderr += chunk.toString()));
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, ...texts })));
}

/**
 * Starts a backend and waits for its ready line.
 *
 * @param functions a folder, or a ready bundle; the test app otherwise.
 * @param port 0 for any free one.
 * @param options further arguments.
 * @param clock a file that tells the time, ms since the epoch; it stands still otherwise.
 */
export async function startBackend(
  folder = temporaryFolder(),
  functions?: string,
  port = 0,
  options: string[] = [],
  clock?: string,
): Promise<Backend> {
  functions ??= await appIn(folder);
  const preload = clock === undefined ? [] : ["--import", CLOCK];
  const child = spawn(process.execPath, [...preload, ...argumentsFor(folder, functions, port), ...options], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, STORY_CLOCK: clock },
  });
  atTheEnd(() => child.kill("SIGKILL"));
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  const line = await Promise.race([
    new Promise<string>((resolve) => createInterface(child.stdout).once("line", resolve)),
    ended.then(() => Promise.reject(new Error(`the backend did not start: ${stderr}`))),
  ]);
  const ready = JSON.parse(line) as { url: string; siteUrl: string; functionsHash: string };
  const adminKey = readFileSync(join(folder, "admin-key"), "utf8").trim();
  return {
    ...ready,
    adminKey,
    process: child,
    log: () => stderr,
    call: async (kind, path, args = {}, headers = {}) => {
      const response = await fetch(`${ready.url}/api/${kind}`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify({ path, args }),
      });
      return (await response.json()) as Answer;
    },
    end: (signal = "SIGTERM") => {
      child.kill(signal);
      return ended;
    },
  };
}

/** Asks until the answer is as expected, at most for a few seconds. */
export async function eventually<Value>(
  ask: () => Promise<Value>,
  expected: (value: Value) => boolean,
): Promise<Value> {
  const deadline = Date.now() + 8000;
  for (;;) {
    const value = await ask();
    if (expected(value) || Date.now() > deadline) return value;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

let fences = 0;
/** How often functions have logged this line. What they logged until now has arrived: the log of a later run has. */
export async function runsOf(backend: Backend, line: string): Promise<number> {
  const list = `fence${++fences}`;
  await backend.call("query", "rows:first", { list, count: 1 });
  const log = await eventually(
    () => Promise.resolve(backend.log()),
    (text) => text.includes(list),
  );
  return log.split(`${line}\n`).length - 1;
}
