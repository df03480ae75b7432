/**
 * The `agents` and `tasks` tables, as the heartbeat functions see them: those of schema.ts, the least that an app of our own needs. In an app
 * that has such tables this file is the team's, and says the same of theirs.
 */
import type { Doc } from "./_generated/dataModel";
import type { OwnTables, TaskFacts, TaskIndex } from "./heartbeat/fleet";

/** An open task that nobody has touched for this long (ms) is stale: seven days, a week's planning missed it once. */
export const STALE_AFTER_MS = 7 * 24 * 60 * 60_000;

/** The status words of a task that is still to be done. */
export const OPEN_STATUSES: readonly string[] = [
  "assigned",
  "blocked",
  "in_progress",
  "inbox",
  "open",
  "review",
  "todo",
];

/** The status words of a task that is over. A word in neither list counts as open and is named in the answers. */
export const CLOSED_STATUSES: readonly string[] = ["archived", "cancelled", "closed", "completed", "done"];

/** The name by which the schedule knows the agent of a row. */
export function agentName(agent: Doc<"agents">): string | null {
  return agent.name;
}

/** What counting needs to know of a task. */
export function taskFacts(task: Doc<"tasks">): TaskFacts {
  return {
    title: task.title,
    status: task.status,
    assignees: [task.assignee],
    touchedAt: task.updatedAt ?? task._creationTime,
    updatedAt: task.updatedAt,
  };
}

/** A task has one assignee here, so an index finds an agent's tasks. */
export const taskIndex: TaskIndex = {
  // the ranges before, between and after the closed words, so that closed tasks are never read and words that nobody listed are not lost
  open: async (ctx, agent, limit) => {
    const closed = [...CLOSED_STATUSES].sort();
    const found: Doc<"tasks">[] = [];
    for (let place = 0; place <= closed.length && found.length < limit; place++) {
      const [after, before] = [closed[place - 1], closed[place]];
      const tasks = await ctx.db
        .query("tasks")
        .withIndex("by_assignee_and_status", (q) => {
          const mine = q.eq("assignee", agent.name);
          if (after === undefined) return before === undefined ? mine : mine.lt("status", before);
          const later = mine.gt("status", after);
          return before === undefined ? later : later.lt("status", before);
        })
        .take(limit - found.length);
      found.push(...tasks);
    }
    return found;
  },
  all: async (ctx, agent, page) =>
    await ctx.db
      .query("tasks")
      .withIndex("by_assignee_and_status", (q) => q.eq("assignee", agent.name))
      .paginate(page),
};

/** Rows that the heartbeat functions make: none in tables that are a team's. */
export const ownTables: OwnTables = {
  findAgent: async (ctx, agent) =>
    await ctx.db
      .query("agents")
      .withIndex("by_name", (q) => q.eq("name", agent))
      .first(),
  insertAgent: async (ctx, agent) => await ctx.db.insert("agents", { name: agent }),
  addTask: async (ctx, { agent, title, status = "inbox" }, now) =>
    await ctx.db.insert("tasks", { assignee: agent, title, status, updatedAt: now }),
  completeTask: async (ctx, taskId, now) => {
    const id = ctx.db.normalizeId("tasks", taskId);
    if (id === null || (await ctx.db.get("tasks", id)) === null) return null;
    await ctx.db.patch("tasks", id, { status: "done", updatedAt: now });
    return id;
  },
};
