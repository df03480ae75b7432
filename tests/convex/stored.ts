/** What is stored in a deployment on convex-test: read as it is, and brought about where sending it all would take too long. */
import type { TestConvex } from "convex-test";
import type schema from "../../convex/schema";

type Deployment = TestConvex<typeof schema>;
type Table = "agentHeartbeats" | "agentLiveness" | "agentFlips" | "agents" | "tasks" | "heartbeatTokens";

/** The rows of some tables in the order they were made, without what every deployment makes anew (ids and creation times). */
export async function rowsOf(t: Deployment, ...tables: Table[]): Promise<Record<string, unknown[]>> {
  return await t.run(async (ctx) => {
    const rows: Record<string, unknown[]> = {};
    for (const table of tables) {
      const stored = await ctx.db.query(table).collect();
      rows[table] = stored.map((row) => ({ ...row, _id: undefined, _creationTime: undefined }));
    }
    return rows;
  });
}

/** As if the agent had sent so much that it may send only `heartbeats` more now. */
export async function leaveAllowance(t: Deployment, agent: string, heartbeats: number): Promise<void> {
  await t.run(async (ctx) => {
    const row = await ctx.db
      .query("agentLiveness")
      .withIndex("by_agent", (q) => q.eq("agent", agent))
      .unique();
    const allowance = { creditMs: heartbeats * 1_000, at: Date.now() };
    await ctx.db.patch("agentLiveness", row!._id, { allowance });
  });
}
