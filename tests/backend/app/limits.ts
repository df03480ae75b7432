import {
  actionGeneric as action,
  makeFunctionReference,
  mutationGeneric as mutation,
  queryGeneric as query,
} from "convex/server";
import { v } from "convex/values";
import { references } from "./references";

const writeRef = makeFunctionReference<"mutation", { count: number; bytes: number }>("limits:write");
const lengthRef = makeFunctionReference<"query", { text: string }, number>("limits:lengthOf");

/** Writes `count` documents of `bytes` each. */
export const write = mutation({
  args: { count: v.number(), bytes: v.number() },
  handler: async (ctx, { count, bytes }) => {
    const text = "x".repeat(bytes);
    for (let number = 0; number < count; number++) await ctx.db.insert("heap", { text });
  },
});

export const read = query({
  args: { count: v.number() },
  handler: async (ctx, { count }) => (await ctx.db.query("heap").take(count)).length,
});

export const readNewest = query({
  args: { count: v.number() },
  handler: async (ctx, { count }) => (await ctx.db.query("heap").order("desc").take(count)).length,
});

/** Writes twice so many, in a sub-transaction each. */
export const writeNested = mutation({
  args: { count: v.number(), bytes: v.number() },
  handler: async (ctx, args) => {
    for (let time = 0; time < 2; time++) await ctx.runMutation(writeRef, args);
  },
});

export const into = mutation({
  args: { table: v.string() },
  handler: (ctx, { table }) => ctx.db.insert(table, {}),
});

export const schedule = mutation({
  args: { count: v.number(), bytes: v.number() },
  handler: async (ctx, { count, bytes }) => {
    const name = "x".repeat(bytes);
    for (let number = 0; number < count; number++)
      await ctx.scheduler.runAfter(1e9, references.run, { name });
  },
});

export const textOf = query({
  args: { bytes: v.number() },
  handler: async (_ctx, { bytes }) => "é".repeat(bytes / 2),
});

export const lengthOf = query({ args: { text: v.string() }, handler: async (_ctx, { text }) => text.length });

/** Hands a text of so many bytes to a query. */
export const pass = action({
  args: { bytes: v.number() },
  handler: (ctx, { bytes }): Promise<number> => ctx.runQuery(lengthRef, { text: "é".repeat(bytes / 2) }),
});
