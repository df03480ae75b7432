/**
 * Your `agents` and `tasks` tables, as the heartbeat functions see them. This file is yours to edit, and an update leaves it alone.
 * Whatever `npx convex dev` marks in it is a field that your tables name otherwise.
 */
import type { Doc } from "./_generated/dataModel";
import type { TaskFacts, TaskIndex } from "./heartbeat/fleet";

/**
 * The name by which cron-schedule.md knows the agent of a row: lower-case letters, digits, - and _. null for a row that is none of its
 * agents, a person for instance.
 */
export function agentName(agent: Doc<"agents">): string | null {
  return agent.name;
}

/**
 * What counting needs to know of a task. `assignees`: ids of `agents` rows, or names as `agentName` gives them; [] for nobody. `touchedAt`: when
 * somebody last did something about it (epoch ms).
 */
export function taskFacts(task: Doc<"tasks">): TaskFacts {
  return {
    title: task.title,
    status: task.status,
    assignees: task.assignees,
    touchedAt: task.updatedAt ?? task._creationTime,
  };
}

/** The status words of a task that is still to be done, and of one that is over. A word in neither list counts as open. */
export const OPEN_STATUSES: readonly string[] = ["open", "todo", "in_progress", "review", "blocked"];
export const CLOSED_STATUSES: readonly string[] = ["done", "cancelled", "archived"];

/** An open task that nobody has touched for this long (ms) is stale. */
export const STALE_AFTER_MS = 7 * 24 * 60 * 60_000;

/**
 * null: a task may have several assignees, so that no index finds an agent's tasks, and they are counted from a mirror. Each mutation of yours that
 * writes a task then ends with a line: `await mirrorTask(ctx, taskId);`, imported from "./heartbeat/mirror". Once a day the mirror is
 * put right where one did not.
 *
 * Where a task has one assignee and an index finds them, there is no mirror to keep:
 *
 *     export const taskIndex: TaskIndex = {
 *       open: async (ctx, agent, limit) => {
 *         const found: Doc<"tasks">[] = [];
 *         for (const status of OPEN_STATUSES) {
 *           const tasks = ctx.db
 *             .query("tasks")
 *             .withIndex("by_assignee", (q) => q.eq("assignee", agent.name).eq("status", status));
 *           found.push(...(await tasks.take(limit - found.length)));
 *         }
 *         return found;
 *       },
 *       all: async (ctx, agent, page) =>
 *         await ctx.db
 *           .query("tasks")
 *           .withIndex("by_assignee", (q) => q.eq("assignee", agent.name))
 *           .paginate(page),
 *     };
 *
 * There `agent.name` is the name, and `agent.row` the id of the agent's row, undefined where it has none.
 */
export const taskIndex: TaskIndex | null = null;
