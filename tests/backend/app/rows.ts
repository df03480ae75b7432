import { mutationGeneric as mutation, queryGeneric as query } from "convex/server";
import { v } from "convex/values";

/** Rows of a place of their own (`list`), numbered: a small world for each test. */
const at = { list: v.string(), number: v.number() };

export const add = mutation({
  args: { ...at, text: v.optional(v.string()) },
  handler: (ctx, args) => ctx.db.insert("rows", args),
});

export const remove = mutation({
  args: at,
  handler: async (ctx, { list, number }) => {
    const row = await ctx.db
      .query("rows")
      .withIndex("by_list", (q) => q.eq("list", list))
      .filter((q) => q.eq(q.field("number"), number))
      .first();
    if (row !== null) await ctx.db.delete(row._id);
  },
});

export const page = query({
  args: {
    list: v.string(),
    cursor: v.union(v.string(), v.null()),
    endCursor: v.optional(v.union(v.string(), v.null())),
    numItems: v.number(),
    descending: v.optional(v.boolean()),
    odd: v.optional(v.boolean()),
    maximumRowsRead: v.optional(v.number()),
    maximumBytesRead: v.optional(v.number()),
  },
  handler: async (ctx, { list, descending, odd, ...options }) => {
    console.log(`page of ${list}`);
    const rows = ctx.db
      .query("rows")
      .withIndex("by_list", (q) => q.eq("list", list))
      .order(descending ? "desc" : "asc");
    const chosen = odd ? rows.filter((q) => q.eq(q.mod(q.field("number"), 2), 1)) : rows;
    // endCursor and the limits are options of the package's own hooks
    const found = await chosen.paginate(options as { cursor: string | null; numItems: number });
    return { ...found, page: found.page.map(({ number }) => number as number) };
  },
});

/** The first `count` rows, and a log line for each run. */
export const first = query({
  args: { list: v.string(), count: v.number() },
  handler: async (ctx, { list, count }) => {
    console.log(`first of ${list}`);
    const rows = await ctx.db
      .query("rows")
      .withIndex("by_list", (q) => q.eq("list", list))
      .take(count);
    return rows.map(({ number }) => number as number);
  },
});

/** Whether there is any row: its answer seldom changes. */
export const some = query({
  args: { list: v.string() },
  handler: async (ctx, { list }) => {
    console.log(`some of ${list}`);
    const rows = await ctx.db
      .query("rows")
      .withIndex("by_list", (q) => q.eq("list", list))
      .collect();
    return rows.length > 0;
  },
});

/** The first row that is at least `number`, found by looking at one after another. */
export const search = query({
  args: at,
  handler: async (ctx, { list, number }) => {
    console.log(`search of ${list}`);
    for await (const row of ctx.db.query("rows").withIndex("by_list", (q) => q.eq("list", list))) {
      if (row.number >= number) return row.number as number;
    }
    return null;
  },
});

export const atMostOne = query({
  args: { list: v.string() },
  handler: async (ctx, { list }) => {
    const row = await ctx.db
      .query("rows")
      .withIndex("by_list", (q) => q.eq("list", list))
      .unique();
    return (row?.number as number | undefined) ?? null;
  },
});

export const texts = query({
  args: { list: v.string() },
  handler: async (ctx, { list }) => {
    const rows = await ctx.db
      .query("rows")
      .withIndex("by_list", (q) => q.eq("list", list))
      .collect();
    return rows.map(({ text }) => text as string);
  },
});
