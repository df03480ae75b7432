/** The `agentLiveness` row of an agent: finding it, storing what liveness.ts decided, showing it on the team's own row. */
import type { Doc } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { agentName } from "./checks";
import { findLinks, linkedRow, nameOf, rowBehind } from "./links";
import { type Flip, isDegraded, rankOf, setControl } from "./liveness";
import { isAtRest } from "./monitor";
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
  return await rowNamed(ctx, agentName(agent));
}

/** As findRow, for any text. */
export async function rowNamed(ctx: QueryCtx, agent: string): Promise<Row | null> {
  return await ctx.db
    .query("agentLiveness")
    .withIndex("by_agent", (q) => q.eq("agent", agent))
    .unique();
}

/** The row of an agent that must be registered; `unknown_agent` otherwise. */
export async function requireRow(ctx: QueryCtx, agent: string): Promise<Row> {
  const row = await findRow(ctx, agent);
  if (row === null) throw unknownAgent(agent);
  return row;
}

/**
 * Store changes of a row with its rank, the flip if there is one, and the agent's card on the team's row, if the link still leads to it.
 * Three documents written at most, and a fourth where the link moves; answers the row as it stands then.
 */
export async function store(
  ctx: MutationCtx,
  row: Row,
  changes: RowChanges,
  flip?: StoredFlip,
): Promise<Row> {
  const team = await rowBehind(ctx, { ...row, ...changes });
  const linked = team !== null && nameOf(team) === row.agent;
  // what kept the sweep from this row did not keep us
  const patch: RowChanges = { ...changes, linked, sweepError: undefined };
  if (linked) patch.agentRow = team._id;
  patch.rank = rankOf({ ...row, ...patch });
  await ctx.db.patch("agentLiveness", row._id, patch);
  const next: Row = { ...row, ...patch };
  if (flip) await ctx.db.insert("agentFlips", { agent: row.agent, ...flip });
  if (linked) await putCard(ctx, team, cardOf(next));
  else await takeCard(ctx, team);
  if (row.agentRow !== undefined && row.agentRow !== next.agentRow)
    await takeCard(ctx, await rowBehind(ctx, row));
  return next;
}

/** Look for the rows of those of these agents that are watched and not linked. @returns whether the table was looked through to its end */
export async function linkAgents(ctx: MutationCtx, agents: readonly string[]): Promise<boolean> {
  if (await isAtRest(ctx)) return true;
  const missing = new Map<string, Row>();
  for (const agent of agents) {
    const row = await rowNamed(ctx, agent);
    if (row !== null && (await linkedRow(ctx, row)) === null) missing.set(agent, row);
  }
  const { links, whole } = await findLinks(ctx, new Set(missing.keys()));
  for (const [agent, row] of missing) {
    const agentRow = links.get(agent);
    if (agentRow !== undefined) await store(ctx, row, { agentRow });
  }
  return whole;
}

/** Show the card on the team's row: the one field of theirs that we ever write. */
export async function putCard(ctx: MutationCtx, team: Doc<"agents">, heartbeat: AgentCard): Promise<void> {
  await ctx.db.patch("agents", team._id, { heartbeat });
}

/** Take the card from a row that is the agent's no more, unless it shows another's by now. */
async function takeCard(ctx: MutationCtx, team: Doc<"agents"> | null): Promise<void> {
  if (team === null || team.heartbeat === undefined) return;
  const name = nameOf(team);
  const holder = name === null ? null : await rowNamed(ctx, name);
  if (holder?.agentRow !== team._id) await ctx.db.patch("agents", team._id, { heartbeat: undefined });
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
