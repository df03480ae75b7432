/**
 * The engine: runs mutations in batches, one after another in one SQLite transaction with a savepoint each, and queries on
 * what is committed. It lives in the worker and is the only writer.
 */
import { applyCrons, advanceCron, dueCrons, nextCronAt } from "./crons.ts";
import { Clock } from "./clock.ts";
import type { App, Definition } from "./functions.ts";
import {
  cancelJob,
  dueJobs,
  failedState,
  failInterrupted,
  jobState,
  moveJob,
  nextJobAt,
  pruneJobs,
  scheduleJob,
} from "./jobs.ts";
import type {
  DueDuty,
  Duty,
  FromWorker,
  FunctionKind,
  Housekeeping,
  MutationTask,
  Outcome,
  QueryTask,
} from "./messages.ts";
import type { ReadSet } from "./reads.ts";
import { describeError, invoke, newRun, settle } from "./runtime.ts";
import { applySchema, type DocumentChecks } from "./schema.ts";
import { Snapshots } from "./snapshots.ts";
import { Store } from "./store.ts";
import { name as kindName, pathOf } from "./syscalls.ts";
import { Transaction, type World } from "./transaction.ts";
import { inTransaction } from "./upgrade.ts";
import type { JsonObject } from "./values.ts";

/** How long the answer to a client's mutation is kept for a repeated request, as on Convex. */
const SESSION_KEEP_MS = 14 * 24 * 3600 * 1000;
/** Sessions pruned in one go. */
const MAX_PRUNED_SESSIONS = 2000;

const NOTHING: Outcome = { ok: true, value: "null" };

/** Tells the watchdog what runs: its place in the message, or null when nothing does. */
export type Progress = (position: number | null) => void;

type Prepared = Extract<FromWorker, { type: "prepared" }>;
type BatchAnswer = Extract<FromWorker, { type: "batch" }>;

/** A failure of ours, as an outcome. */
function systemFailure(error: unknown): Outcome {
  return { ok: false, fault: "engine", message: `The database failed: ${(error as Error).message}` };
}

/** The engine of one data folder and one app. */
export class Engine {
  readonly store: Store;
  readonly snapshots: Snapshots;
  readonly clock: Clock;
  /** The timestamp of the last commit that was in the file when it was opened. */
  readonly storedTs: bigint;
  readonly #now: () => number;
  readonly #progress: Progress;
  #app: App | null = null;
  #checks: DocumentChecks = new Map();
  readonly #world: World;
  /** Read sets of the queries that somebody subscribes to. */
  readonly #watches = new Map<string, ReadSet>();
  #running: string[] = [];

  /** @param now the wall clock, ms since the epoch. */
  constructor(file: string, now: () => number, progress: Progress) {
    this.store = new Store(file);
    this.snapshots = new Snapshots(file);
    this.storedTs = BigInt((this.store.meta("ts") as string | undefined) ?? "0");
    this.clock = new Clock(this.storedTs, this.store.lastSequence());
    this.#now = now;
    this.#progress = progress;
    this.#world = {
      store: this.store,
      clock: this.clock,
      documentCheck: (table) => this.#checks.get(table),
    };
  }

  get #loaded(): App {
    if (this.#app === null) throw new Error("no app is loaded");
    return this.#app;
  }

  /**
   * Takes the app up: schema, crons, and what the last process left unfinished.
   *
   * @param replaces whether a worker of this process was lost, so that the main thread ends what it left.
   * @throws Error when the data does not fit.
   */
  start(app: App, replaces: boolean): void {
    this.#app = app;
    const now = this.#now();
    inTransaction(this.store.db, () => {
      this.#checks = applySchema(this.store, app.schema);
      applyCrons(this.store, app, now);
      const tx = new Transaction(this.#world, true, now, this.clock.nextTs(now));
      if (!replaces) failInterrupted(tx);
    });
  }

  /** When the next duty falls due, ms since the epoch. */
  nextDue(): number | null {
    const times = [
      nextJobAt(this.store),
      nextCronAt(this.store, this.#loaded, this.#now(), this.#running),
    ].filter((time) => time !== null);
    return times.length > 0 ? Math.min(...times) : null;
  }

  /** The duties whose time has come. @param running names of crons whose last run has not ended. */
  due(running: string[]): DueDuty[] {
    this.#running = running;
    const now = this.#now();
    return [...dueCrons(this.store, this.#loaded, now, running), ...dueJobs(this.store, this.#loaded, now)];
  }

  /** Stops watching a query. */
  forget(watch: string): void {
    this.#watches.delete(watch);
  }

  /**
   * Runs mutations as one commit. When it returns, they are on disk, and may be answered; a commit that fails is every
   * mutation's failure.
   *
   * @param prepare is told the outcomes just before the commit, so that they are known even when this thread is
   *   lost while it commits.
   */
  async runBatch(
    id: number,
    tasks: MutationTask[],
    prepare: (prepared: Prepared) => void,
  ): Promise<BatchAnswer> {
    const outcomes: Prepared["outcomes"] = [];
    const transactions: Transaction[] = [];
    const { db } = this.store;
    try {
      db.exec("BEGIN IMMEDIATE");
      for (const [position, task] of tasks.entries()) {
        const now = this.#now();
        const tx = new Transaction(this.#world, true, now, this.clock.nextTs(now));
        transactions.push(tx);
        this.#progress(position);
        const outcome = await this.#runTask(tx, task);
        this.#progress(null);
        if (tx.failure !== null) throw tx.failure;
        // a full disk makes SQLite roll the whole transaction back by itself
        if (!db.isTransaction) throw new Error("SQLite has rolled the transaction back");
        outcomes.push(outcome);
      }
      const { ts } = this.clock;
      this.store.setMeta("ts", String(ts));
      prepare({ type: "prepared", id, outcomes, ts });
      db.exec("COMMIT");
    } catch (error) {
      this.#progress(null);
      if (db.isTransaction) db.exec("ROLLBACK");
      for (const tx of transactions) tx.forgetTables();
      const failure = systemFailure(error);
      return { type: "batch", id, failure, ts: this.clock.ts, touched: [], nextDue: this.nextDue() };
    }
    const touched = this.#touched(transactions);
    return { type: "batch", id, failure: null, ts: this.clock.ts, touched, nextDue: this.nextDue() };
  }

  /** Keeps what is committed now readable for a while. @returns the timestamp to ask for it. */
  keepSnapshot(): bigint {
    this.snapshots.keep(this.clock.ts, this.#now());
    return this.clock.ts;
  }

  /**
   * Runs queries, all on one snapshot.
   *
   * @param at the timestamp of a kept one; null for what is committed now.
   * @returns null when the snapshot is not kept any more.
   */
  async runQueries(runs: QueryTask[], at: bigint | null): Promise<Outcome[] | null> {
    const store = at === null ? this.store : this.snapshots.at(at);
    if (store === undefined) return null;
    const world = at === null ? this.#world : { ...this.#world, store };
    const outcomes: Outcome[] = [];
    for (const [position, { call, journal, watch }] of runs.entries()) {
      const tx = new Transaction(world, false, this.#now(), at ?? this.clock.ts);
      this.#progress(position);
      const definition = this.#definition(call.path, "query");
      if ("ok" in definition) {
        outcomes.push(definition);
      } else {
        const run = newRun(definition, call, tx, journal);
        outcomes.push(await settle(run, () => invoke(definition, run)));
      }
      this.#progress(null);
      if (watch !== null) this.#watches.set(watch, tx.reads);
    }
    return outcomes;
  }

  #definition(path: string, kind: FunctionKind): Definition | (Outcome & { ok: false }) {
    const definition = this.#loaded.functions.get(path);
    if (definition === undefined) return { ok: false, message: `Could not find function for '${path}'.` };
    if (definition.kind === kind) return definition;
    const message = `Trying to execute ${path} as ${kindName(kind)}, but it is defined as ${kindName(definition.kind)}.`;
    return { ok: false, message };
  }

  async #runTask(tx: Transaction, task: MutationTask): Promise<{ outcome: Outcome; ts: bigint }> {
    const answer = (outcome: Outcome, ts = tx.ts) => ({ outcome, ts });
    if (task.type === "housekeeping") return answer(this.#keepHouse(tx, task.work));
    const known = task.session && this.#knownAnswer(task.session);
    if (known) return answer({ ok: true, value: known.result }, known.ts);
    if (task.duty !== undefined && !this.#takeUp(tx, task.duty)) return answer(NOTHING);
    const savepoint = tx.savepoint();
    const definition = this.#definition(task.call.path, "mutation");
    let outcome: Outcome;
    if ("ok" in definition) {
      outcome = definition;
    } else {
      const run = newRun(definition, task.call, tx);
      outcome = await settle(run, () => invoke(definition, run));
    }
    // nothing of the batch stays: a duty is to be taken up again
    if (tx.failure !== null || !this.store.db.isTransaction) return answer(outcome);
    if (outcome.ok) {
      this.#remember(tx, task, outcome.value);
      tx.release(savepoint);
    } else {
      tx.rollback(savepoint);
    }
    if (task.duty?.type === "job") moveJob(tx, task.duty.id, finalState(outcome));
    return answer(outcome);
  }

  /** Whether a duty is still to be done; a cron's next run is written down with it. */
  #takeUp(tx: Transaction, duty: Duty): boolean {
    return duty.type === "job"
      ? jobState(tx, duty.id) === "pending"
      : advanceCron(this.store, this.#loaded, duty.name, tx.now);
  }

  #knownAnswer(session: { id: string; request: number }): { result: string; ts: bigint } | undefined {
    const [row] = this.store.rows(
      "SELECT result, ts FROM sessions WHERE session = ? AND request = ?",
      session.id,
      session.request,
    ) as [string, string][];
    return row && { result: row[0], ts: BigInt(row[1]) };
  }

  #remember(tx: Transaction, task: MutationTask & { type: "mutation" }, result: string): void {
    if (task.session === undefined) return;
    const { id, request } = task.session;
    this.store.run("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", id, request, result, String(tx.ts), tx.now);
  }

  #keepHouse(tx: Transaction, work: Housekeeping): Outcome {
    const savepoint = tx.savepoint();
    try {
      const value = this.#housekeeping(tx, work);
      tx.release(savepoint);
      return { ok: true, value };
    } catch (error) {
      tx.rollback(savepoint);
      return describeError(error);
    }
  }

  /** @returns JSON text: of a claim whether the duty is the caller's, of a schedule the id, of pruning whether to go on. */
  #housekeeping(tx: Transaction, work: Housekeeping): string {
    switch (work.type) {
      case "claim": {
        const mine = this.#takeUp(tx, work.duty);
        if (mine && work.duty.type === "job") moveJob(tx, work.duty.id, { kind: "inProgress" });
        return String(mine);
      }
      case "finish": {
        const { duty, error } = work;
        if (duty.type === "job") {
          const open = ["pending", "inProgress"].includes(jobState(tx, duty.id) ?? "");
          if (open) moveJob(tx, duty.id, error === null ? { kind: "success" } : failedState(error));
        } else {
          advanceCron(this.store, this.#loaded, duty.name, tx.now);
        }
        return "null";
      }
      case "schedule": {
        const request = JSON.parse(work.args) as JsonObject;
        return JSON.stringify(scheduleJob(tx, this.#loaded, pathOf(request), request));
      }
      case "cancel":
        cancelJob(tx, work.id);
        return "null";
      case "prune":
        return String(this.#prune(tx));
    }
  }

  #prune(tx: Transaction): boolean {
    const sessions = this.store.rows(
      "SELECT session, request FROM sessions WHERE at < ? ORDER BY at LIMIT +?",
      tx.now - SESSION_KEEP_MS,
      MAX_PRUNED_SESSIONS,
    ) as [string, number][];
    for (const [session, request] of sessions) {
      this.store.run("DELETE FROM sessions WHERE session = ? AND request = ?", session, request);
    }
    const moreJobs = pruneJobs(tx);
    return moreJobs || sessions.length === MAX_PRUNED_SESSIONS;
  }

  /** The watches whose read sets were touched; they are not watched any more. */
  #touched(transactions: Transaction[]): string[] {
    const touched: string[] = [];
    const writes = transactions.flatMap((tx) => tx.writes);
    const created = transactions.flatMap((tx) => tx.createdTables());
    for (const [watch, reads] of this.#watches) {
      const hit =
        writes.some((write) => reads.touchedBy(write)) || created.some((name) => reads.missing.has(name));
      if (!hit) continue;
      touched.push(watch);
      this.#watches.delete(watch);
    }
    return touched;
  }

  /** Ends the engine; nothing may be called afterwards. */
  close(): void {
    this.snapshots.close();
    this.store.close();
  }
}

function finalState(outcome: Outcome): JsonObject {
  return outcome.ok ? { kind: "success" } : failedState(outcome.message);
}
