/** Internal functions that heartbeat/crons.ts starts; callable by hand only with an admin or deploy key. */
import { v } from "convex/values";
import { internalMutation } from "../_generated/server";
import { pruneBatch } from "./model/prune";
import { reconcile as reconcileOnce, reconcileStep } from "./model/reconcile";
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

/** Put right what only a look through the team's tables can tell; see model/reconcile.ts. Without a step it begins anew. */
export const reconcile = internalMutation({
  args: { step: v.optional(reconcileStep) },
  returns: v.null(),
  handler: async (ctx, { step }) => await reconcileOnce(ctx, step),
});
