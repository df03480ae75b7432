import {
  internalMutationGeneric as internalMutation,
  internalQueryGeneric as internalQuery,
  mutationGeneric as mutation,
  queryGeneric as query,
} from "convex/server";
import { ConvexError, v } from "convex/values";

const note = v.object({
  _id: v.id("notes"),
  _creationTime: v.number(),
  text: v.string(),
  stars: v.optional(v.number()),
  owner: v.optional(v.id("people")),
});

export const add = mutation({
  args: { text: v.string(), stars: v.optional(v.number()), owner: v.optional(v.id("people")) },
  returns: v.id("notes"),
  handler: (ctx, args) => ctx.db.insert("notes", args),
});

export const addInternal = internalMutation({
  args: { text: v.string() },
  handler: (ctx, args) => ctx.db.insert("notes", args),
});

export const addPerson = mutation({
  args: { name: v.string(), mail: v.optional(v.string()) },
  handler: (ctx, { name, mail }) =>
    ctx.db.insert("people", mail === undefined ? { name } : { name, contact: { mail } }),
});

export const personByMail = query({
  args: { mail: v.string() },
  handler: async (ctx, { mail }) =>
    (
      await ctx.db
        .query("people")
        .withIndex("by_mail", (q) => q.eq("contact.mail", mail))
        .unique()
    )?.name,
});

export const list = query({
  args: {},
  returns: v.array(note),
  handler: (ctx) => ctx.db.query("notes").collect(),
});

export const withStars = query({
  args: { from: v.number(), to: v.number() },
  handler: async (ctx, { from, to }) => {
    const found = await ctx.db
      .query("notes")
      .withIndex("by_stars", (q) => q.gte("stars", from).lt("stars", to))
      .collect();
    return found.map((found) => found.text);
  },
});

export const page = query({
  args: { size: v.number(), cursor: v.union(v.string(), v.null()), descending: v.optional(v.boolean()) },
  handler: async (ctx, { size, cursor, descending }) => {
    const found = await ctx.db
      .query("notes")
      .withIndex("by_stars")
      .order(descending ? "desc" : "asc")
      .paginate({ numItems: size, cursor });
    return { ...found, page: found.page.map(({ text }) => text) };
  },
});

export const change = mutation({
  args: { id: v.id("notes"), stars: v.optional(v.number()), text: v.optional(v.any()) },
  handler: async (ctx, { id, ...fields }) => {
    await ctx.db.patch(id, { stars: fields.stars, ...("text" in fields ? { text: fields.text } : {}) });
    return ctx.db.get(id);
  },
});

export const remove = mutation({ args: { id: v.id("notes") }, handler: (ctx, { id }) => ctx.db.delete(id) });

export const refuse = mutation({
  args: { data: v.optional(v.any()) },
  handler: async (ctx, { data }) => {
    await ctx.db.insert("notes", { text: "must not stay" });
    throw new ConvexError(data ?? { code: "refused", count: 3 });
  },
});

export const crash = mutation({
  args: {},
  handler: async (ctx) => {
    await ctx.db.insert("notes", { text: "must not stay" });
    throw new Error("broken on purpose");
  },
});

export const wrongReturn = query({
  args: {},
  returns: v.string(),
  handler: async () => 5 as unknown as string,
});

export const secret = internalQuery({ args: {}, handler: async () => "for the admin" });
