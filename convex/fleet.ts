/**
 * Your own `agents` and `tasks` tables, as the heartbeat functions see them. This file is yours to edit; nothing else here knows
 * a name of a field of yours, and of yours only the one field `heartbeat` of an agent row is ever written.
 *
 * As delivered it fits the minimal tables of schema.ts. For tables of your own: change what the functions below read, let `linkAgent` only find
 * rows, and set `ownTasks` to null.
 */
import type { PaginationOptions, PaginationResult } from "convex/server";
import type { Doc, Id } from "./_generated/dataModel";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import type { AgentCard } from "./heartbeat/model/validators";

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

/** What counting needs to know of a task. `touchedAt`: when somebody last did something about it (epoch ms). */
export type TaskFacts = {
  taskId: string;
  title: string;
  status: string;
  touchedAt: number;
  updatedAt?: number;
};

function taskFacts(task: Doc<"tasks">): TaskFacts {
  return {
    taskId: task._id,
    title: task.title,
    status: task.status,
    touchedAt: task.updatedAt ?? task._creationTime,
    updatedAt: task.updatedAt,
  };
}

/** The row of an agent in your table, by the name its schedule has; null when there is none. */
export async function findAgent(ctx: QueryCtx, agent: string): Promise<Doc<"agents"> | null> {
  return await ctx.db
    .query("agents")
    .withIndex("by_name", (q) => q.eq("name", agent))
    .first();
}

/** The row to link an agent of the schedule with. In tables of your own: `findAgent` only, so that no row is made that you did not make. */
export async function linkAgent(ctx: MutationCtx, agent: string): Promise<Id<"agents"> | null> {
  const found = await findAgent(ctx, agent);
  return found?._id ?? (await ctx.db.insert("agents", { name: agent }));
}

/** Whether `linkAgent` would find or make a row, without making one: what a dry run says. */
export async function wouldLink(_ctx: QueryCtx, _agent: string): Promise<boolean> {
  return true;
}

/** Show the agent's state on its row: the one field of yours that is written. */
export async function writeCard(ctx: MutationCtx, id: Id<"agents">, card: AgentCard): Promise<void> {
  await ctx.db.patch("agents", id, { heartbeat: card });
}

/**
 * The agent's tasks that are not closed, at most `limit`: the ranges before, between and after the closed words of the index, so that
 * closed tasks are never read and words that nobody listed are not lost.
 */
export async function readOpenTasks(ctx: QueryCtx, agent: string, limit: number): Promise<TaskFacts[]> {
  const closed = [...CLOSED_STATUSES].sort();
  const found: TaskFacts[] = [];
  for (let place = 0; place <= closed.length && found.length < limit; place++) {
    const [after, before] = [closed[place - 1], closed[place]];
    const tasks = await ctx.db
      .query("tasks")
      .withIndex("by_assignee_and_status", (q) => {
        const mine = q.eq("assignee", agent);
        if (after === undefined) return before === undefined ? mine : mine.lt("status", before);
        const later = mine.gt("status", after);
        return before === undefined ? later : later.lt("status", before);
      })
      .take(limit - found.length);
    found.push(...tasks.map(taskFacts));
  }
  return found;
}

/** All tasks of the agent, a page at a time. */
export async function pageTasks(
  ctx: QueryCtx,
  agent: string,
  page: PaginationOptions,
): Promise<PaginationResult<TaskFacts>> {
  const tasks = await ctx.db
    .query("tasks")
    .withIndex("by_assignee_and_status", (q) => q.eq("assignee", agent))
    .paginate(page);
  return { ...tasks, page: tasks.page.map(taskFacts) };
}

/** Adding and finishing tasks, for the minimal table only; null where the table is your own, whose rules only you know. */
export const ownTasks: {
  add: (
    ctx: MutationCtx,
    task: { agent: string; title: string; status?: string },
    now: number,
  ) => Promise<string>;
  /** null when there is no such task */
  complete: (ctx: MutationCtx, taskId: string, now: number) => Promise<string | null>;
} | null = {
  add: async (ctx, { agent, title, status = "inbox" }, now) =>
    await ctx.db.insert("tasks", { assignee: agent, title, status, updatedAt: now }),
  complete: async (ctx, taskId, now) => {
    const id = ctx.db.normalizeId("tasks", taskId);
    if (id === null || (await ctx.db.get("tasks", id)) === null) return null;
    await ctx.db.patch("tasks", id, { status: "done", updatedAt: now });
    return id;
  },
};
