/**
 * Subscribed queries, shared: one run per (path, arguments, identity, journal) serves everybody who subscribes to it, and
 * runs again only when a commit touched what it read.
 *
 *   dirty ──> running ──> fresh ──(a commit touches its read set)──> dirty
 *
 * The worker's messages come in order: an answer reflects every commit whose message came before it, and a commit that
 * touches the new read set is told after it. So a query is fresh from its answer until it is named as touched, and the results
 * of queries that are fresh together belong to one timestamp, the last one known.
 */
import { resolveFunction, type Caller } from "./calls.ts";
import { monotonicMs } from "./clock.ts";
import type { Host } from "./host.ts";
import { errorMessage, newRequestId } from "./http.ts";
import type { Call, Outcome } from "./messages.ts";

/** A query runs again at most this often, ms, unless somebody waits for the own mutation: viewers see no difference, writers do. */
export const RERUN_EVERY_MS = 250;

/** Somebody who wants to know when a watch's result may have changed. */
export type Subscriber = { stale: () => void };

/** One shared query. */
export type Watch = {
  name: string;
  key: string;
  call: Call;
  admin: boolean;
  subscribers: Set<Subscriber>;
  /** Is not run, or not again: the function is not to be seen, or had to be cut off and would be again. */
  parked: boolean;
  dirty: boolean;
  running: Promise<void> | null;
  /** When it last ran, on the monotonic clock, ms. */
  ranAt: number;
  journal: string | null;
  /** The result as the tail of a modification of a Transition, after its type and query id. */
  type: "QueryUpdated" | "QueryFailed";
  text: string;
  /** The text's bytes, once somebody has needed them. */
  bytes: Buffer | null;
  /** Grows by one with each change of the result. */
  version: number;
};

/** All shared queries. */
export class Watches {
  readonly #host: Host;
  readonly #byKey = new Map<string, Watch>();
  readonly #byName = new Map<string, Watch>();
  /** The host's, when the functions were last looked up. */
  #generation = 0;
  #count = 0;
  /** Groups run one after another, and mutations in between: however much is watched, a writer waits for one group. Never rejects. */
  #lastRun: Promise<void> = Promise.resolve();

  constructor(host: Host) {
    this.#host = host;
  }

  /** Joins the query's subscribers. @param args JSON text of the argument array. */
  subscribe(
    subscriber: Subscriber,
    path: string,
    args: string,
    journal: string | null,
    caller: Caller,
  ): Watch {
    const key = JSON.stringify([caller.admin, path, args, journal]);
    let watch = this.#byKey.get(key);
    if (watch === undefined) {
      watch = this.#open(key, path, args, journal, caller);
      this.#byKey.set(key, watch);
      this.#byName.set(watch.name, watch);
    }
    watch.subscribers.add(subscriber);
    return watch;
  }

  /** Leaves; a query without subscribers is forgotten. */
  unsubscribe(watch: Watch, subscriber: Subscriber): void {
    watch.subscribers.delete(subscriber);
    if (watch.subscribers.size > 0) return;
    this.#byKey.delete(watch.key);
    this.#byName.delete(watch.name);
    this.#host.forget(watch.name);
  }

  /** A commit touched the read sets of these. */
  touched(names: string[]): void {
    for (const name of names) {
      const watch = this.#byName.get(name);
      if (watch !== undefined) this.#soil(watch);
    }
  }

  /** Another worker is there: no read set is known any more, and the functions may be others. */
  allTouched(): void {
    const sameFunctions = this.#generation === this.#host.generation;
    this.#generation = this.#host.generation;
    for (const watch of this.#byName.values()) {
      if (!sameFunctions) this.#lookUp(watch);
      this.#soil(watch);
    }
  }

  /** Finds the function behind a watch; when there is none, that is its result. */
  #lookUp(watch: Watch): void {
    const found = resolveFunction(this.#host, watch.call.path, "query", { admin: watch.admin });
    watch.parked = "ok" in found;
    if (!("ok" in found)) {
      watch.call = { ...watch.call, path: found.path };
    } else if (watch.running === null) {
      this.#settle(watch, found);
      for (const subscriber of watch.subscribers) subscriber.stale();
    }
  }

  /** Brings queries up to date together, in one group on one snapshot; those that run already are waited for. */
  async refresh(watches: Watch[]): Promise<void> {
    const due = watches.filter((watch) => watch.running === null && !watch.parked);
    if (due.length > 0) {
      const run = this.#lastRun.then(() => this.#run(due));
      this.#lastRun = run;
      for (const watch of due) watch.running = run;
    }
    await Promise.all(watches.map((watch) => watch.running));
  }

  async #run(due: Watch[]): Promise<void> {
    // nobody would tell the worker to forget the read set of one that was left meanwhile
    const wanted = due.filter((watch) => this.#byName.has(watch.name));
    if (wanted.length === 0) return;
    const runs = wanted.map(({ call, journal, name }) => ({ call, journal, watch: name }));
    const outcomes = await this.#host.queries(runs);
    wanted.forEach((watch, position) => this.#settle(watch, outcomes[position] as Outcome));
  }

  #open(key: string, path: string, args: string, journal: string | null, caller: Caller): Watch {
    const watch: Watch = {
      name: `w${++this.#count}`,
      key,
      call: {
        path,
        args,
        info: { ip: null, userAgent: null, requestId: newRequestId() },
        scheduledId: null,
      },
      admin: caller.admin,
      subscribers: new Set(),
      parked: false,
      dirty: true,
      running: null,
      ranAt: 0,
      journal,
      type: "QueryUpdated",
      text: "",
      bytes: null,
      version: 0,
    };
    this.#lookUp(watch);
    return watch;
  }

  #soil(watch: Watch): void {
    if (watch.dirty || watch.parked) return;
    watch.dirty = true;
    for (const subscriber of watch.subscribers) subscriber.stale();
  }

  #settle(watch: Watch, outcome: Outcome): void {
    watch.running = null;
    watch.dirty = false;
    watch.ranAt = monotonicMs();
    watch.parked ||= !outcome.ok && outcome.fault === "cut";
    if (outcome.ok) watch.journal = outcome.journal ?? null;
    const type = outcome.ok ? "QueryUpdated" : "QueryFailed";
    const journal = JSON.stringify(watch.journal);
    const text = outcome.ok
      ? `"value":${outcome.value},"logLines":[],"journal":${journal}}`
      : `${failureFields(outcome, watch)},"logLines":[],"journal":${journal}}`;
    if (type === watch.type && text === watch.text) return;
    watch.type = type;
    watch.text = text;
    watch.bytes = null;
    watch.version++;
  }
}

function failureFields(outcome: Outcome & { ok: false }, watch: Watch): string {
  const message = JSON.stringify(errorMessage(outcome, watch.call.info.requestId, watch.admin));
  return outcome.data === undefined
    ? `"errorMessage":${message}`
    : `"errorMessage":${message},"errorData":${outcome.data}`;
}
