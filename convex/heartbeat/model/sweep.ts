/** The sweep: flips agents whose deadline has passed, each minute, in bounded batches. */
import { internal } from "../../_generated/api";
import type { Id } from "../../_generated/dataModel";
import type { MutationCtx } from "../../_generated/server";
import { store } from "./agents";
import { sweep } from "./liveness";
import { gapNote, isHeld, monitorAt, sweepRuns } from "./monitor";

/** Rows of one transaction; each is read and written with its agent's row and a flip, far below Convex's limits. */
const BATCH = 100;

/** A row that could not be handled is tried again after this long (ms), so that it stands in nobody's way meanwhile. */
const RETRY_MS = 10 * 60_000;

/** Characters of an error that are kept. */
const MAX_ERROR_CHARS = 500;

/**
 * One batch. Each row is handled in a sub-transaction of its own, so that one that throws (a team's fleet.ts may) loses nobody else's
 * flip. A full batch is followed by the next at once.
 */
export async function sweepBatch(ctx: MutationCtx): Promise<null> {
  const now = Date.now();
  const monitor = await sweepRuns(ctx, now);
  if (monitor === null || isHeld(monitor, now)) return null;
  const overdue = await ctx.db
    .query("agentLiveness")
    // the lower bound leaves out rows without a deadline: a missing field sorts below every number
    .withIndex("by_sweepAt", (q) => q.gte("sweepAt", 0).lte("sweepAt", now))
    .take(BATCH);
  for (const { _id } of overdue) {
    try {
      await ctx.runMutation(internal.heartbeat.maintenance.sweepRow, { row: _id });
    } catch (error) {
      const said = String(error instanceof Error ? error.message : error);
      // by whole characters: half of one cannot be stored
      const message = [...said].slice(0, MAX_ERROR_CHARS).join("");
      await ctx.db.patch("agentLiveness", _id, { sweepAt: now + RETRY_MS, sweepError: { message, at: now } });
    }
  }
  if (overdue.length === BATCH) await ctx.scheduler.runAfter(0, internal.heartbeat.maintenance.sweep, {});
  return null;
}

/** One row, read again and judged by the rules, whatever deadline was stored. */
export async function sweepOne(ctx: MutationCtx, id: Id<"agentLiveness">): Promise<null> {
  const row = await ctx.db.get("agentLiveness", id);
  if (row === null) return null;
  const now = Date.now();
  const move = sweep(row, now);
  const note = move.flip && gapNote(await monitorAt(ctx, now), move.flip.becameAt);
  await store(ctx, row, move.changes, move.flip && { ...move.flip, gapNote: note });
  return null;
}
