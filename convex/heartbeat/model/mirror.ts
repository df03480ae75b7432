/**
 * The mirror of the team's `tasks`: a row of ours for each task and assignee, where no index of theirs can find an agent's tasks. Kept by
 * mirrorTask, which the app's mutations call, and put right by the reconcile wherever they forgot to.
 */
import type { PaginationOptions } from "convex/server";
import type { Doc, Id } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { fleet, type WatchedAgent } from "../fleet";

/** A task of one assignee, as it is mirrored. */
export type Mirrored = Omit<Doc<"heartbeatTasks">, "_id" | "_creationTime">;
type Stored = Doc<"heartbeatTasks">;

/** Assignees of one task that are mirrored: a whole fleet's, and few enough that fifty tasks fit into a transaction. */
export const MAX_ASSIGNEES = 256;

/** Characters of a title that are mirrored: to tell tasks by in a list. */
const TITLE_CHARS = 100;

/** Whether a task of this status is over. Asked, not kept: while modules load, a fleet.ts that imports much may not be there yet. */
export function isClosed(status: string): boolean {
  return fleet.CLOSED_STATUSES.includes(status);
}

/**
 * Mirror a task that the app has inserted, patched, replaced or deleted, in the same mutation. The same again changes nothing.
 *
 * Throws nothing: the app's own mutation must not fail by it. What goes wrong is logged, and the reconcile tries again.
 */
export async function mirrorTask(ctx: Pick<MutationCtx, "db">, taskId: Id<"tasks">): Promise<void> {
  if (fleet.taskIndex) return;
  try {
    // before the first reconcile there is nothing to keep, and it finds everything; after leaving there is to be nothing
    if ((await ctx.db.query("heartbeatReconcile").first()) === null) return;
    const stored = await storedRows(ctx, taskId);
    // eslint-disable-next-line @convex-dev/explicit-table-ids -- the team's ctx.db: triggers of older convex-helpers only know an id alone
    const task = await ctx.db.get(taskId);
    await putRows(ctx, task === null ? [] : rowsOf(task), stored);
  } catch (error) {
    complain(taskId, error);
  }
}

/** What the mirror has of a task. */
export async function storedRows(ctx: Pick<QueryCtx, "db">, taskId: Id<"tasks">): Promise<Stored[]> {
  return await ctx.db
    .query("heartbeatTasks")
    .withIndex("by_task", (q) => q.eq("taskId", taskId))
    .take(MAX_ASSIGNEES);
}

/** Say in the deployment's log what kept a task from the mirror. */
export function complain(taskId: Id<"tasks">, error: unknown): void {
  console.error(`the task ${taskId} cannot be mirrored for its agents' counts: ${String(error)}`);
}

/** The rows that a task has in the mirror. Throws what the team's taskFacts throws. */
export function rowsOf(task: Doc<"tasks">): Mirrored[] {
  const { title, status, assignees, touchedAt, updatedAt } = fleet.taskFacts(task);
  return [...new Set(assignees)].slice(0, MAX_ASSIGNEES).map((assignee) => ({
    taskId: task._id,
    taskMadeAt: task._creationTime,
    assignee,
    // by whole characters: half of one cannot be stored
    title: [...title.slice(0, 2 * TITLE_CHARS)].slice(0, TITLE_CHARS).join(""),
    status,
    open: !isClosed(status),
    touchedAt,
    ...(updatedAt === undefined ? {} : { updatedAt }),
  }));
}

/**
 * Make the stored rows of one task those that are wanted, one for each assignee. Names no table beside an id: see mirrorTask.
 * @returns how many documents it wrote
 */
export async function putRows(
  ctx: Pick<MutationCtx, "db">,
  wanted: readonly Mirrored[],
  stored: readonly Stored[],
): Promise<number> {
  const known = new Map(stored.map((row) => [row.assignee, row]));
  const left = new Set(stored);
  let written = 0;
  for (const row of wanted) {
    const there = known.get(row.assignee);
    if (there !== undefined) left.delete(there);
    if (there === undefined) await ctx.db.insert("heartbeatTasks", row);
    // eslint-disable-next-line @convex-dev/explicit-table-ids -- as in mirrorTask
    else if (!isSame(there, row)) await ctx.db.replace(there._id, row);
    else continue;
    written += 1;
  }
  // eslint-disable-next-line @convex-dev/explicit-table-ids -- as in mirrorTask
  for (const row of left) await ctx.db.delete(row._id);
  return written + left.size;
}

function isSame(
  stored: Stored,
  { taskMadeAt, title, status, open, touchedAt, updatedAt }: Mirrored,
): boolean {
  return (
    stored.taskMadeAt === taskMadeAt &&
    stored.title === title &&
    stored.status === status &&
    stored.open === open &&
    stored.touchedAt === touchedAt &&
    stored.updatedAt === updatedAt
  );
}

/** What the mirror calls an agent: by its row's id where tasks name rows, else by its name. */
async function assigneeOf(ctx: QueryCtx, { name, row }: WatchedAgent): Promise<string> {
  if (row === undefined) return name;
  const any = await ctx.db
    .query("heartbeatTasks")
    .withIndex("by_assignee", (q) => q.eq("assignee", row))
    .first();
  return any === null ? name : row;
}

/** As `TaskIndex.open`, from the mirror. */
export async function openTasks(ctx: QueryCtx, agent: WatchedAgent, limit: number): Promise<Stored[]> {
  const assignee = await assigneeOf(ctx, agent);
  return await ctx.db
    .query("heartbeatTasks")
    .withIndex("by_assignee", (q) => q.eq("assignee", assignee).eq("open", true))
    .take(limit);
}

/** As `TaskIndex.all`, from the mirror; open ones first. */
export async function allTasks(ctx: QueryCtx, agent: WatchedAgent, page: PaginationOptions) {
  const assignee = await assigneeOf(ctx, agent);
  return await ctx.db
    .query("heartbeatTasks")
    .withIndex("by_assignee", (q) => q.eq("assignee", assignee))
    .order("desc")
    .paginate(page);
}
