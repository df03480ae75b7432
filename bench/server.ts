/** The backend under measure: a real process on a data folder of its own, and what the system says of it. */
import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
export const MAIN = join(ROOT, "backend", "main.ts");
export const CONVEX = join(ROOT, "convex");
export const NOTHING = fileURLToPath(new URL("app", import.meta.url));

/** Clock ticks per second in /proc: fixed for user space on Linux. */
const TICKS_PER_S = 100;
/** A backend that has not ended by then never will, ms. */
const STOP_WITHIN_MS = 20_000;
/** Agents of one applySchedule call, at most: the function's own limit. */
const APPLY_BATCH = 200;

/** The tokens of every measured deployment, by scope. */
export const TOKENS = { admin: "bench-admin", send: "bench-send", read: "bench-read" };

/** Rows of a page of the dashboard, the most there is: a fleet as one answer. */
export const FLEET_PAGE = 1000;

export type Json = Record<string, unknown>;

/** What is still running, or lies in the temporary folder, when the benchmark ends. */
const leftovers: (() => void)[] = [];
process.once("exit", () => {
  for (const undo of leftovers.reverse()) undo();
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

/** A folder that lives as long as the benchmark. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "backend-bench-"));
  leftovers.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts a process of ours that ends with the benchmark at the latest. */
export function start(args: string[], env: Record<string, string> = {}): ChildProcess {
  const stdio = ["ignore", "pipe", "inherit"] as const;
  const child = spawn(process.execPath, args, { stdio: [...stdio], env: { ...process.env, ...env } });
  leftovers.push(() => child.kill("SIGKILL"));
  return child;
}

/** A running backend. */
export class Backend {
  readonly url: string;
  /** From the start of the process to its ready line, ms. */
  readonly readyMs: number;
  readonly #process: ChildProcess;
  readonly #key: string;

  private constructor(child: ChildProcess, url: string, key: string, readyMs: number) {
    this.#process = child;
    this.url = url;
    this.#key = key;
    this.readyMs = readyMs;
  }

  /** Starts one. @param functions a folder or a ready bundle. @param clock a module that puts another clock in place, and what it is told. */
  static async start(
    folder: string,
    functions: string,
    clock?: { preload: string; env: Record<string, string> },
  ): Promise<Backend> {
    const keyFile = join(folder, "admin-key");
    const places = ["--functions", functions, "--data", join(folder, "db"), "--admin-key-file", keyFile];
    const startedAt = performance.now();
    const preload = clock ? ["--import", clock.preload] : [];
    const child = start([...preload, MAIN, ...places, "--port", "0", "--site-port", "0"], clock?.env);
    if (child.stdout === null) throw new Error("the backend has no stdout");
    const lines = createInterface(child.stdout);
    const line = await new Promise<string>((resolve, reject) => {
      lines.once("line", resolve);
      child.once("exit", (code) => reject(new Error(`the backend ended with ${String(code)}`)));
    });
    const readyMs = performance.now() - startedAt;
    const { url } = JSON.parse(line) as { url: string };
    return new Backend(child, url, readFileSync(keyFile, "utf8").trim(), readyMs);
  }

  /** Calls a function as the deployment's owner. @throws Error with what the backend says when it fails. */
  async admin(path: string, args: Json): Promise<unknown> {
    return this.#post("function", { authorization: `Convex ${this.#key}` }, path, args);
  }

  /** Calls a public function. */
  async call(kind: "query" | "mutation", path: string, args: Json): Promise<unknown> {
    return this.#post(kind, {}, path, args);
  }

  async #post(route: string, headers: Record<string, string>, path: string, args: Json): Promise<unknown> {
    const response = await fetch(`${this.url}/api/${route}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ path, args }),
    });
    const answer = (await response.json()) as { status: string; value: unknown };
    if (answer.status !== "success") throw new Error(`${path}: ${JSON.stringify(answer)}`);
    return answer.value;
  }

  /** Memory of the process, MB: now, and the most it ever was. */
  memory(): { now: number; peak: number } {
    const status = readFileSync(`/proc/${String(this.#process.pid)}/status`, "utf8");
    const read = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
    return { now: read("VmRSS"), peak: read("VmHWM") };
  }

  /** CPU time used by all of its threads, ms. */
  cpuMs(): number {
    const stat = readFileSync(`/proc/${String(this.#process.pid)}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_S;
  }

  /** Ends it, and waits for the end. @throws Error when it does not come. */
  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", () => resolve(true)));
    this.#process.kill("SIGTERM");
    const inTime = new Promise((resolve) => setTimeout(resolve, STOP_WITHIN_MS, false).unref());
    if (!(await Promise.race([ended, inTime]))) throw new Error("the backend does not stop");
  }
}

/** The name of the nth agent. */
export function agentName(nth: number): string {
  return `agent-${String(nth).padStart(5, "0")}`;
}

const ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];

/** Schedules as fleets have them: every other one a cron expression, in four zones. */
function scheduleOf(nth: number): Json {
  if (nth % 2 === 0) return { kind: "interval", everyMs: 300_000 };
  const expression = nth % 4 === 1 ? `${nth % 60} * * * *` : `${nth % 60} ${nth % 24} * * 1-5`;
  return { kind: "cron", expression, timeZone: ZONES[(nth >> 1) % ZONES.length] };
}

/** Makes the tokens and registers agents. */
export async function register(backend: Backend, agents: number): Promise<void> {
  const hash = (token: string): string => createHash("sha256").update(token).digest("hex");
  const { admin, ...others } = TOKENS;
  const first = { tokenHash: hash(admin), name: "admin", scope: "admin" };
  await backend.admin("heartbeat/setup:storeFirstToken", { request: first });
  for (const [scope, token] of Object.entries(others)) {
    const request = { tokenHash: hash(token), name: scope, scope };
    await backend.call("mutation", "mutations/createToken", { token: admin, request });
  }
  for (let from = 0; from < agents; from += APPLY_BATCH) {
    const batch = Array.from({ length: Math.min(APPLY_BATCH, agents - from) }, (_, place) => ({
      agent: agentName(from + place),
      schedule: scheduleOf(from + place),
      purpose: `Looks after part ${from + place} of the house`,
      host: `host-${(from + place) % 40}`,
    }));
    const schedule = { source: "bench", agents: batch };
    await backend.call("mutation", "mutations/applySchedule", { token: admin, schedule });
  }
}
