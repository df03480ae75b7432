/**
 * The tables of an app of our own: the heartbeat tables, and the least of `agents` and `tasks` that it needs. A team that has an app keeps its
 * own and adds only what `heartbeat functions add` names.
 */
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
import { heartbeatField, heartbeatTables } from "./heartbeat/tables";

export default defineSchema({
  ...heartbeatTables,

  /**
   * The team's agents; here the least. Written by applySchedule (a row per agent; in a team's own table we insert none) and, the field `heartbeat`
   * only, by recordHeartbeat(s), setAgentControl, the sweep and the reconcile. Read by the same through fleet.ts. Never pruned.
   */
  agents: defineTable({ name: v.string(), heartbeat: heartbeatField })
    // fleet.ts: findAgent of ownTables
    .index("by_name", ["name"]),

  /**
   * The team's tasks; here the least. Written by addTask and completeTask. Read by getAgentTaskCounts, listAgentTasks and, when a heartbeat comes
   * without counts, recordHeartbeat(s), all through fleet.ts. Never pruned.
   */
  tasks: defineTable({
    title: v.string(),
    status: v.string(),
    assignee: v.string(),
    updatedAt: v.optional(v.number()),
  })
    // fleet.ts: taskIndex
    .index("by_assignee_and_status", ["assignee", "status", "updatedAt"]),
});
