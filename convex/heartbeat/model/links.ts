/**
 * The link from a watched agent to its row in the team's `agents`: the row's id, kept on `agentLiveness`.
 *
 * It holds while the row is there and says the agent's name. Found by looking through the table, so that no index of the team's is needed: by
 * applySchedule as far as one transaction goes, and to the end by the reconcile (reconcile.ts).
 */
import type { Doc, Id } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { fleet } from "../fleet";

/** What is known of an agent's link. `linked` without an id is that of functions that looked the row up by its name each time. */
export type Link = { agent: string; agentRow?: Id<"agents"> | undefined; linked: boolean };

/** One look of applySchedule: enough for a table of agents, and for one with big documents a quarter of what may be read. */
const LOOK = { numItems: 1_000, maximumBytesRead: 4 * 1024 * 1024, cursor: null };

/** The name that a row says, null for none; fleet.ts is the team's, and a row that it cannot read must not stop a heartbeat. */
export function nameOf(row: Doc<"agents">): string | null {
  try {
    return fleet.agentName(row);
  } catch (error) {
    console.error(`agentName in fleet.ts cannot read the agents row ${row._id}: ${String(error)}`);
    return null;
  }
}

/** The row that a link leads to, whatever it says by now; null when there is none any more. */
export async function rowBehind(ctx: QueryCtx, link: Link): Promise<Doc<"agents"> | null> {
  if (link.agentRow !== undefined) return await ctx.db.get("agents", link.agentRow);
  return link.linked && fleet.ownTables ? await fleet.ownTables.findAgent(ctx, link.agent) : null;
}

/** The row that a link leads to, if it still says the agent's name. */
export async function linkedRow(ctx: QueryCtx, link: Link): Promise<Doc<"agents"> | null> {
  const row = await rowBehind(ctx, link);
  return row !== null && nameOf(row) === link.agent ? row : null;
}

/** Rows for agents that have none, by name. `whole` is false where the table goes on after what was looked through. */
export type Found = { links: Map<string, Id<"agents">>; whole: boolean };

/** Look for the rows of agents; of several that say a name, the first. In tables of our own a row is made where there is none. */
export async function findLinks(ctx: MutationCtx, agents: ReadonlySet<string>): Promise<Found> {
  const links: Found["links"] = new Map();
  if (agents.size === 0) return { links, whole: true };
  if (fleet.ownTables) {
    const { findAgent, insertAgent } = fleet.ownTables;
    for (const agent of agents) {
      links.set(agent, (await findAgent(ctx, agent))?._id ?? (await insertAgent(ctx, agent)));
    }
    return { links, whole: true };
  }
  const { page, isDone } = await ctx.db.query("agents").paginate(LOOK);
  for (const row of page) {
    const name = nameOf(row);
    if (name !== null && agents.has(name) && !links.has(name)) links.set(name, row._id);
  }
  return { links, whole: isDone };
}
