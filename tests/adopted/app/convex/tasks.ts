import { v } from "convex/values";
import { mutation, query } from "./_generated/server";
import { state } from "./schema";

export const board = query({
  args: { state },
  handler: async (ctx, args) =>
    await ctx.db
      .query("tasks")
      .withIndex("by_state", (q) => q.eq("state", args.state))
      .collect(),
});

export const create = mutation({
  args: { title: v.string(), assignees: v.array(v.id("agents")) },
  handler: async (ctx, { title, assignees }) => {
    const id = await ctx.db.insert("tasks", { title, state: "idea", assignees, lastActivityAt: Date.now() });
    return id;
  },
});

export const assign = mutation({
  args: { id: v.id("tasks"), assignees: v.array(v.id("agents")) },
  handler: async (ctx, { id, assignees }) => {
    await ctx.db.patch("tasks", id, { assignees, lastActivityAt: Date.now() });
  },
});

export const move = mutation({
  args: { id: v.id("tasks"), state },
  handler: async (ctx, { id, state }) => {
    await ctx.db.patch("tasks", id, { state, lastActivityAt: Date.now() });
  },
});

export const remove = mutation({
  args: { id: v.id("tasks") },
  handler: async (ctx, { id }) => {
    await ctx.db.delete("tasks", id);
  },
});
