import {
  actionGeneric as action,
  internalMutationGeneric as internalMutation,
  mutationGeneric as mutation,
  queryGeneric as query,
} from "convex/server";
import { ConvexError, v } from "convex/values";
import { references } from "./references";

const loadedAt = Date.now();

export const clock = mutation({
  args: {},
  handler: async (ctx) => {
    const before = Date.now();
    let spin = 0;
    while (spin < 3_000_000) spin++;
    const id = await ctx.db.insert("runs", { name: "clock", at: before });
    const document = await ctx.db.get(id);
    return {
      stands: before === Date.now() && new Date().getTime() === before && new Date() instanceof Date,
      later: before >= loadedAt,
      createdAt: document?._creationTime,
      now: before,
      randoms: [Math.random(), Math.random()],
      uuid: crypto.randomUUID(),
    };
  },
});

const importTime: Record<string, unknown> = { now: Date.now(), instant: new Date().getTime() };
for (const name of ["fetch", "setTimeout", "setInterval"] as const) {
  try {
    (globalThis[name] as (...args: unknown[]) => unknown)(() => undefined, 0);
  } catch (error) {
    importTime[name] = (error as Error).message;
  }
}

/** What a query sees of time and chance, and what its module saw while it was loaded. */
export const still = query({
  args: {},
  handler: async () => {
    const before = [Date.now(), new Date().toISOString(), performance.now()];
    let spin = 0;
    while (spin < 3_000_000) spin++;
    await Promise.resolve();
    const after = [Date.now(), new Date().toISOString(), performance.now()];
    return {
      before,
      after,
      randoms: Array.from({ length: 4 }, () => Math.random()),
      importTime,
      loadedAt,
    };
  },
});

export const digest = query({
  args: { text: v.string() },
  handler: async (_ctx, { text }) => {
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  },
});

export const pending = mutation({
  args: {},
  handler: async (ctx) => {
    await ctx.db.insert("runs", { name: "pending", at: 0 });
    await new Promise(() => undefined);
  },
});

export const endless = mutation({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    await ctx.db.insert("runs", { name, at: 0 });
    for (;;) Math.random();
  },
});

export const hungry = mutation({
  args: {},
  handler: async (ctx) => {
    await ctx.db.insert("runs", { name: "hungry", at: 0 });
    const hoard: number[][] = [];
    for (;;) hoard.push(new Array<number>(1_000_000).fill(hoard.length + 0.5));
  },
});

export const endlessQuery = query({
  args: {},
  handler: async () => {
    for (;;) Math.random();
  },
});

export const note = mutation({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    await ctx.db.insert("runs", { name, at: Date.now() });
  },
});

export const count = query({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    const found = await ctx.db
      .query("runs")
      .withIndex("by_name", (q) => q.eq("name", name))
      .collect();
    return found.length;
  },
});

export const forbidden = query({
  args: { what: v.string() },
  handler: async (_ctx, { what }) => {
    if (what === "fetch") await fetch("http://127.0.0.1:1/");
    else (what === "setInterval" ? setInterval : setTimeout)(() => undefined, 1);
  },
});

export const metrics = mutation({
  args: {},
  handler: async (ctx) => {
    const id = await ctx.db.insert("runs", { name: "metrics", at: 1 });
    await ctx.db.patch(id, { at: 2 });
    await ctx.db
      .query("runs")
      .withIndex("by_name", (q) => q.eq("name", "metrics"))
      .take(1);
    const { documentsRead, documentsWritten, databaseQueries } = await ctx.meta.getTransactionMetrics();
    return [documentsRead, documentsWritten, databaseQueries].map(({ used }) => used);
  },
});

export const readTooMuch = query({
  args: {},
  handler: async (ctx) => {
    for (let count = 0; count < 5000; count++) await ctx.db.query("people").first();
  },
});

export const inner = internalMutation({
  args: { name: v.string(), fail: v.boolean() },
  handler: async (ctx, { name, fail }) => {
    await ctx.db.insert("runs", { name, at: 0 });
    if (fail) throw new ConvexError({ name });
    return name;
  },
});

export const outer = mutation({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    const calls = [false, true, false].map((fail, position) =>
      ctx.runMutation(references.inner, { name: `${name}${position}`, fail }),
    );
    const beside = ctx.db.insert("runs", { name: `${name}beside`, at: 0 });
    const results = await Promise.allSettled(calls);
    await beside;
    return results.map((result) =>
      result.status === "fulfilled"
        ? result.value
        : { refused: (result.reason as ConvexError<{ name: string }>).data },
    );
  },
});

export const viaAction = action({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    await ctx.runMutation(references.inner, { name, fail: false });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const count = await ctx.runQuery(references.count, { name });
    try {
      await ctx.runMutation(references.inner, { name, fail: true });
      return { count, data: null };
    } catch (error) {
      return { count, data: (error as ConvexError<{ name: string }>).data };
    }
  },
});

export const failingAction = action({
  args: { name: v.string() },
  handler: async (_ctx, { name }) => {
    throw new ConvexError({ name });
  },
});

export const carelessAction = action({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    void ctx.runMutation(references.inner, { name, fail: true });
    await new Promise((resolve) => setTimeout(resolve, 30));
    return "done";
  },
});

export const endlessAction = action({
  args: {},
  handler: async () => {
    for (;;) Math.random();
  },
});

export const slowAction = action({
  args: { ms: v.number() },
  handler: async (_ctx, { ms }) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return "done";
  },
});

/** Throws what no text can be made of. */
export const throwNothing = action({
  args: {},
  handler: async () => {
    throw Object.create(null);
  },
});
