/** Fills a stopped backend's data folder through the backend's own store: a million calls over HTTP would take ten minutes. */
import { join } from "node:path";
import { Clock } from "../backend/clock.ts";
import { Store } from "../backend/store.ts";
import { Transaction, type World } from "../backend/transaction.ts";
import type { JsonObject } from "../backend/values.ts";
import { agentName } from "./server.ts";

const DAY_MS = 86_400_000;
/** How far back the history reaches, ms: within what pruning keeps. */
const REACH_MS = 60 * DAY_MS;
/** Rows of one transaction: few commits, and below the limits of one mutation. */
const BATCH = 10_000;

/** Opens the database of a stopped backend. Nothing it makes has to outlive a power cut. */
function open(folder: string): { store: Store; world: World } {
  const store = new Store(join(folder, "db", "data.sqlite3"));
  store.db.exec("PRAGMA synchronous=OFF");
  const world: World = { store, clock: new Clock(0n, 0), documentCheck: () => undefined };
  return { store, world };
}

/** What follows must read what was filled in from the file, not from a log as long as the file. */
function close(store: Store): void {
  store.db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  store.close();
}

/** Stores heartbeats, evenly over agents and the last 60 days. */
export function fillHistory(folder: string, rows: number, agents: number): void {
  const { store, world } = open(folder);
  const table = store.table("agentHeartbeats");
  if (table === undefined) throw new Error("the backend has no table of heartbeats");
  const from = Date.now() - REACH_MS;
  for (let first = 0; first < rows; first += BATCH) {
    store.db.exec("BEGIN");
    const tx = new Transaction(world, true, from + (first / rows) * REACH_MS, 0n);
    for (let nth = first; nth < Math.min(first + BATCH, rows); nth++) {
      tx.insertRow(table, pastHeartbeat(nth, Math.floor(from + (nth / rows) * REACH_MS), agents));
    }
    store.db.exec("COMMIT");
  }
  close(store);
}

function pastHeartbeat(nth: number, at: number, agents: number): JsonObject {
  const time = at.toString(16).padStart(12, "0");
  const place = nth.toString(16).padStart(12, "0");
  return {
    agent: agentName(nth % agents),
    clientVersion: "0.1.0",
    countedBy: "sender",
    countsCapped: false,
    deliveredAt: at,
    heartbeatId: `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${place}`,
    host: `host-${nth % 40}`,
    livenessAt: at - 3,
    openTasks: 3,
    rawStatus: "ok",
    receivedAt: at,
    sentAt: at - 3,
    staleTasks: 1,
    status: "ok",
    summary: "All parts looked after, nothing to report",
  };
}

/**
 * Moves the agents from `first` on a month into the past, all their instants with them: every one is overdue.
 *
 * @returns the one whose deadline comes last, and which a sweep thus reaches last.
 */
export function makeOverdue(folder: string, first: number, agents: number): string {
  const { store, world } = open(folder);
  const table = store.table("agentLiveness");
  if (table === undefined) throw new Error("the backend has no table of agents");
  const overdue = new Set(Array.from({ length: agents }, (_, nth) => agentName(first + nth)));
  const documents = store
    .rows(`SELECT seq, doc FROM d${table.number}`)
    .map(([seq, doc]) => ({ seq: seq as number, before: JSON.parse(doc as string) as JsonObject }))
    .filter(({ before }) => overdue.has(before.agent as string));
  let last = { agent: "", sweepAt: 0 };
  store.db.exec("BEGIN");
  for (let from = 0; from < documents.length; from += BATCH) {
    const tx = new Transaction(world, true, Date.now(), 0n);
    for (const { seq, before } of documents.slice(from, from + BATCH)) {
      const { _id, _creationTime, ...body } = before;
      for (const [name, value] of Object.entries(body)) {
        const isInstant = name.endsWith("At") || name.endsWith("Since");
        if (isInstant && typeof value === "number") body[name] = value - 30 * DAY_MS;
      }
      tx.updateRow(table, seq, { _id, _creationTime, ...before } as JsonObject, body);
      const sweepAt = body.sweepAt as number;
      if (sweepAt >= last.sweepAt) last = { agent: body.agent as string, sweepAt };
    }
  }
  store.db.exec("COMMIT");
  close(store);
  return last.agent;
}
