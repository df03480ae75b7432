import {
  actionGeneric as action,
  makeFunctionReference,
  internalMutationGeneric as internalMutation,
  mutationGeneric as mutation,
  queryGeneric as query,
} from "convex/server";
import { v } from "convex/values";
import { references } from "./references";

export const run = internalMutation({
  args: { name: v.string(), fail: v.optional(v.boolean()) },
  handler: async (ctx, { name, fail }) => {
    await ctx.db.insert("runs", { name, at: Date.now() });
    if (fail) throw new Error("this job fails");
  },
});

export const act = action({
  args: { name: v.string() },
  handler: (ctx, { name }) => ctx.runMutation(references.run, { name }),
});

export const schedule = mutation({
  args: { name: v.string(), inMs: v.number(), kind: v.string(), refuse: v.optional(v.boolean()) },
  handler: async (ctx, { name, inMs, kind, refuse }) => {
    const id =
      kind === "action"
        ? await ctx.scheduler.runAfter(inMs, references.act, { name })
        : await ctx.scheduler.runAfter(inMs, references.run, { name, fail: kind === "failing" });
    if (refuse) throw new Error("and so nothing is scheduled");
    return id;
  },
});

export const cancel = mutation({
  args: { id: v.id("_scheduled_functions") },
  handler: (ctx, { id }) => ctx.scheduler.cancel(id),
});

export const state = query({
  args: { id: v.id("_scheduled_functions") },
  handler: async (ctx, { id }) => {
    const job = await ctx.db.system.get(id);
    return (
      job && {
        name: job.name,
        args: job.args,
        kind: job.state.kind,
        completed: job.completedTime !== undefined,
      }
    );
  },
});

export const open = query({
  args: {},
  handler: async (ctx) => {
    const jobs = await ctx.db.system.query("_scheduled_functions").collect();
    return jobs.filter(({ state }) => state.kind === "pending").length;
  },
});

export const tick = internalMutation({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    await ctx.db.insert("runs", { name, at: Date.now() });
  },
});

/** Schedules in a sub-transaction that is refused afterwards, or not. */
export const scheduleInside = mutation({
  args: { name: v.string(), fail: v.boolean() },
  handler: async (ctx, { name, fail }) => {
    const schedule = makeFunctionReference<"mutation", Record<string, unknown>, string>("jobs:schedule");
    return ctx
      .runMutation(schedule, { name, inMs: 0, kind: "mutation", refuse: fail })
      .catch(() => "refused");
  },
});

/** An action that schedules one function, and schedules and cancels another. */
export const scheduleAndCancel = action({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    const kept = await ctx.scheduler.runAt(Date.now() + 50, references.run, { name });
    const cancelled = await ctx.scheduler.runAfter(50, references.run, { name });
    await ctx.scheduler.cancel(cancelled);
    return [kept, cancelled];
  },
});

export const scheduleWrongly = mutation({
  args: { path: v.string(), inMs: v.number() },
  handler: (ctx, { path, inMs }) =>
    ctx.scheduler.runAfter(inMs, makeFunctionReference<"mutation">(path), { name: "x" }),
});

/** What is seen of a row inside and outside of a sub-transaction, before and after. */
export const visible = mutation({
  args: { name: v.string() },
  handler: async (ctx, { name }) => {
    const seen: number[] = [];
    const count = async (): Promise<void> => void seen.push(await ctx.runQuery(references.count, { name }));
    await ctx.db.insert("runs", { name, at: 0 });
    await count();
    await ctx.runMutation(references.inner, { name, fail: false });
    await count();
    await ctx.runMutation(references.inner, { name, fail: true }).catch(() => undefined);
    await count();
    await ctx.db.insert("runs", { name, at: 0 });
    await count();
    return seen;
  },
});
