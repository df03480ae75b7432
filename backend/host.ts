/**
 * The main thread's side of the engine: owns the worker, queues mutations and sends them in batches, watches the clock of
 * whatever runs, replaces the worker when it is stuck or lost, and puts one with new functions in its place.
 *
 *   mutation  queued ──> in a batch ──> prepared ──> answered (its commit is on disk)
 *                          │               └──> worker lost: the next worker finds the commit in the file: answered
 *                          └───────────────┴──> worker lost, no commit: the culprit fails, the others are queued again
 *   query     sent ──> answered; worker lost: the culprit fails, the others are sent again
 *   action    sent ──> answered; worker lost: fails, for nobody knows how far it came
 */
import {
  failureOf,
  pathOf,
  preparedAnswer,
  recover,
  settle,
  take,
  type DueAnswer,
  type InFlight,
  type Loss,
  type MutationAnswer,
  type QueryAnswers,
  type Queued,
} from "./inflight.ts";
import type {
  ActionCall,
  Call,
  FunctionSummary,
  HttpAnswer,
  HttpTask,
  MutationTask,
  Outcome,
  QueryTask,
  ToWorker,
  WorkerSettings,
} from "./messages.ts";
import { Thread, type Ready, type Said } from "./thread.ts";

/** Mutations that share one commit at most: beyond it, the first of a batch would wait for the last. */
const MAX_BATCH = 64;
/** How often the watchdog looks, ms. */
const WATCH_EVERY_MS = 100;
/** How long the modules of new functions may take to load, ms. */
const MAX_LOAD_MS = 10_000;
/** How long a stop may wait for the batch in hand, ms: nothing that was answered is lost without it. */
const MAX_STOP_MS = 5000;

/** What the host tells whoever is interested. */
export type HostEvents = {
  /** A commit is on disk. */
  committed: (touched: string[]) => void;
  /** When the next duty falls due, ms since the epoch. */
  nextDue: (at: number | null) => void;
  /** Another worker is there: read sets are lost, and the functions may be others. */
  replaced: () => void;
  /** An action calls. */
  called: (target: ActionCall) => Promise<Outcome>;
  /** The engine cannot go on. */
  broken: (message: string) => void;
};

const BLOCKED = "an action computed for too long without a pause";

/** Owns the worker. */
export class Host {
  readonly events: HostEvents;
  readonly #settings: Omit<WorkerSettings, "progress">;
  #thread: Thread | null = null;
  /** Threads with functions of before, in which actions still run. */
  readonly #retired = new Set<Thread>();
  /** Messages that wait for a thread to be ready; null when one is. */
  #held: ToWorker[] | null = [];
  /** Whether a thread with new functions is taking over. */
  #reloading = false;
  /** Resolves when it is known what the last lost thread has left. */
  #lost: Promise<void> = Promise.resolve();
  /** The last reload; never rejects. */
  #reloaded: Promise<void> = Promise.resolve();
  #inFlight = new Map<number, InFlight>();
  #queue: Queued[] = [];
  #batchRunning = false;
  #lastId = 0;
  #watchdog: NodeJS.Timeout | null = null;
  #loss: Loss | null = null;
  #stopping = false;
  /** The app's functions by canonical path. */
  functions = new Map<string, FunctionSummary>();
  /** Grows by one with each change of the functions. */
  generation = 0;
  /** The last commit known here. */
  ts = 0n;

  constructor(settings: Omit<WorkerSettings, "progress">, events: HostEvents) {
    this.#settings = { ...settings };
    this.events = events;
  }

  /** Starts the worker. @throws Error with the reason why the app or the data cannot be used. */
  start(): Promise<void> {
    this.#watchdog = setInterval(() => this.#watch(), WATCH_EVERY_MS).unref();
    return this.#spawn(false);
  }

  /**
   * Puts new functions in the place of the running ones. Calls wait while the schema is applied; running actions end on the
   * functions that they began with.
   *
   * @throws Error with the reason why the new ones cannot be used; those of before serve on.
   */
  reload(bundle: string): Promise<void> {
    const reload = this.#reloaded.then(() => this.#takeIn(bundle));
    this.#reloaded = reload.catch(() => undefined);
    return reload;
  }

  /** Runs a mutation; resolves when its commit is on disk, or it has failed. */
  mutation(task: MutationTask): Promise<MutationAnswer> {
    return new Promise((resolve) => {
      this.#queue.push({ task, resolve, losses: 0 });
      this.#pump();
    });
  }

  /** Runs queries on what is committed, all on one snapshot. */
  async queries(runs: QueryTask[]): Promise<Outcome[]> {
    return (await this.#query(runs, null)).outcomes as Outcome[];
  }

  /** Runs a query on a snapshot; null when that is not kept any more. */
  async queryAt(run: QueryTask, at: bigint): Promise<Outcome | null> {
    return (await this.#query([run], at)).outcomes?.[0] ?? null;
  }

  /** Keeps what is committed now readable for a while. @returns its timestamp; null when the worker was lost. */
  snapshot(): Promise<bigint | null> {
    return this.#ask<bigint | null>(
      (resolve) => ({ type: "snapshot", resolve }),
      (id) => ({ type: "snapshot", id }),
    );
  }

  /** Runs an action. */
  action(call: Call): Promise<Outcome> {
    return this.#ask<Outcome>(
      (resolve) => ({ type: "action", resolve }),
      (id) => ({ type: "action", id, call }),
    );
  }

  /** Runs an HTTP action; null when its worker was lost. */
  http(request: HttpTask): Promise<HttpAnswer | null> {
    return this.#ask<HttpAnswer | null>(
      (resolve) => ({ type: "http", resolve }),
      (id) => ({ type: "http", id, request }),
    );
  }

  /** The duties whose time has come. */
  due(running: string[]): Promise<DueAnswer> {
    return this.#ask<DueAnswer>(
      (resolve) => ({ type: "due", running, resolve }),
      (id) => ({ type: "due", id, running }),
    );
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

  /** Lets the batch in hand finish, then ends the worker; a function that runs too long is cut off as ever. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const thread = this.#thread;
    const bound = setTimeout(() => void thread?.terminate(), MAX_STOP_MS);
    thread?.post({ type: "stop" });
    await thread?.ended;
    clearTimeout(bound);
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
  }

  #track(entry: InFlight): number {
    const id = ++this.#lastId;
    this.#inFlight.set(id, entry);
    return id;
  }

  #ask<Answer>(
    entry: (resolve: (answer: Answer) => void) => InFlight,
    message: (id: number) => ToWorker,
  ): Promise<Answer> {
    return new Promise((resolve) => this.#post(message(this.#track(entry(resolve)))));
  }

  #query(runs: QueryTask[], at: bigint | null): Promise<QueryAnswers> {
    return new Promise((resolve) => this.#sendQueries({ type: "queries", runs, at, resolve, losses: 0 }));
  }

  #post(message: ToWorker): void {
    if (this.#held !== null) this.#held.push(message);
    else this.#thread?.post(message);
  }

  #pump(): void {
    if (this.#batchRunning || this.#queue.length === 0 || this.#held !== null || this.#stopping) return;
    this.#batchRunning = true;
    const queued = this.#queue.splice(0, MAX_BATCH);
    const id = this.#track({ type: "batch", queued, prepared: null });
    this.#post({ type: "batch", id, tasks: queued.map(({ task }) => task) });
  }

  /** What can begin again after its thread was lost. */
  readonly #again = {
    batch: (rest: Queued[]): void => {
      this.#batchRunning = false;
      this.#queue.unshift(...rest);
    },
    queries: (entry: InFlight & { type: "queries" }): void => this.#sendQueries(entry),
    dueAt: (): number => Date.now() + WATCH_EVERY_MS,
    ts: (): bigint => this.ts,
  };

  #sendQueries(entry: InFlight & { type: "queries" }): void {
    this.#post({ type: "queries", id: this.#track(entry), runs: entry.runs, at: entry.at });
  }

  #launch(bundle: string): Thread {
    const thread: Thread = new Thread({ ...this.#settings, bundle }, (said) => {
      if (said.type === "call") this.#answerCall(thread, said);
      else this.#receive(thread, said);
    });
    void thread.ended.then((reason) => {
      if (this.#retired.has(thread)) this.#dropRetired(thread);
      else if (this.#thread === thread && !this.#stopping) this.#replace(reason);
    });
    return thread;
  }

  /** @param replaces whether a thread of this process was lost: what that one left, is known here. */
  async #spawn(replaces: boolean): Promise<void> {
    this.#held ??= [];
    const thread = this.#launch(this.#settings.bundle);
    thread.post({ type: "takeOver", replaces });
    try {
      this.#serve(thread, await thread.ready);
    } catch (error) {
      void thread.terminate();
      throw error;
    }
  }

  #serve(thread: Thread, ready: Ready): void {
    this.#thread = thread;
    this.functions = new Map(ready.functions);
    if (ready.ts < this.ts) thread.post({ type: "observe", ts: this.ts });
    else this.ts = ready.ts;
    // before anybody is answered: subscribers must not take results of before for the ones after
    if (this.#loss !== null || this.#reloading) this.events.replaced();
    for (const [id, entry] of this.#loss?.entries ?? []) {
      recover(id, entry, this.#loss as Loss, ready.storedTs, this.#again);
    }
    this.#loss = null;
    this.events.nextDue(ready.nextDue);
    this.#goOn();
  }

  #goOn(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const waiting of held) this.#post(waiting);
    this.#pump();
  }

  async #takeIn(bundle: string): Promise<void> {
    const candidate = this.#launch(bundle);
    try {
      await candidate.load(MAX_LOAD_MS);
      await this.#rest();
      candidate.post({ type: "takeOver", replaces: true });
      const ready = await candidate.ready;
      await this.#lost;
      const former = this.#thread;
      this.#settings.bundle = bundle;
      this.generation++;
      this.#serve(candidate, ready);
      if (former !== null) this.#retired.add(former);
      if (former?.open.size === 0) this.#dropRetired(former);
    } catch (error) {
      await Promise.all([candidate.terminate(), this.#lost]);
      // the functions of before serve on, in another thread if theirs was lost meanwhile
      if (this.#reloading && this.#thread === null) await this.#spawn(true);
      else if (this.#reloading) this.#goOn();
      throw error;
    } finally {
      this.#reloading = false;
    }
  }

  /** Holds what comes, and waits until the thread has answered all but actions, or is lost. */
  async #rest(): Promise<void> {
    // a thread that was lost before is replaced first
    while (this.#held !== null) await new Promise((resolve) => setTimeout(resolve, WATCH_EVERY_MS));
    this.#reloading = true;
    await new Promise<void>((resolve) => {
      this.#post({ type: "rest", id: this.#track({ type: "rest", resolve }) });
      this.#held = [];
    });
  }

  #dropRetired(thread: Thread): void {
    this.#retired.delete(thread);
    void thread.terminate();
    const entries = take(this.#inFlight, [...thread.open]);
    const loss: Loss = { entries, culprit: null, failure: failureOf("it ended") };
    for (const [id, entry] of entries) recover(id, entry, loss, 0n, this.#again);
  }

  #answerCall(thread: Thread, { id, target }: Said & { type: "call" }): void {
    if (this.#thread !== thread && !this.#retired.has(thread)) return;
    // another thread numbers its calls anew
    void this.events.called(target).then((outcome) => thread.post({ type: "answer", id, outcome }));
  }

  #receive(thread: Thread, message: Exclude<Said, { type: "call" }>): void {
    const entry = this.#inFlight.get(message.id);
    if (message.type === "prepared") {
      if (entry?.type === "batch") entry.prepared = message;
      return;
    }
    this.#inFlight.delete(message.id);
    thread.open.delete(message.id);
    if (this.#retired.has(thread) && thread.open.size === 0) this.#dropRetired(thread);
    if (message.type === "batch" && entry?.type === "batch") {
      this.#batchRunning = false;
      this.#pump();
      this.ts = message.ts;
      this.events.committed(message.touched);
      const { failure, ts } = message;
      entry.queued.forEach(({ resolve }, position) =>
        resolve(failure === null ? preparedAnswer(entry.prepared, position) : { outcome: failure, ts }),
      );
      this.events.nextDue(message.nextDue);
    } else if (message.type !== "batch" && entry !== undefined) {
      settle(entry, message);
    }
  }

  #watch(): void {
    const thread = this.#thread;
    void thread?.stuck().then((stuck) => {
      if (stuck === null || this.#thread !== thread) return;
      this.#replace(stuck === "run" ? null : BLOCKED);
    });
    for (const retired of this.#retired) {
      void retired.stuck().then((stuck) => stuck !== null && this.#dropRetired(retired));
    }
  }

  /** Ends the worker and starts another. @param reason why it was lost; null when a function ran too long. */
  #replace(reason: string | null): void {
    const lost = this.#thread as Thread;
    if (this.#stopping) {
      void lost.terminate();
      return;
    }
    const judged = reason === null ? lost.culprit() : null;
    const elsewhere = new Set([...this.#retired].flatMap(({ open }) => [...open]));
    // what is held was not sent yet
    for (const message of this.#held ?? []) if ("id" in message) elsewhere.add(message.id);
    const ids = [...this.#inFlight.keys()].filter((id) => !elsewhere.has(id));
    this.#thread = null;
    this.#held ??= [];
    const lose = async (): Promise<void> => {
      // the old worker's hold on the database ends with it; what it has said by then has been heard
      await lost.terminate();
      const found = lost.culprit();
      // the one that ran too long may have come to its end after all
      const culprit = reason === null && found?.startedAt !== judged?.startedAt ? null : found;
      const entries = take(this.#inFlight, ids);
      this.#loss = { entries, culprit, failure: failureOf(reason, pathOf(entries, culprit)) };
    };
    this.#lost = lose();
    const replace = (): Promise<void> | void => {
      if (!this.#reloading) return this.#spawn(true);
      // new functions that are taking over take this over too
      for (const [, entry] of this.#loss?.entries ?? []) if (entry.type === "rest") entry.resolve();
    };
    this.#lost.then(replace).catch((error: unknown) => this.events.broken((error as Error).message));
  }
}
