import {
  internalActionGeneric as internalAction,
  internalMutationGeneric as internalMutation,
  mutationGeneric,
  queryGeneric as query,
  type DataModelFromSchemaDefinition,
  type MutationBuilder,
} from "convex/server";
import { v } from "convex/values";
import { references } from "./references";
import type schema from "./schema";

const mutation = mutationGeneric as MutationBuilder<DataModelFromSchemaDefinition<typeof schema>, "public">;

/** Moves money, and schedules what belongs to it: a settlement exactly once, a notice at most once. */
export const transfer = mutation({
  args: {
    key: v.string(),
    from: v.string(),
    to: v.string(),
    amount: v.number(),
    settleInMs: v.optional(v.number()),
    notifyInMs: v.optional(v.number()),
  },
  handler: async (ctx, { key, from, to, amount, settleInMs, notifyInMs }) => {
    for (const [name, change] of [
      [from, -amount],
      [to, amount],
    ] as const) {
      await ctx.db.insert("entries", { key, account: name, amount: change });
      const account = await ctx.db
        .query("accounts")
        .withIndex("by_name", (q) => q.eq("name", name))
        .unique();
      if (account === null) await ctx.db.insert("accounts", { name, balance: change });
      else await ctx.db.patch(account._id, { balance: account.balance + change });
    }
    if (settleInMs !== undefined) await ctx.scheduler.runAfter(settleInMs, references.settle, { key });
    if (notifyInMs !== undefined) await ctx.scheduler.runAfter(notifyInMs, references.notify, { key });
    return key;
  },
});

export const settle = internalMutation({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    await ctx.db.insert("settled", { key });
  },
});

export const notify = internalAction({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    await ctx.runMutation(references.noted, { key });
  },
});

export const noted = internalMutation({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    await ctx.db.insert("notified", { key });
  },
});

export const tick = internalMutation({
  args: {},
  handler: async (ctx) => {
    await ctx.db.insert("ticks", { at: Date.now() });
  },
});

export const waiting = query({
  args: {},
  handler: async (ctx) => {
    const jobs = await ctx.db.system.query("_scheduled_functions").order("desc").take(500);
    return jobs.filter(({ state }) => state.kind === "pending" || state.kind === "inProgress").length;
  },
});
