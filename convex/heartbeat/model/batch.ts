/** Recording heartbeats that were kept on their host, many in one call. */
import type { MutationCtx } from "../../_generated/server";
import { requireAgent, type Token } from "./access";
import { judge, record } from "./heartbeats";
import type { BatchArgs, BatchRecorded, HeartbeatArgs } from "./heartbeatValidators";
import { invalid, Refusal } from "./refusal";
import { taskCounter } from "./tasks";

/**
 * Heartbeats of one call. Of the longest there can be, a hundred still fit into the 16 MiB that Convex reads and writes in one transaction; of
 * most, a hundred take some 30 ms of its second. Only of agents with a thousand open tasks that come without counts, a few dozen in one call, are
 * too many documents read: such a call fails whole, and half of it does not.
 */
const MAX_BATCH = 100;

/**
 * Record heartbeats in their order, in one transaction. Each has its own result, and leaves what a call of its own would have left: one that is
 * refused writes nothing and harms no other. The tasks of an agent are counted once.
 *
 * Any error but a refusal of ours takes the whole batch down, and nothing of it is stored.
 * @throws Refusal `invalid` for a batch of none or too many
 */
export async function recordHeartbeats(
  ctx: MutationCtx,
  { heartbeats }: BatchArgs,
  token: Token,
): Promise<BatchRecorded> {
  if (heartbeats.length === 0 || heartbeats.length > MAX_BATCH) {
    throw invalid("heartbeats", `${heartbeats.length} in one call; it takes 1 to ${MAX_BATCH}`);
  }
  const now = Date.now();
  const count = taskCounter(ctx, now);
  const results: BatchRecorded["results"] = [];
  const judgeOne = async (heartbeat: HeartbeatArgs) => {
    try {
      requireAgent(token, heartbeat.agent);
      return await judge(ctx, heartbeat, now, count);
    } catch (error) {
      if (error instanceof Refusal) return { outcome: "refused" as const, ...error.data };
      throw error;
    }
  };
  for (const heartbeat of heartbeats) {
    const judged = await judgeOne(heartbeat);
    results.push(judged.outcome === "refused" ? judged : await record(ctx, judged));
  }
  return { results };
}
