import { actionGeneric as action, mutationGeneric as mutation, queryGeneric as query } from "convex/server";
import { ConvexError, v } from "convex/values";

export const echo = query({ args: { value: v.any() }, handler: async (_ctx, { value }) => value });

export const echoAction = action({ args: { value: v.any() }, handler: async (_ctx, { value }) => value });

export const fill = mutation({
  args: { values: v.array(v.any()), missing: v.number() },
  handler: async (ctx, { values, missing }) => {
    for (const [position, value] of values.entries()) await ctx.db.insert("anything", { position, value });
    for (let count = 0; count < missing; count++) await ctx.db.insert("anything", { position: -1 });
  },
});

export const clear = mutation({
  args: {},
  handler: async (ctx) => {
    for (const { _id } of await ctx.db.query("anything").collect()) await ctx.db.delete(_id);
  },
});

export const sorted = query({
  args: { descending: v.boolean() },
  handler: async (ctx, { descending }) => {
    const found = await ctx.db
      .query("anything")
      .withIndex("by_value")
      .order(descending ? "desc" : "asc")
      .collect();
    return found.map(({ position }) => position as number);
  },
});

export const between = query({
  args: { lower: v.array(v.any()), upper: v.array(v.any()), inclusive: v.boolean() },
  handler: async (ctx, { lower, upper, inclusive }) => {
    const found = await ctx.db
      .query("anything")
      .withIndex("by_value", (q) => {
        const fromHere =
          lower.length === 0 ? q : inclusive ? q.gte("value", lower[0]) : q.gt("value", lower[0]);
        if (upper.length === 0) return fromHere;
        return inclusive ? fromHere.lte("value", upper[0]) : fromHere.lt("value", upper[0]);
      })
      .collect();
    return found.map(({ position }) => position as number);
  },
});

/** One document, as it is. */
export const put = mutation({
  args: { document: v.any() },
  handler: (ctx, { document }) => ctx.db.insert("anything", document),
});

export const get = query({ args: { id: v.id("anything") }, handler: (ctx, { id }) => ctx.db.get(id) });

export const fail = query({
  args: { data: v.any() },
  handler: async (_ctx, { data }) => {
    throw new ConvexError(data);
  },
});
