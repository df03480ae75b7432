import { actionGeneric as action, mutationGeneric as mutation, queryGeneric as query } from "convex/server";
import { v } from "convex/values";

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

export const filtered = query({
  args: { operator: v.string(), operand: v.any() },
  handler: async (ctx, { operator, operand }) => {
    const found = await ctx.db
      .query("anything")
      .filter((q) => {
        const field = q.field("value");
        switch (operator) {
          case "missing":
            return q.eq(field, undefined);
          case "not":
            return q.not(q.eq(field, operand));
          case "or":
            return q.or(q.eq(field, operand), q.lt(q.field("position"), 0));
          case "sum":
            return q.eq(q.add(q.field("position"), 1), operand);
          default:
            return q[operator as "lt"](field, operand);
        }
      })
      .collect();
    return found.map(({ position }) => position as number);
  },
});
