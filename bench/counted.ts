/** A deployment that counts what its functions read and write (tally.ts), with a fleet at work in it and a clock that stands until it is moved. */
import { cpSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundleFolder } from "../backend/bundler.ts";
import type { Cost, Tally } from "./month.ts";
import { agentName, Backend, register, temporaryFolder, TOKENS, type Json } from "./server.ts";

const TALLY = fileURLToPath(new URL("tally.ts", import.meta.url));
const PACKAGES = fileURLToPath(new URL("../node_modules", import.meta.url));
const CLOCK = new URL("../tests/convex/clock.mjs", import.meta.url).href;

/** Nothing starts by itself: who counts runs what crons would. */
const NO_CRONS = 'import { cronJobs } from "convex/server";\n\nexport default cronJobs();\n';

const BEGIN = Date.UTC(2026, 2, 2, 8);
const MINUTE_MS = 60_000;

/** Assumed of an agent: the tasks it has open, and what it says. */
const OPEN_TASKS = 5;
const SUMMARY = "3 of 41 files drifted, two put right";

/** Bundles a folder of functions together with tally.ts, into `folder`. @returns the file. */
async function countedFunctions(folder: string, convex: string): Promise<string> {
  const functions = join(folder, "convex");
  cpSync(convex, functions, { recursive: true });
  cpSync(TALLY, join(functions, "tally.ts"));
  writeFileSync(join(functions, "crons.ts"), NO_CRONS);
  symlinkSync(PACKAGES, join(folder, "node_modules"));
  const file = join(folder, "functions.mjs");
  writeFileSync(file, await bundleFolder(functions));
  return file;
}

/** The costs of a counted run. */
export function costOf(tally: Tally): Cost {
  const { documentsRead, documentsWritten, bytesRead, bytesWritten, keyBytes, storedBytes } = tally;
  return { documentsRead, documentsWritten, bytes: bytesRead + bytesWritten + keyBytes, storedBytes };
}

export class Counted {
  readonly backend: Backend;
  readonly agents: number;
  readonly #folder: string;
  #now = BEGIN;
  #made = 0;

  private constructor(folder: string, backend: Backend, agents: number) {
    this.#folder = folder;
    this.backend = backend;
    this.agents = agents;
  }

  /** Starts one with so many agents, each of which has tasks and was heard twice. @param convex the functions. */
  static async start(convex: string, agents: number): Promise<Counted> {
    const folder = temporaryFolder();
    const clockFile = join(folder, "clock");
    writeFileSync(clockFile, String(BEGIN));
    const functions = await countedFunctions(folder, convex);
    const clock = { preload: CLOCK, env: { STORY_CLOCK: clockFile } };
    const counted = new Counted(folder, await Backend.start(folder, functions, clock), agents);
    await counted.#settle();
    return counted;
  }

  async #settle(): Promise<void> {
    await register(this.backend, this.agents);
    for (let nth = 0; nth < this.agents * OPEN_TASKS; nth++) {
      const request = { agent: agentName(nth % this.agents), title: `look after part ${nth} of the house` };
      await this.backend.call("mutation", "mutations/addTask", { token: TOKENS.admin, request });
    }
    for (let nth = 0; nth < this.agents * 2; nth++) await this.send(nth % this.agents);
    this.pass(MINUTE_MS);
    await this.sweep();
  }

  get now(): number {
    return this.#now;
  }

  pass(ms: number): void {
    this.#now += ms;
    writeFileSync(join(this.#folder, "clock"), String(this.#now));
  }

  /** The arguments with which `heartbeat send` first asks for the counts. */
  counts(nth: number): { token: string; request: Json } {
    return { token: TOKENS.send, request: { agent: agentName(nth), at: this.#now } };
  }

  /** The arguments of what `heartbeat send` would deliver now. */
  heartbeat(nth: number): { token: string; heartbeat: Json } {
    const heartbeat = {
      heartbeatId: `0190f0c0-0000-7000-8000-${(++this.#made).toString(16).padStart(12, "0")}`,
      agent: agentName(nth),
      sentAt: this.#now - 3,
      deliveredAt: this.#now,
      status: "ok",
      openTasks: OPEN_TASKS,
      staleTasks: 0,
      summary: SUMMARY,
      result: "acted",
      host: `host-${nth % 40}`,
      clientVersion: "0.1.0",
    };
    return { token: TOKENS.send, heartbeat };
  }

  async send(nth: number): Promise<void> {
    await this.backend.call("query", "queries/getAgentTaskCounts", this.counts(nth));
    await this.backend.call("mutation", "mutations/recordHeartbeat", this.heartbeat(nth));
  }

  async sweep(): Promise<void> {
    await this.backend.admin("heartbeat/maintenance:sweep", {});
  }

  /** What a run costs; it is not taken back. */
  async cost(path: string, args: Json): Promise<Cost> {
    return costOf((await this.backend.admin("tally:measured", { path, args })) as Tally);
  }

  /** What was counted so far. */
  async total(): Promise<Tally> {
    return (await this.backend.admin("tally:total", {})) as Tally;
  }

  async stop(): Promise<void> {
    await this.backend.stop();
    rmSync(this.#folder, { recursive: true });
  }
}
