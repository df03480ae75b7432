/** Internal functions that heartbeat/crons.ts starts; callable by hand only with an admin or deploy key. */
import { v } from "convex/values";
import { internalMutation } from "../_generated/server";
import { pruneBatch } from "./model/prune";
import { sweepBatch, sweepOne } from "./model/sweep";

/** Flip the agents whose deadline has passed. */
export const sweep = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx) => await sweepBatch(ctx),
});

/** Judge one agent's row; a sub-transaction of `sweep`. */
export const sweepRow = internalMutation({
  args: { row: v.id("agentLiveness") },
  returns: v.null(),
  handler: async (ctx, { row }) => await sweepOne(ctx, row),
});

/** Forget history, flips and revoked tokens past their time. */
export const prune = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx) => await pruneBatch(ctx),
});
