/** Forgetting what is old, daily, in bounded batches. */
import { internal } from "../../_generated/api";
import type { MutationCtx } from "../../_generated/server";

const DAY_MS = 24 * 60 * 60_000;

/** History is kept a quarter of a year after receipt, or import: at one heartbeat in five minutes that is 26,000 rows an agent. */
const HEARTBEATS_KEPT_MS = 90 * DAY_MS;

/** Flips are few, and a year of them is an agent's record. */
const FLIPS_KEPT_MS = 365 * DAY_MS;

/** A revoked token is listed for a year: who had access, and until when. */
const REVOKED_TOKENS_KEPT_MS = 365 * DAY_MS;

/** Rows deleted in one transaction: a heartbeat holds up to 60 kB, deleting it reads it once more, and 16 MiB may be read. */
const BATCH = 100;

/** One batch of each table; when any was full, the next follows at once. */
export async function pruneBatch(ctx: MutationCtx): Promise<null> {
  const now = Date.now();
  const heartbeats = await ctx.db
    .query("agentHeartbeats")
    .withIndex("by_creation_time", (q) => q.lt("_creationTime", now - HEARTBEATS_KEPT_MS))
    .take(BATCH);
  for (const { _id } of heartbeats) await ctx.db.delete("agentHeartbeats", _id);
  const flips = await ctx.db
    .query("agentFlips")
    .withIndex("by_noticedAt", (q) => q.lt("noticedAt", now - FLIPS_KEPT_MS))
    .take(BATCH);
  for (const { _id } of flips) await ctx.db.delete("agentFlips", _id);
  const tokens = await ctx.db
    .query("heartbeatTokens")
    .withIndex("by_revokedAt", (q) => q.gte("revokedAt", 0).lt("revokedAt", now - REVOKED_TOKENS_KEPT_MS))
    .take(BATCH);
  for (const { _id } of tokens) await ctx.db.delete("heartbeatTokens", _id);
  if ([heartbeats, flips, tokens].some((rows) => rows.length === BATCH)) {
    await ctx.scheduler.runAfter(0, internal.heartbeat.maintenance.prune, {});
  }
  return null;
}
