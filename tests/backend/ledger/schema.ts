import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

const done = defineTable({ key: v.string() }).index("by_key", ["key"]);

/** Money moves between accounts; each move is two entries and two balances, all or nothing. */
export default defineSchema({
  accounts: defineTable({ name: v.string(), balance: v.number() }).index("by_name", ["name"]),
  entries: defineTable({ key: v.string(), account: v.string(), amount: v.number() })
    .index("by_key", ["key"])
    .index("by_account_amount", ["account", "amount"]),
  settled: done,
  notified: done,
  ticks: defineTable({ at: v.number() }),
  blobs: defineTable({ key: v.string(), text: v.string() }).index("by_key", ["key"]),
});
