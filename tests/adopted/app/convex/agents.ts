import { v } from "convex/values";
import { mutation, query } from "./_generated/server";
import { role } from "./schema";

export const list = query({
  args: {},
  handler: async (ctx) => await ctx.db.query("agents").collect(),
});

export const find = query({
  args: { handle: v.string() },
  handler: async (ctx, { handle }) =>
    await ctx.db
      .query("agents")
      .withIndex("by_handle", (q) => q.eq("handle", handle))
      .unique(),
});

// the profile form sends the whole profile
export const saveProfile = mutation({
  args: { id: v.id("agents"), handle: v.string(), role, skills: v.array(v.string()) },
  handler: async (ctx, { id, ...profile }) => {
    const agent = await ctx.db.get("agents", id);
    if (agent === null) throw new Error("no such agent");
    await ctx.db.replace("agents", id, { kind: agent.kind, joinedAt: agent.joinedAt, ...profile });
  },
});

export const remove = mutation({
  args: { id: v.id("agents") },
  handler: async (ctx, { id }) => await ctx.db.delete("agents", id),
});
