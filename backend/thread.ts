/**
 * One worker thread, as the main thread sees it:
 *
 *   loading ──> loaded (the modules are evaluated) ──takeOver──> ready (the file is open, the schema applied) ──> ended
 *      └──────────────┴────────────────────────────────> failed, with the reason
 *
 * It tells what runs in it by numbers in shared memory, which can be read while it is stuck.
 */
import { Worker } from "node:worker_threads";
import { monotonicMs } from "./clock.ts";
import { PROGRESS, type FromWorker, type ToWorker, type WorkerSettings } from "./messages.ts";

/** CPU time that a query or mutation may use, ms: Convex's limit for user code. Other processes' noise does not count. */
export const MAX_RUN_MS = 1000;
/** Time that it may take altogether, ms: a function can also wait without using the CPU. Convex allows 15 s for the system. */
const MAX_WALL_MS = 10_000;
/** CPU time that an action may use without a pause, ms: all others wait meanwhile. */
const MAX_BLOCK_MS = 3000;
/**
 * Memory of the worker, MB: enough for the largest transaction Convex allows several times over. The young generation is as small as it can be
 * without costing time: below 32 MB, the rows of a long answer outlive it.
 */
const WORKER_LIMITS = { maxOldGenerationSizeMb: 512, maxYoungGenerationSizeMb: 32, stackSizeMb: 4 };

/** Why a thread has to be ended: a query or mutation ran too long, or the thread does not come to anything else. */
export type Stuck = "run" | "blocked";
/** The query or mutation that ran: in which message, at which place of it. */
export type Culprit = { message: number; position: number; startedAt: number };
export type Ready = Extract<FromWorker, { type: "ready" }>;
/** What a thread says once it is ready. */
export type Said = Exclude<FromWorker, { type: "loaded" | "ready" | "failed" }>;

/** A worker thread. */
export class Thread {
  readonly #worker: Worker;
  readonly #progress = new Float64Array(new SharedArrayBuffer(PROGRESS.length * 8));
  /** Numbers of the actions and HTTP actions that run in it. */
  readonly open = new Set<number>();
  readonly #loaded: Promise<void>;
  readonly #fail: (reason: string) => void;
  /** Rejects with the reason why the app or the data cannot be used. */
  readonly ready: Promise<Ready>;
  /** Its end, whatever the reason. */
  readonly ended: Promise<string>;

  /** @param hear is told what it says, also while it is being ended: that is true all the same. */
  constructor(settings: Omit<WorkerSettings, "progress">, hear: (message: Said) => void) {
    const file = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.mjs";
    const workerData: WorkerSettings = { ...settings, progress: this.#progress.buffer as SharedArrayBuffer };
    const worker = new Worker(new URL(file, import.meta.url), { workerData, resourceLimits: WORKER_LIMITS });
    this.#worker = worker;
    const loaded = Promise.withResolvers<void>();
    const ready = Promise.withResolvers<Ready>();
    const fail = (reason: string): void => {
      loaded.reject(new Error(reason));
      ready.reject(new Error(reason));
    };
    this.#fail = fail;
    this.#loaded = loaded.promise;
    this.ready = ready.promise;
    // whoever waits for one of them does not wait for the other
    for (const promise of [this.#loaded, this.ready] as Promise<unknown>[]) promise.catch(() => undefined);
    let failure = "";
    worker.on("error", (error: Error) => {
      failure = error.message;
    });
    this.ended = new Promise((resolve) => {
      worker.on("exit", () => {
        fail(failure || "the worker ended before it was ready");
        resolve(failure || "it ended");
      });
    });
    worker.on("message", (message: FromWorker) => {
      if (message.type === "loaded") loaded.resolve();
      else if (message.type === "ready") ready.resolve(message);
      else if (message.type === "failed") fail(message.message);
      else hear(message);
    });
  }

  /** Waits for the modules. @throws Error when they cannot be evaluated, or take longer than so many ms. */
  async load(most: number): Promise<void> {
    const bound = setTimeout(() => this.#fail(`the functions did not load within ${most / 1000} s`), most);
    await this.#loaded.finally(() => clearTimeout(bound));
  }

  post(message: ToWorker): void {
    if (message.type === "action" || message.type === "http") this.open.add(message.id);
    this.#worker.postMessage(message);
  }

  /** Ends it; when this resolves, its hold on the database is gone, and all it has said was heard. */
  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }

  /** What runs now; null when no query or mutation does. */
  culprit(): Culprit | null {
    const startedAt = this.#progress[PROGRESS.startedAt] as number;
    if (startedAt === 0) return null;
    return {
      startedAt,
      message: this.#progress[PROGRESS.message] as number,
      position: this.#progress[PROGRESS.position] as number,
    };
  }

  /** Whether it has to be ended. */
  async stuck(): Promise<Stuck | null> {
    const [startedAt, aliveAt] = [PROGRESS.startedAt, PROGRESS.aliveAt].map(
      (at) => this.#progress[at] as number,
    );
    const [since, most, stuck]: [number | undefined, number, Stuck] =
      startedAt === 0 ? [aliveAt, MAX_BLOCK_MS, "blocked"] : [startedAt, MAX_RUN_MS, "run"];
    const wall = monotonicMs() - (since as number);
    if (since === 0 || wall <= most) return null;
    if (stuck === "run" && wall > MAX_WALL_MS) return stuck;
    const cpuAt = this.#progress[PROGRESS.cpuAt] as number;
    // a worker that is just ending has no usage to tell
    const usage = await this.#worker.cpuUsage().catch(() => null);
    const same = this.#progress[startedAt === 0 ? PROGRESS.aliveAt : PROGRESS.startedAt] === since;
    return usage !== null && same && (usage.user + usage.system) / 1000 - cpuAt > most ? stuck : null;
  }
}
