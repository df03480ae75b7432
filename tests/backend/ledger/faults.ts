import {
  actionGeneric as action,
  internalMutationGeneric as internalMutation,
  mutationGeneric as mutation,
  queryGeneric as query,
} from "convex/server";
import { v } from "convex/values";
import { references } from "./references";

const keyed = { key: v.string() };

export const count = query({
  args: keyed,
  handler: async (ctx, { key }) => {
    const found = await ctx.db
      .query("settled")
      .withIndex("by_key", (q) => q.eq("key", key))
      .collect();
    return found.length;
  },
});

export const add = mutation({
  args: keyed,
  handler: async (ctx, { key }) => {
    await ctx.db.insert("settled", { key });
    return key;
  },
});

export const addAndThrow = mutation({
  args: keyed,
  handler: async (ctx, { key }) => {
    await ctx.db.insert("settled", { key });
    throw new Error("refused on purpose");
  },
});

/** A sub-transaction that writes, then ends well, after a while, or never. */
export const keep = internalMutation({
  args: { key: v.string(), kind: v.string() },
  handler: async (ctx, { key, kind }) => {
    await ctx.db.insert("settled", { key });
    if (kind === "never") await new Promise(() => undefined);
    if (kind === "later") for (let step = 0; step < 200; step++) await Promise.resolve();
    await ctx.db.insert("settled", { key });
    return key;
  },
});

/** Writes, then waits for a sub-transaction that never ends. */
export const hang = mutation({
  args: keyed,
  handler: async (ctx, { key }) => {
    await ctx.db.insert("settled", { key });
    await ctx.runMutation(references.keep, { key, kind: "never" });
  },
});

/** Writes, starts a sub-transaction, and answers without waiting for it. */
export const abandon = mutation({
  args: keyed,
  handler: async (ctx, { key }) => {
    await ctx.db.insert("settled", { key });
    void ctx.runMutation(references.keep, { key: `${key}-inner`, kind: "later" });
    return key;
  },
});

export const write = mutation({
  args: { key: v.string(), documents: v.number(), bytes: v.number() },
  handler: async (ctx, { key, documents, bytes }) => {
    for (let count = 0; count < documents; count++) {
      await ctx.db.insert("blobs", { key, text: "x".repeat(bytes) });
    }
    return key;
  },
});

/** Writes until it is told that the disk is full, and goes on as if nothing had happened. */
export const stubborn = mutation({
  args: { key: v.string(), documents: v.number(), bytes: v.number() },
  handler: async (ctx, { key, documents, bytes }) => {
    for (let count = 0; count < documents; count++) {
      await ctx.db.insert("blobs", { key, text: "x".repeat(bytes) }).catch(() => undefined);
    }
    return key;
  },
});

export const blobs = query({
  args: keyed,
  handler: async (ctx, { key }) => {
    const found = await ctx.db
      .query("blobs")
      .withIndex("by_key", (q) => q.eq("key", key))
      .collect();
    return found.length;
  },
});

export const endless = mutation({
  args: {},
  handler: async () => {
    for (;;) Math.random();
  },
});

/** Adds a key by calling out, and tells what the call said. */
export const addFromAction = action({
  args: keyed,
  handler: (ctx, { key }): Promise<unknown> => ctx.runMutation(references.keep, { key, kind: "well" }),
});

/** Fails with more words than fit into a document. */
export const shout = internalMutation({
  args: { key: v.string(), words: v.string() },
  handler: async () => {
    throw new Error("so much to say ".repeat(200_000));
  },
});

/** Schedules `shout` at once. */
export const scheduleShout = mutation({
  args: { key: v.string(), wordBytes: v.number() },
  handler: (ctx, { key, wordBytes }) =>
    ctx.scheduler.runAfter(0, references.shout, { key, words: "x".repeat(wordBytes) }),
});

export const job = query({
  args: { id: v.id("_scheduled_functions") },
  handler: (ctx, { id }) => ctx.db.system.get(id),
});
