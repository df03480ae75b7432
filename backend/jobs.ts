/**
 * Scheduled functions: documents of `_scheduled_functions`, readable through `ctx.db.system`.
 *
 *   pending ──> success | failed        a mutation: written in its own transaction, so exactly once
 *   pending ──> inProgress ──> success | failed   an action: claimed before it starts, so at most once
 *   pending ──> canceled                `ctx.scheduler.cancel`; of a running action only the later start of what it
 *                                       schedules is nobody's business here: it runs on
 */
import type { App } from "./functions.ts";
import { afterPrefix, encodeKey } from "./keys.ts";
import type { DueDuty } from "./messages.ts";
import type { Index, Store, Table } from "./store.ts";
import type { Transaction } from "./transaction.ts";
import { sizeOf, type Json, type JsonObject } from "./values.ts";

const TABLE = "_scheduled_functions";
/** How far from now a function may be scheduled, ms (crates/udf/src/validation.rs). */
const MAX_DISTANCE_MS = 5 * 366 * 24 * 3600 * 1000;
/** Due jobs handed out at once: a batch's worth. */
const MAX_DUE = 64;
/** Rows pruned in one go, to keep a mutation's neighbour short. */
const MAX_PRUNED = 500;
/** Characters of an error that are kept: a line of a log on Convex. */
const MAX_ERROR_CHARS = 4096;
/** How long a finished job stays readable, as on Convex. */
export const KEEP_MS = 7 * 24 * 3600 * 1000;

function jobsTable(store: Store): Table {
  return store.table(TABLE) as Table;
}

function indexNamed(store: Store, name: string): Index {
  return jobsTable(store).indexes.find((index) => index.name === name) as Index;
}

/** `dir/file:fn` as Convex writes it in `name`: `dir/file.js:fn`. */
function storedName(path: string): string {
  const [module = "", name = "default"] = path.split(":");
  return `${module}.js:${name}`;
}

/**
 * Stores a function to be run later.
 *
 * @param request what npm convex sends: `ts` in seconds since the epoch, `args`.
 * @returns the job's id.
 * @throws Error with Convex's sentence for a function that cannot be scheduled, a time out of bounds, or too many jobs.
 */
export function scheduleJob(tx: Transaction, app: App, path: string, request: JsonObject): string {
  const definition = app.functions.get(path);
  if (definition === undefined) {
    throw new Error(`Attempted to schedule function at nonexistent path: ${path}`);
  }
  if (definition.kind === "query") {
    throw new Error(`Only mutations and actions can be scheduled. ${path} is a query.`);
  }
  const scheduledTime = (request.ts as number) * 1000;
  if (Math.abs(scheduledTime - tx.now) > MAX_DISTANCE_MS) {
    const side = scheduledTime > tx.now ? "in the future" : "in the past";
    throw new Error(`${new Date(scheduledTime).toISOString()} is more than 5 years ${side}`);
  }
  const args = [request.args as Json];
  tx.meter.add("functionsScheduled", 1);
  tx.meter.add("scheduledFunctionArgsBytes", sizeOf(args));
  return tx.insertRow(jobsTable(tx.world.store), {
    name: storedName(path),
    args,
    scheduledTime,
    state: { kind: "pending" },
  });
}

/** Cancels a job that has not finished; a finished one stays as it is. @throws Error for an id that is none of a job. */
export function cancelJob(tx: Transaction, id: string): void {
  const table = jobsTable(tx.world.store);
  const job = tx.systemDocument(table, id);
  if (job === undefined) {
    throw new Error(
      "Invalid scheduled function ID. The ID must be an ID on the '_scheduled_functions' table.",
    );
  }
  const { kind } = job.document.state as JsonObject;
  if (kind === "pending" || kind === "inProgress") moveJob(tx, id, { kind: "canceled" });
}

/** The state of a job that failed. */
export function failedState(message: string): JsonObject {
  return { kind: "failed", error: message.slice(0, MAX_ERROR_CHARS) };
}

/** Moves a job to a new state. @returns false when it is gone. */
export function moveJob(tx: Transaction, id: string, state: JsonObject): boolean {
  const table = jobsTable(tx.world.store);
  const job = tx.systemDocument(table, id);
  if (job === undefined) return false;
  const body: JsonObject = { ...job.document, state };
  delete body._id;
  delete body._creationTime;
  if (state.kind !== "inProgress") body.completedTime = tx.now;
  tx.updateRow(table, job.sequence, job.document, body);
  return true;
}

/** The state's word of a job; undefined when it is gone. */
export function jobState(tx: Transaction, id: string): string | undefined {
  const job = tx.systemDocument(jobsTable(tx.world.store), id);
  return job && ((job.document.state as JsonObject).kind as string);
}

function pendingRows(store: Store, hi: Buffer, limit: number): JsonObject[] {
  const index = indexNamed(store, "by_state");
  return store
    .rows(
      `SELECT d.doc FROM x${index.id} x CROSS JOIN d${jobsTable(store).number} d ON d.seq = x.seq
       WHERE x.key >= ? AND x.key < ? ORDER BY x.key LIMIT +?`,
      encodeKey(["pending"]),
      hi,
      limit,
    )
    .map(([doc]) => JSON.parse(doc as string) as JsonObject);
}

/** Jobs whose time has come at `now`, oldest first, as they are to be run. A job of a function that is gone runs as a mutation, and fails. */
export function dueJobs(store: Store, app: App, now: number): DueDuty[] {
  return pendingRows(store, afterPrefix(encodeKey(["pending", now])), MAX_DUE).map((job) => {
    const path = (job.name as string).replace(/\.js:/, ":").replace(/:default$/, "");
    return {
      duty: { type: "job", id: job._id as string },
      kind: app.functions.get(path)?.kind ?? "mutation",
      path,
      args: JSON.stringify(job.args),
    };
  });
}

/** When the next job is due, ms since the epoch; null when none waits. */
export function nextJobAt(store: Store): number | null {
  const [job] = pendingRows(store, afterPrefix(encodeKey(["pending"])), 1);
  return job === undefined ? null : (job.scheduledTime as number);
}

/** Marks the actions that ran when the last process ended as failed: they may have done half of their work. */
export function failInterrupted(tx: Transaction): void {
  const { store } = tx.world;
  const prefix = encodeKey(["inProgress"]);
  const rows = store.rows(
    `SELECT d.doc FROM x${indexNamed(store, "by_state").id} x CROSS JOIN d${jobsTable(store).number} d ON d.seq = x.seq
     WHERE x.key >= ? AND x.key < ?`,
    prefix,
    afterPrefix(prefix),
  );
  for (const [doc] of rows) {
    const { _id } = JSON.parse(doc as string) as { _id: string };
    moveJob(tx, _id, failedState("The backend stopped while this action was running."));
  }
}

/** Deletes jobs that finished long ago. @returns how many; a full portion means that there may be more. */
export function pruneJobs(tx: Transaction): boolean {
  const { store } = tx.world;
  const table = jobsTable(store);
  const rows = store.rows(
    `SELECT d.seq, d.doc FROM x${indexNamed(store, "by_completion").id} x CROSS JOIN d${table.number} d ON d.seq = x.seq
     WHERE x.key >= ? AND x.key < ? ORDER BY x.key LIMIT +?`,
    encodeKey([0]),
    encodeKey([tx.now - KEEP_MS]),
    MAX_PRUNED,
  ) as [number, string][];
  for (const [seq, doc] of rows) tx.removeRow(table, seq, JSON.parse(doc) as JsonObject);
  return rows.length === MAX_PRUNED;
}
