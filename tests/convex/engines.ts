/**
 * The engines that the stories run on: Convex's own in-memory implementation, and the local backend as a real process. Both answer calls by
 * path and take the admin's key; both have a clock that is moved, never waited for.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { convexTest, type TestConvex } from "convex-test";
import { makeFunctionReference } from "convex/server";
import { ConvexError, convexToJson, jsonToConvex, type JSONValue, type Value } from "convex/values";
import { vi } from "vitest";
import { bundleFolder } from "../../backend/bundler.ts";
import schema from "../../convex/schema";

const LONG = process.env["HEARTBEAT_TEST_LONG"] === "1";

/** Where every story begins: Monday 2 March 2026, 08:00 UTC. */
export const START_AT = Date.UTC(2026, 2, 2, 8);

export type Args = Record<string, unknown>;

/** A refusal of ours, as any client gets it; whatever else goes wrong is a plain Error. */
export class Refused extends Error {
  constructor(readonly data: { code: string; message: string } & Record<string, unknown>) {
    super(`${data.code}: ${data.message}`);
  }
}

export interface Engine {
  /** A public function, by path. */
  call(path: string, args: Args): Promise<unknown>;
  /** Any function, as the owner of the deployment. */
  admin(path: string, args: Args): Promise<unknown>;
  /** The backend's clock, epoch ms. */
  now(): number;
  setClock(at: number): void;
  stop(): Promise<void>;
}

/** Public functions lie in a folder of their kind; internal ones are all mutations. */
export function kindOf(path: string): "query" | "mutation" {
  return path.startsWith("queries/") ? "query" : "mutation";
}

const modules = import.meta.glob("../../convex/**/*.*s");

/** Functions that are not those of `convex/`, for convex-test. */
export type App = { schema: typeof schema; modules: Record<string, () => Promise<unknown>> };

/** A fresh deployment on convex-test. The caller has made vitest's clock a fake one. */
export function memoryEngine(app: App = { schema, modules }): Engine & { t: TestConvex<typeof schema> } {
  const t = convexTest(app);
  const call = async (path: string, args: Args): Promise<unknown> => {
    try {
      if (kindOf(path) === "query") {
        return await t.query(makeFunctionReference<"query", Args>(path), args as Record<string, Value>);
      }
      return await t.mutation(makeFunctionReference<"mutation", Args>(path), args as Record<string, Value>);
    } catch (error) {
      if (error instanceof ConvexError) throw new Refused(error.data as Refused["data"]);
      throw error;
    }
  };
  return {
    t,
    call,
    admin: call,
    now: () => Date.now(),
    setClock: (at) => void vi.setSystemTime(at),
    stop: async () => {},
  };
}

const ROOT = join(import.meta.dirname, "..", "..");

/** The functions of `folder` as one file that `processEngine` takes, made by the backend's own bundler. */
export async function bundle(folder: string, target: string): Promise<void> {
  writeFileSync(target, await bundleFolder(folder));
}

/** A fresh deployment in a local backend of its own, on a new data folder. */
export async function processEngine(functions: string): Promise<Engine> {
  const data = mkdtempSync(join(tmpdir(), "heartbeat-story-"));
  const clockFile = join(data, "clock");
  const keyFile = join(data, "admin-key");
  let clock = START_AT;
  const setClock = (at: number): void => {
    clock = at;
    writeFileSync(clockFile, String(at));
  };
  setClock(START_AT);
  const backend = spawn(
    process.execPath,
    [
      ...["--import", pathToFileURL(join(import.meta.dirname, "clock.mjs")).href],
      join(ROOT, "backend", "main.ts"),
      ...["--functions", functions, "--data", join(data, "db"), "--admin-key-file", keyFile],
      ...["--port", "0", "--site-port", "0"],
    ],
    { stdio: "pipe", env: { ...process.env, STORY_CLOCK: clockFile } },
  );
  const { url } = JSON.parse(await firstLine(backend)) as { url: string };
  const key = readFileSync(keyFile, "utf8").trim();
  const post = async (
    route: string,
    path: string,
    args: Args,
    headers: Record<string, string>,
  ): Promise<unknown> => {
    const response = await fetch(`${url}/api/${route}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify({ path, args: convexToJson(args as Value), format: "convex_encoded_json" }),
    });
    const answer = (await response.json()) as { status?: string; value: JSONValue; errorMessage?: string } & {
      errorData?: JSONValue;
    };
    if (answer.status === "success") return jsonToConvex(answer.value);
    if (answer.errorData === undefined) throw new Error(`${path}: ${JSON.stringify(answer)}`);
    throw new Refused(jsonToConvex(answer.errorData) as Refused["data"]);
  };
  return {
    call: (path, args) => post(kindOf(path), path, args, {}),
    admin: (path, args) => post("function", path, args, { Authorization: `Convex ${key}` }),
    now: () => clock,
    setClock,
    stop: async () => {
      backend.kill("SIGTERM");
      await ended(backend);
      rmSync(data, { recursive: true });
    },
  };
}

/**
 * What of a chapter is told on the local backend too: every other story, in the long form all. Each takes a backend of
 * its own; all of them are told on convex-test every time.
 */
export function toldOnProcess<Told>(chapter: Told[]): Told[] {
  return chapter.filter((_, nth) => LONG || nth % 2 === 0);
}

/** Do something with such a deployment, which is gone afterwards. */
export async function onProcess(functions: string, tell: (engine: Engine) => Promise<void>): Promise<void> {
  const engine = await processEngine(functions);
  try {
    await tell(engine);
  } finally {
    await engine.stop();
  }
}

/** The first line that a process prints; an error with its complaint if it ends instead. */
async function firstLine(child: ChildProcess): Promise<string> {
  let printed = "";
  let complaint = "";
  child.stderr?.on("data", (chunk: Buffer) => (complaint += chunk.toString()));
  return await new Promise((resolve, reject) => {
    child.stdout?.on("data", (chunk: Buffer) => {
      printed += chunk.toString();
      if (printed.includes("\n")) resolve(printed.slice(0, printed.indexOf("\n")));
    });
    child.once("exit", () => reject(new Error(`the backend ended: ${complaint}`)));
  });
}

async function ended(child: ChildProcess): Promise<void> {
  let complaint = "";
  child.stderr?.on("data", (chunk: Buffer) => (complaint += chunk.toString()));
  const code = child.exitCode ?? (await new Promise((resolve) => child.once("exit", resolve)));
  if (code !== 0) throw new Error(`${child.spawnargs.join(" ")} ended with ${String(code)}: ${complaint}`);
}
