/**
 * The reconcile: puts right what only looks at the team's tables can tell. Started daily, right after a push that brings it to a deployment that is
 * in use, and by the first applySchedule; a chain of short transactions, each of which schedules the next.
 *
 * | phase   | looks through  | and                                                                                  | then                         |
 * |---------|----------------|--------------------------------------------------------------------------------------|------------------------------|
 * | watched | agentLiveness  | checks each link; a card that the app's own writing dropped is written again         | agents if a link is missing, |
 * |         |                |                                                                                      | else tasks                   |
 * | agents  | agents         | links each row that says the name of an agent without a link                         | tasks                        |
 * | tasks   | tasks, mirror  | mirrors each task; takes out what is mirrored of tasks that are gone                 | the end: `wholeAt`           |
 *
 * Where fleet.ts has a `taskIndex` there is no mirror, and no phase `tasks`. A newer reconcile ends an older one: a step whose `begunAt` is
 * not that of the stored row does nothing. A step that fails ends its chain; the next day's begins anew.
 */
import { v, type Infer } from "convex/values";
import { internal } from "../../_generated/api";
import type { Doc, Id } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { fleet } from "../fleet";
import { cardOf, type Row, rowNamed, store } from "./agents";
import { linkedRow, nameOf } from "./links";
import { complain, putRows, rowsOf, storedRows } from "./mirror";
import { isAtRest } from "./monitor";

/** How often heartbeat/crons.ts starts it: what an app's mutation forgot to mirror is right again within a day. */
export const RECONCILE_EVERY_HOURS = 24;

/** Rows of `agentLiveness` of one step: each may lead to a document of a MiB that is read three times, and 16 MiB may be read. */
const WATCHED_PAGE = { numItems: 5 };

/** The team's own rows of one step: no more than a quarter of what may be read. */
const AGENTS_PAGE = { numItems: 100, maximumBytesRead: 4 * 1024 * 1024 };
const TASKS_PAGE = { numItems: 50, maximumBytesRead: 4 * 1024 * 1024 };

/** Rows of the mirror read in one step: more than fifty tasks of 256 assignees have, so that beyond it some must be of tasks that are gone. */
const MAX_MIRRORED = 13_000;

/** Tasks of one step that are looked up to see that they are gone; 4,096 ranges may be read. */
const MAX_GONE = 1_000;

/** Documents that a step writes before it leaves the rest to the next; 16,000 may be written. */
const MAX_WRITTEN = 4_000;

/** Where a reconcile is; `after` is the creation time of the last task of the page before. */
export const reconcileStep = v.object({
  begunAt: v.number(),
  phase: v.union(v.literal("watched"), v.literal("agents"), v.literal("tasks")),
  cursor: v.union(v.string(), v.null()),
  unlinked: v.boolean(),
  after: v.number(),
});
type Step = Infer<typeof reconcileStep>;

/** Nothing is older than this. */
const BEFORE_ALL = -1;

/** When the newest whole reconcile began; undefined before there was one. */
export async function reconciledAt(ctx: QueryCtx): Promise<number | undefined> {
  return (await ctx.db.query("heartbeatReconcile").first())?.wholeAt;
}

/** Have a reconcile begin after this transaction, where there was none yet, or where `looked` is false: not all was looked through. */
export async function ensureReconciled(ctx: MutationCtx, looked: boolean): Promise<void> {
  // in tables of our own nothing is to be found that is not known
  if (fleet.ownTables || (looked && (await reconciledAt(ctx)) !== undefined)) return;
  await ctx.scheduler.runAfter(0, internal.heartbeat.maintenance.reconcile, {});
}

/** What a reconcile that is on its way goes by is gone: its next step ends it, and no task is mirrored. @returns how many documents it deleted */
export async function forgetReconcile(ctx: MutationCtx): Promise<number> {
  const known = await ctx.db.query("heartbeatReconcile").first();
  if (known !== null) await ctx.db.delete("heartbeatReconcile", known._id);
  return known === null ? 0 : 1;
}

/** One step; without a step the first of a new reconcile. */
export async function reconcile(ctx: MutationCtx, step: Step | undefined): Promise<null> {
  const known = await ctx.db.query("heartbeatReconcile").first();
  if (step === undefined) {
    if (await isAtRest(ctx)) return null;
    const begunAt = Date.now();
    if (known === null) await ctx.db.insert("heartbeatReconcile", { begunAt });
    else await ctx.db.patch("heartbeatReconcile", known._id, { begunAt });
    await go(ctx, { begunAt, phase: "watched", cursor: null, unlinked: false, after: BEFORE_ALL });
  } else if (known !== null && known.begunAt === step.begunAt) {
    await go(ctx, step);
  }
  return null;
}

async function go(ctx: MutationCtx, step: Step): Promise<void> {
  const next = await PHASES[step.phase](ctx, step);
  if (next !== "whole") {
    await ctx.scheduler.runAfter(0, internal.heartbeat.maintenance.reconcile, { step: next });
    return;
  }
  const known = await ctx.db.query("heartbeatReconcile").first();
  if (known !== null) await ctx.db.patch("heartbeatReconcile", known._id, { wholeAt: step.begunAt });
}

type Phase = (ctx: MutationCtx, step: Step) => Promise<Step | "whole">;

const PHASES: Record<Step["phase"], Phase> = { watched, agents, tasks };

/** From one phase to another. */
function enter(step: Step, phase: "agents" | "tasks"): Step | "whole" {
  if (phase === "tasks" && fleet.taskIndex) return "whole";
  return { ...step, phase, cursor: null };
}

// --- links ---

async function watched(ctx: MutationCtx, step: Step): Promise<Step | "whole"> {
  const { page, isDone, continueCursor } = await ctx.db
    .query("agentLiveness")
    .paginate({ ...WATCHED_PAGE, cursor: step.cursor });
  let { unlinked } = step;
  for (const row of page) {
    const team = await linkedRow(ctx, row);
    if (team === null) unlinked = true;
    if (isOutdated(row, team)) await store(ctx, row, {});
  }
  if (!isDone) return { ...step, cursor: continueCursor, unlinked };
  return enter({ ...step, unlinked }, unlinked ? "agents" : "tasks");
}

/** Whether storing the row anew would change anything about the link or the card. */
function isOutdated(row: Row, team: Doc<"agents"> | null): boolean {
  if (team === null) return row.linked;
  if (!row.linked || row.agentRow !== team._id || team.heartbeat === undefined) return true;
  const [there, wanted] = [Object.entries(team.heartbeat), Object.entries(cardOf(row))];
  const stated = new Map(wanted.filter(([, value]) => value !== undefined));
  return there.length !== stated.size || there.some(([key, value]) => stated.get(key) !== value);
}

async function agents(ctx: MutationCtx, step: Step): Promise<Step | "whole"> {
  const { page, isDone, continueCursor } = await ctx.db
    .query("agents")
    .paginate({ ...AGENTS_PAGE, cursor: step.cursor });
  for (const team of page) {
    const name = nameOf(team);
    const row = name === null ? null : await rowNamed(ctx, name);
    if (row === null || row.agentRow === team._id) continue;
    if ((await linkedRow(ctx, row)) === null) await store(ctx, row, { agentRow: team._id });
  }
  return isDone ? enter(step, "tasks") : { ...step, cursor: continueCursor };
}

// --- mirror ---

/**
 * The mirror's rows of the tasks of one page stand in one range of its index. Whatever in that range is of no task of the page is of a task that
 * is gone, or that was made in the same instant as the page's last and comes with the next; a task that came so has its rows before the range.
 */
async function tasks(ctx: MutationCtx, step: Step): Promise<Step | "whole"> {
  const { page, isDone, continueCursor } = await ctx.db
    .query("tasks")
    .paginate({ ...TASKS_PAGE, cursor: step.cursor });
  const last = isDone ? Infinity : (page[page.length - 1]?._creationTime ?? step.after);
  const mirrored = await ctx.db
    .query("heartbeatTasks")
    .withIndex("by_taskMadeAt", (q) => q.gt("taskMadeAt", step.after).lte("taskMadeAt", last))
    .take(MAX_MIRRORED);
  const rows = new Map<Id<"tasks">, Doc<"heartbeatTasks">[]>();
  for (const row of mirrored) rows.set(row.taskId, [...(rows.get(row.taskId) ?? []), row]);
  const present = new Map(page.map((task) => [task._id, task]));

  const others = [...rows.keys()].filter((id) => !present.has(id));
  let written = 0;
  for (const id of others.slice(0, MAX_GONE)) {
    if (written >= MAX_WRITTEN) return step;
    if ((await ctx.db.get("tasks", id)) === null) written += await putRows(ctx, [], rows.get(id) ?? []);
  }
  // there is more than was read or looked up: the same page again, now that there is less
  if (written > 0 && (others.length > MAX_GONE || mirrored.length === MAX_MIRRORED)) return step;
  for (const task of page) {
    if (written >= MAX_WRITTEN) return step;
    // its rows stand before the range, or the range was cut short and some may be missing
    const elsewhere = task._creationTime === step.after || mirrored.length === MAX_MIRRORED;
    const stored = elsewhere ? await storedRows(ctx, task._id) : rows.get(task._id);
    written += await putTask(ctx, task, stored ?? []);
  }
  return isDone ? "whole" : { ...step, cursor: continueCursor, after: last };
}

async function putTask(
  ctx: MutationCtx,
  task: Doc<"tasks">,
  stored: Doc<"heartbeatTasks">[],
): Promise<number> {
  try {
    return await putRows(ctx, rowsOf(task), stored);
  } catch (error) {
    complain(task._id, error);
    return 0;
  }
}
