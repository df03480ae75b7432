import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export const role = v.union(v.literal("writer"), v.literal("reviewer"), v.literal("editor"));

export const state = v.union(
  v.literal("idea"),
  v.literal("doing"),
  v.literal("review"),
  v.literal("shipped"),
  v.literal("dropped"),
);

export default defineSchema({
  // people and bots alike
  agents: defineTable({
    handle: v.string(),
    kind: v.union(v.literal("person"), v.literal("bot")),
    role,
    skills: v.array(v.string()),
    joinedAt: v.number(),
  }).index("by_handle", ["handle"]),

  tasks: defineTable({
    title: v.string(),
    state,
    assignees: v.array(v.id("agents")),
    lastActivityAt: v.number(),
    notes: v.optional(v.string()),
  }).index("by_state", ["state"]),

  digests: defineTable({
    writtenAt: v.number(),
    unfinished: v.number(),
  }),
});
