/**
 * The main thread's side of the engine: owns the worker, queues mutations and sends them in batches, watches the clock of
 * whatever runs, and replaces the worker when it is stuck or lost.
 *
 *   mutation  queued ──> in a batch ──> answered (its commit is on disk)
 *                          └──> worker lost: the culprit fails, the others are queued again, nothing was committed
 *   query     sent ──> answered; worker lost: the culprit fails, the others are sent again
 *   action    sent ──> answered; worker lost: fails, for nobody knows how far it came
 */
import { Worker } from "node:worker_threads";
import { monotonicMs } from "./clock.ts";
import {
  PROGRESS,
  type ActionCall,
  type Call,
  type DueDuty,
  type FromWorker,
  type FunctionSummary,
  type HttpAnswer,
  type HttpTask,
  type MutationTask,
  type Outcome,
  type QueryTask,
  type ToWorker,
  type WorkerSettings,
} from "./messages.ts";

/** Mutations that share one commit at most: beyond it, the first of a batch would wait for the last. */
const MAX_BATCH = 64;
/** CPU time that a query or mutation may use, ms: Convex's limit for user code. Other processes' noise does not count. */
const MAX_RUN_MS = 1000;
/** Time that it may take altogether, ms: a function can also wait without using the CPU. Convex allows 15 s for the system. */
const MAX_WALL_MS = 10_000;
/** How often the watchdog looks, ms. */
const WATCH_EVERY_MS = 100;
/** How often something is tried again when its worker was lost without a culprit: the second loss is no accident. */
const MAX_LOSSES = 2;
/** Memory of the worker, MB: enough for the largest transaction Convex allows several times over. */
const WORKER_LIMITS = { maxOldGenerationSizeMb: 512, maxYoungGenerationSizeMb: 48, stackSizeMb: 4 };

/** The answer to a mutation, with the timestamp of its commit. */
export type MutationAnswer = { outcome: Outcome; ts: bigint };
/** The answers to a group of queries, and the commit that they all saw. */
export type QueryAnswers = { outcomes: Outcome[]; ts: bigint };

/** The duties whose time has come, and when the next one's comes (ms since the epoch). */
export type DueAnswer = { duties: DueDuty[]; nextDue: number | null };

type Resolve<Answer> = (answer: Answer) => void;
type Queued = { task: MutationTask; resolve: Resolve<MutationAnswer>; losses: number };

type InFlight =
  | { type: "batch"; queued: Queued[] }
  | { type: "queries"; runs: QueryTask[]; resolve: Resolve<QueryAnswers>; losses: number }
  | { type: "action"; resolve: Resolve<Outcome> }
  | { type: "http"; resolve: Resolve<HttpAnswer | null> }
  | { type: "due"; running: string[]; resolve: Resolve<DueAnswer> };

/** What the host tells whoever is interested. */
export type HostEvents = {
  /** A commit is on disk. */
  committed: (touched: string[]) => void;
  /** When the next duty falls due, ms since the epoch. */
  nextDue: (at: number | null) => void;
  /** The worker was replaced: read sets are lost. */
  replaced: () => void;
  /** An action calls. */
  called: (target: ActionCall) => Promise<Outcome>;
  /** The engine cannot go on. */
  broken: (message: string) => void;
};

const LOST = "The worker that ran it had to be replaced";

/** Owns the worker. */
export class Host {
  readonly events: HostEvents;
  readonly #settings: Omit<WorkerSettings, "progress">;
  #progress = new Float64Array(new SharedArrayBuffer(PROGRESS.length * 8));
  #worker: Worker | null = null;
  /** Messages that wait for the worker to be ready; null when it is. */
  #held: ToWorker[] | null = [];
  #inFlight = new Map<number, InFlight>();
  #queue: Queued[] = [];
  #batchRunning = false;
  #lastId = 0;
  #watchdog: NodeJS.Timeout | null = null;
  #stopping = false;
  /** The app's functions by canonical path. */
  functions = new Map<string, FunctionSummary>();
  /** The last commit known here. */
  ts = 0n;

  constructor(settings: Omit<WorkerSettings, "progress">, events: HostEvents) {
    this.#settings = settings;
    this.events = events;
  }

  /** Starts the worker. @throws Error with the reason why the app or the data cannot be used. */
  start(): Promise<void> {
    this.#watchdog = setInterval(() => this.#watch(), WATCH_EVERY_MS).unref();
    return this.#spawn();
  }

  /** Runs a mutation; resolves when its commit is on disk, or it has failed. */
  mutation(task: MutationTask): Promise<MutationAnswer> {
    return new Promise((resolve) => {
      this.#queue.push({ task, resolve, losses: 0 });
      this.#pump();
    });
  }

  /** Runs queries on one snapshot. */
  queries(runs: QueryTask[]): Promise<QueryAnswers> {
    return new Promise((resolve) => this.#sendQueries({ type: "queries", runs, resolve, losses: 0 }));
  }

  /** Runs an action. */
  action(call: Call): Promise<Outcome> {
    return new Promise((resolve) => {
      const id = this.#track({ type: "action", resolve });
      this.#post({ type: "action", id, call });
    });
  }

  /** Runs an HTTP action; null when its worker was lost. */
  http(request: HttpTask): Promise<HttpAnswer | null> {
    return new Promise((resolve) => {
      const id = this.#track({ type: "http", resolve });
      this.#post({ type: "http", id, request });
    });
  }

  /** The duties whose time has come. */
  due(running: string[]): Promise<DueAnswer> {
    return new Promise((resolve) => {
      const id = this.#track({ type: "due", running, resolve });
      this.#post({ type: "due", id, running });
    });
  }

  /** Stops keeping a watch's read set. */
  forget(watch: string): void {
    this.#post({ type: "forget", watch });
  }

  /** Moves the clock past a timestamp that a client has seen. */
  observe(ts: bigint): void {
    if (ts <= this.ts) return;
    this.ts = ts;
    this.#post({ type: "observe", ts });
  }

  /** Lets the batch in hand finish, then ends the worker. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    const worker = this.#worker;
    if (worker === null) return;
    const ended = new Promise((resolve) => worker.once("exit", resolve));
    this.#post({ type: "stop" });
    await ended;
  }

  #track(entry: InFlight): number {
    const id = ++this.#lastId;
    this.#inFlight.set(id, entry);
    return id;
  }

  #post(message: ToWorker): void {
    if (this.#held !== null) this.#held.push(message);
    else this.#worker?.postMessage(message);
  }

  #pump(): void {
    if (this.#batchRunning || this.#queue.length === 0 || this.#held !== null || this.#stopping) return;
    this.#batchRunning = true;
    const queued = this.#queue.splice(0, MAX_BATCH);
    const id = this.#track({ type: "batch", queued });
    this.#post({ type: "batch", id, tasks: queued.map(({ task }) => task) });
  }

  #sendQueries(entry: InFlight & { type: "queries" }): void {
    const id = this.#track(entry);
    this.#post({ type: "queries", id, runs: entry.runs });
  }

  #spawn(): Promise<void> {
    this.#held ??= [];
    this.#progress = new Float64Array(new SharedArrayBuffer(PROGRESS.length * 8));
    const file = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.mjs";
    const settings: WorkerSettings = {
      ...this.#settings,
      progress: this.#progress.buffer as SharedArrayBuffer,
    };
    const worker = new Worker(new URL(file, import.meta.url), {
      workerData: settings,
      resourceLimits: WORKER_LIMITS,
    });
    this.#worker = worker;
    return new Promise((resolve, reject) => {
      let failure = "";
      worker.on("error", (error: Error) => {
        failure = error.message;
      });
      worker.on("exit", () => {
        reject(new Error(failure || "the worker ended before it was ready"));
        if (this.#worker === worker && !this.#stopping && this.#held === null)
          this.#replace(failure || "it ended");
      });
      worker.on("message", (message: FromWorker) => {
        if (this.#worker !== worker) return;
        if (message.type === "ready") {
          this.#ready(message);
          resolve();
        } else if (message.type === "failed") {
          this.#worker = null;
          void worker.terminate();
          reject(new Error(message.message));
        } else {
          this.#receive(message);
        }
      });
    });
  }

  #ready(message: Extract<FromWorker, { type: "ready" }>): void {
    this.functions = new Map(message.functions);
    if (message.ts > this.ts) this.ts = message.ts;
    const held = this.#held ?? [];
    this.#held = null;
    for (const waiting of held) this.#post(waiting);
    this.events.nextDue(message.nextDue);
    this.#pump();
  }

  #receive(message: FromWorker): void {
    if (message.type === "call") {
      void this.events.called(message.target).then((outcome) => {
        this.#post({ type: "answer", id: message.id, outcome });
      });
      return;
    }
    if (message.type === "ready" || message.type === "failed") return;
    const entry = this.#inFlight.get(message.id);
    this.#inFlight.delete(message.id);
    if (message.type === "batch" && entry?.type === "batch") {
      this.#batchRunning = false;
      this.#pump();
      this.ts = message.ts;
      this.events.committed(message.touched);
      entry.queued.forEach(({ resolve }, position) => resolve(message.outcomes[position] as MutationAnswer));
      this.events.nextDue(message.nextDue);
    } else if (message.type === "queries" && entry?.type === "queries") {
      entry.resolve({ outcomes: message.outcomes, ts: message.ts });
    } else if (message.type === "action" && entry?.type === "action") {
      entry.resolve(message.outcome);
    } else if (message.type === "http" && entry?.type === "http") {
      entry.resolve(message.answer);
    } else if (message.type === "due" && entry?.type === "due") {
      entry.resolve(message);
    }
  }

  #watch(): void {
    const progress = this.#progress;
    const startedAt = progress[PROGRESS.startedAt] as number;
    const wall = monotonicMs() - startedAt;
    if (startedAt === 0 || this.#held !== null || wall <= MAX_RUN_MS) return;
    if (wall > MAX_WALL_MS) {
      this.#replace(null);
      return;
    }
    const cpuAt = progress[PROGRESS.cpuAt] as number;
    const judge = ({ user, system }: NodeJS.CpuUsage): void => {
      const same = this.#progress === progress && progress[PROGRESS.startedAt] === startedAt;
      if (same && (user + system) / 1000 - cpuAt > MAX_RUN_MS) this.#replace(null);
    };
    // a worker that is just ending has no usage to tell
    this.#worker?.cpuUsage().then(judge, () => undefined);
  }

  /** Ends the worker and starts another. @param reason why it was lost; null when a function ran too long. */
  #replace(reason: string | null): void {
    const lost = this.#worker;
    const culprit = this.#culprit();
    const inFlight = this.#inFlight;
    this.#inFlight = new Map();
    this.#worker = null;
    this.#held = [];
    this.#batchRunning = false;
    const fault = reason === null ? "cut" : "engine";
    const failure: Outcome = { ok: false, fault, message: failureText(reason, culprit?.path) };
    for (const [id, entry] of inFlight) {
      this.#recover(entry, culprit?.message === id ? culprit.position : null, culprit !== null, failure);
    }
    const spawn = async (): Promise<void> => {
      // the old worker's hold on the database ends with it
      await lost?.terminate();
      await this.#spawn();
      this.events.replaced();
    };
    spawn().catch((error: unknown) => this.events.broken((error as Error).message));
  }

  /** What ran when the worker was lost. */
  #culprit(): { message: number; position: number; path: string } | null {
    if (this.#progress[PROGRESS.startedAt] === 0) return null;
    const message = this.#progress[PROGRESS.message] as number;
    const position = this.#progress[PROGRESS.position] as number;
    const entry = this.#inFlight.get(message);
    const task = entry?.type === "batch" ? entry.queued[position]?.task : null;
    const call =
      task?.type === "mutation"
        ? task.call
        : entry?.type === "queries"
          ? entry.runs[position]?.call
          : undefined;
    return { message, position, path: call?.path ?? "housekeeping" };
  }

  #recover(entry: InFlight, guilty: number | null, known: boolean, failure: Outcome): void {
    const again = (losses: number): boolean => known || losses < MAX_LOSSES;
    switch (entry.type) {
      case "batch": {
        const rest = entry.queued.filter((queued, position) => {
          queued.losses++;
          if (position !== guilty && again(queued.losses)) return true;
          queued.resolve({ outcome: failure, ts: this.ts });
          return false;
        });
        this.#queue.unshift(...rest);
        return;
      }
      case "queries":
        this.#recoverQueries(entry, guilty, again(++entry.losses), failure);
        return;
      case "action":
        entry.resolve({
          ok: false,
          fault: "engine",
          message: `${LOST}: the action may have done a part of its work.`,
        });
        return;
      case "http":
        entry.resolve(null);
        return;
      case "due":
        entry.resolve({ duties: [], nextDue: Date.now() + WATCH_EVERY_MS });
    }
  }

  #recoverQueries(
    entry: InFlight & { type: "queries" },
    guilty: number | null,
    again: boolean,
    failure: Outcome,
  ): void {
    const rest = entry.runs.filter((_, position) => position !== guilty && again);
    const merge = (answers: QueryAnswers): void => {
      const outcomes = entry.runs.map((run) => answers.outcomes[rest.indexOf(run)] ?? failure);
      entry.resolve({ outcomes, ts: answers.ts });
    };
    if (rest.length === 0) merge({ outcomes: [], ts: this.ts });
    else this.#sendQueries({ type: "queries", runs: rest, resolve: merge, losses: entry.losses });
  }
}

function failureText(reason: string | null, path: string | undefined): string {
  const what = path === undefined ? "This function" : `Function ${path}`;
  return reason === null
    ? `${what} execution timed out (maximum duration: ${MAX_RUN_MS / 1000}s).`
    : `${what} was stopped: ${LOST} (${reason}).`;
}
