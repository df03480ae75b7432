/**
 * Runs what falls due: scheduled functions and crons. The engine stores and hands them out (jobs.ts, crons.ts); here are
 * the timer and the order: mutations go through the ordinary queue, actions are claimed first.
 */
import type { Host } from "./host.ts";
import type { Call, DueDuty, Duty, Housekeeping, Outcome } from "./messages.ts";

/** Longest sleep, ms: a wall clock that was set is noticed within this. */
const MAX_SLEEP_MS = 30_000;
/** Pause after a duty failed because of us (a full disk), ms. */
const RETRY_MS = 2000;
/** How often finished jobs and old sessions are pruned, ms. */
const PRUNE_EVERY_MS = 3_600_000;

/** The runner of duties. */
export class Duties {
  readonly #host: Host;
  readonly #runningCrons = new Set<string>();
  #timer: NodeJS.Timeout | null = null;
  #pruner: NodeJS.Timeout | null = null;
  #pumping = false;
  #stopped = false;

  constructor(host: Host) {
    this.#host = host;
  }

  /** Starts pruning, at once too: a backend that is stopped every night must not grow; duties start by `wakeAt`. */
  start(): void {
    void this.#prune();
    this.#pruner = setInterval(() => void this.#prune(), PRUNE_EVERY_MS).unref();
  }

  /** Sets the timer. @param at ms since the epoch; null for nothing to do. */
  wakeAt(at: number | null): void {
    if (this.#pumping || this.#stopped) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (at === null) return;
    const sleep = Math.min(Math.max(0, at - Date.now()), MAX_SLEEP_MS);
    this.#timer = setTimeout(() => void this.#pump(), sleep);
  }

  /** Starts nothing more. */
  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#pruner !== null) clearInterval(this.#pruner);
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    let next: number | null = null;
    while (!this.#stopped) {
      const { duties, nextDue } = await this.#host.due([...this.#runningCrons]);
      next = nextDue;
      if (duties.length === 0) break;
      const fates = await Promise.all(duties.map((duty) => this.#take(duty)));
      next = Date.now() + RETRY_MS;
      if (fates.includes(false)) break;
    }
    this.#pumping = false;
    this.wakeAt(next);
  }

  #house(work: Housekeeping): Promise<Outcome> {
    return this.#host.mutation({ type: "housekeeping", work }).then(({ outcome }) => outcome);
  }

  /** Runs a mutation to its end, or an action to its claim. @returns false when it has to be tried again later. */
  async #take(due: DueDuty): Promise<boolean> {
    const call: Call = {
      path: due.path,
      args: due.args,
      info: { ip: null, userAgent: null, requestId: "" },
      scheduledId: due.duty.type === "job" ? due.duty.id : null,
    };
    if (due.kind !== "action") {
      const { outcome } = await this.#host.mutation({ type: "mutation", call, duty: due.duty });
      this.#report(due, outcome);
      if (outcome.ok || outcome.fault === undefined) return true;
      if (outcome.fault === "engine") return false;
      // its transaction is gone, and with it the note that it was taken up
      return (await this.#house({ type: "finish", duty: due.duty, error: outcome.message })).ok;
    }
    const claim = await this.#house({ type: "claim", duty: due.duty });
    if (claim.ok && claim.value === "true") void this.#act(due, call);
    return claim.ok;
  }

  async #act(due: DueDuty, call: Call): Promise<void> {
    const cron = due.duty.type === "cron" ? due.duty.name : null;
    if (cron !== null) this.#runningCrons.add(cron);
    const outcome = await this.#host.action(call);
    this.#report(due, outcome);
    if (cron === null) {
      await this.#finish(due.duty, outcome.ok ? null : outcome.message);
      return;
    }
    this.#runningCrons.delete(cron);
    void this.#pump();
  }

  /** Writes down how an action ended, however long the disk stays full. */
  async #finish(duty: Duty, error: string | null): Promise<void> {
    while (!this.#stopped && !(await this.#house({ type: "finish", duty, error })).ok) {
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS).unref());
    }
  }

  #report(due: DueDuty, outcome: Outcome): void {
    if (outcome.ok) return;
    const what = due.duty.type === "cron" ? `cron "${due.duty.name}"` : `scheduled function ${due.duty.id}`;
    process.stderr.write(`[${due.path}] ${what} failed: ${outcome.message}\n${outcome.stack ?? ""}\n`);
  }

  async #prune(): Promise<void> {
    for (;;) {
      const outcome = await this.#house({ type: "prune" });
      if (!outcome.ok || outcome.value !== "true" || this.#stopped) return;
    }
  }
}
