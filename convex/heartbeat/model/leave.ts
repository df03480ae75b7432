/**
 * Leaving a team's deployment: `heartbeat uninstall` takes these steps in their order, each in as many calls as it needs, and takes the
 * functions out of the app before the last one: as long as anything else is to be done, the token that asks is good.
 *
 * | step  | does                                                                                        | so that from then on               |
 * |-------|---------------------------------------------------------------------------------------------|------------------------------------|
 * | stop  | marks the monitor as stopped, ends the reconcile, revokes every token but the one that asks  | nothing starts by itself; no other host gets in |
 * | links | forgets the link of every watched agent to its row in `agents`                               | no heartbeat writes a card again   |
 * | cards | unsets `heartbeat` in every row of `agents`, linked or not                                   | a schema without the field is taken |
 * | empty | deletes what is in our tables, but for the row about the monitor and the token that asks     | only these two are left            |
 * | end   | revokes the token that asks; where only these two are left, deletes both                     | nobody gets in                     |
 *
 * What is done already is done again without a change: it does not matter where it was cut off. Between two steps everything can be asked
 * as before, and applySchedule takes it all back: the sweep goes on, links are found, cards written, tasks mirrored.
 *
 * `empty` begins with agentLiveness: an agent that nobody watches is sent for in vain, so no table fills up behind it. The last two rows go in one
 * transaction: without either, what starts by itself leaves our tables alone (monitor.ts: isAtRest).
 */
import { v, type Infer } from "convex/values";
import type { MutationCtx } from "../../_generated/server";
import type { Token } from "./access";
import { forgetMonitor, stopMonitor } from "./monitor";
import { paged, pageSize } from "./pages";
import { forgetReconcile } from "./reconcile";

/** Rows of one call: each is read, read once more when it is written, and written: a quarter of the 16 MiB that may be read is left for big ones. */
const PAGE = { default: 200, max: 500, bytes: 4 * 1024 * 1024 };

/** Our tables, in the order in which they are emptied, but for those of the last two rows: heartbeatTokens, heartbeatMonitor. */
const EMPTIED = [
  "agentLiveness",
  "agentHeartbeats",
  "agentFlips",
  "heartbeatTasks",
  "heartbeatReconcile",
] as const;

/** `cursor`: where the call before ended, for the steps that look through a table; `limit`: rows of this call, at most. */
export const leaveArgs = v.object({
  step: v.union(
    v.literal("stop"),
    v.literal("links"),
    v.literal("cards"),
    v.literal("empty"),
    v.literal("end"),
  ),
  cursor: v.optional(v.union(v.string(), v.null())),
  limit: v.optional(v.number()),
});
export type LeaveArgs = Infer<typeof leaveArgs>;

/** How far a step is: `changed` rows were written in this call, and where it is not `done` the next goes on at `continueCursor`, if there is one. */
export const left = v.object({
  done: v.boolean(),
  changed: v.number(),
  continueCursor: v.optional(v.string()),
});
export type Left = Infer<typeof left>;

/** One call of a step; see above. `own` is the token that asks, which ends with the last step. */
export async function leave(ctx: MutationCtx, own: Token, request: LeaveArgs): Promise<Left> {
  return await STEPS[request.step](ctx, pageSize(request, PAGE), own);
}

type Step = (ctx: MutationCtx, page: ReturnType<typeof pageSize>, own: Token) => Promise<Left>;

const STEPS: Record<LeaveArgs["step"], Step> = { stop, links, cards, empty, end };

async function stop(ctx: MutationCtx, { numItems }: { numItems: number }, own: Token): Promise<Left> {
  const now = Date.now();
  let changed = await stopMonitor(ctx, now);
  changed += await forgetReconcile(ctx);
  const valid = await ctx.db
    .query("heartbeatTokens")
    .withIndex("by_revokedAt", (q) => q.eq("revokedAt", undefined))
    .take(numItems + 1);
  const others = valid.filter(({ _id }) => _id !== own._id).slice(0, numItems);
  for (const { _id } of others) await ctx.db.patch("heartbeatTokens", _id, { revokedAt: now });
  return { done: valid.length <= numItems, changed: changed + others.length };
}

async function links(ctx: MutationCtx, page: ReturnType<typeof pageSize>): Promise<Left> {
  const rows = await paged(page, (options) => ctx.db.query("agentLiveness").paginate(options));
  const linked = rows.page.filter((row) => row.linked || row.agentRow !== undefined);
  for (const { _id } of linked) {
    await ctx.db.patch("agentLiveness", _id, { linked: false, agentRow: undefined });
  }
  return { done: rows.isDone, changed: linked.length, continueCursor: rows.continueCursor };
}

async function cards(ctx: MutationCtx, page: ReturnType<typeof pageSize>): Promise<Left> {
  const rows = await paged(page, (options) => ctx.db.query("agents").paginate(options));
  const shown = rows.page.filter((row) => row.heartbeat !== undefined);
  for (const row of shown) await ctx.db.patch("agents", row._id, { heartbeat: undefined });
  return { done: rows.isDone, changed: shown.length, continueCursor: rows.continueCursor };
}

async function empty(ctx: MutationCtx, page: ReturnType<typeof pageSize>, own: Token): Promise<Left> {
  // what was deleted is not met again: each call begins at the front, of the first table that has anything
  const front = { ...page, cursor: null };
  for (const table of EMPTIED) {
    if ((await ctx.db.query(table).first()) === null) continue;
    const rows = await ctx.db.query(table).paginate(front);
    for (const { _id } of rows.page) await ctx.db.delete(table, _id);
    return { done: false, changed: rows.page.length };
  }
  const found = await ctx.db.query("heartbeatTokens").take(front.numItems + 1);
  const others = found.filter(({ _id }) => _id !== own._id).slice(0, front.numItems);
  for (const { _id } of others) await ctx.db.delete("heartbeatTokens", _id);
  return { done: found.length <= front.numItems, changed: others.length };
}

async function end(ctx: MutationCtx, _: ReturnType<typeof pageSize>, own: Token): Promise<Left> {
  for (const table of [...EMPTIED, "heartbeatTokens"] as const) {
    const first = await ctx.db.query(table).take(2);
    if (first.every(({ _id }) => _id === own._id)) continue;
    await ctx.db.patch("heartbeatTokens", own._id, { revokedAt: Date.now() });
    return { done: true, changed: 1 };
  }
  const changed = await forgetMonitor(ctx);
  await ctx.db.delete("heartbeatTokens", own._id);
  return { done: true, changed: changed + 1 };
}
