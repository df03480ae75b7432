import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  notes: defineTable({ text: v.string(), stars: v.optional(v.number()), owner: v.optional(v.id("people")) })
    .index("by_stars", ["stars"])
    .index("by_owner_stars", ["owner", "stars"]),
  heap: defineTable({ text: v.string() }),
  people: defineTable({ name: v.string(), contact: v.optional(v.object({ mail: v.string() })) }).index(
    "by_mail",
    ["contact.mail"],
  ),
  anything: defineTable(v.any()).index("by_value", ["value"]).index("by_value_and_b", ["value", "b"]),
  rows: defineTable({ list: v.string(), number: v.number(), text: v.optional(v.string()) }).index("by_list", [
    "list",
    "number",
  ]),
  runs: defineTable({ name: v.string(), at: v.number() }).index("by_name", ["name"]),
});
