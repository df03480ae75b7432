import { internalMutation, internalQuery } from "./_generated/server";

const UNFINISHED = ["idea", "doing", "review"] as const;

export const write = internalMutation({
  args: {},
  handler: async (ctx) => {
    let unfinished = 0;
    for (const state of UNFINISHED) {
      const tasks = await ctx.db
        .query("tasks")
        .withIndex("by_state", (q) => q.eq("state", state))
        .collect();
      unfinished += tasks.length;
    }
    await ctx.db.insert("digests", { writtenAt: Date.now(), unfinished });
  },
});

export const newest = internalQuery({
  args: {},
  handler: async (ctx) => await ctx.db.query("digests").order("desc").first(),
});
