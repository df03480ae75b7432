/** The `agentLiveness` row of an agent: finding it, storing what liveness.ts decided, showing it on the team's own row. */
import type { Doc } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { findAgent, writeCard } from "../../fleet";
import { agentName } from "./checks";
import { type Flip, isDegraded, rankOf, setControl } from "./liveness";
import { unknownAgent } from "./refusal";
import type { AgentCard, Control, Controlled } from "./validators";

/** What is stored of a watched agent. */
export type Row = Doc<"agentLiveness">;
/** Fields of a row to write; undefined removes one. */
export type RowChanges = Partial<Omit<Row, "_id" | "_creationTime">>;
/** A flip with what is stored about the monitor beside it. */
export type StoredFlip = Flip & { gapNote?: string };

/** The row of an agent, null when no schedule registered it. Refuses a text that is no name (`invalid`). */
export async function findRow(ctx: QueryCtx, agent: string): Promise<Row | null> {
  return await ctx.db
    .query("agentLiveness")
    .withIndex("by_agent", (q) => q.eq("agent", agentName(agent)))
    .unique();
}

/** The row of an agent that must be registered; `unknown_agent` otherwise. */
export async function requireRow(ctx: QueryCtx, agent: string): Promise<Row> {
  const row = await findRow(ctx, agent);
  if (row === null) throw unknownAgent(agent);
  return row;
}

/**
 * Store changes of a row with its rank, the flip if there is one, and the agent's card on the team's row, if it has one by now.
 * Three documents written at most; answers the row as it stands then.
 */
export async function store(
  ctx: MutationCtx,
  row: Row,
  changes: RowChanges,
  flip?: StoredFlip,
): Promise<Row> {
  const linkedTo = await findAgent(ctx, row.agent);
  // what kept the sweep from this row did not keep us
  const patch: RowChanges = { ...changes, linked: linkedTo !== null, sweepError: undefined };
  patch.rank = rankOf({ ...row, ...patch });
  await ctx.db.patch("agentLiveness", row._id, patch);
  const next: Row = { ...row, ...patch };
  if (flip) await ctx.db.insert("agentFlips", { agent: row.agent, ...flip });
  if (linkedTo !== null) await writeCard(ctx, linkedTo._id, cardOf(next));
  return next;
}

/** What a page of the team's own needs; see `agentCard`. */
export function cardOf(row: Omit<Row, "_id" | "_creationTime">): AgentCard {
  return {
    lastHeartbeatAt: row.lastHeartbeatAt,
    status: row.status,
    openTasks: row.openTasks,
    staleTasks: row.staleTasks,
    summary: row.summary,
    purpose: row.purpose,
    error: row.lastError?.at === row.lastHeartbeatAt ? row.lastError?.message : undefined,
    health: row.health,
    degraded: isDegraded(row),
  };
}

/** Pause, retire or resume an agent; what is so already changes nothing. */
export async function setAgentControl(
  ctx: MutationCtx,
  request: { agent: string; control: Control },
): Promise<Controlled> {
  const row = await requireRow(ctx, request.agent);
  const { agent, control, health } = row;
  if (control === request.control) return { agent, control, health, changed: false };
  const move = setControl(row, request.control, Date.now());
  const next = await store(ctx, row, move.changes, move.flip);
  return { agent, control: next.control, health: next.health, changed: true };
}
