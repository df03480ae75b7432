/** The runs of an agent, each put together from its start and its finish as they stand in history. */
import type { Doc } from "../../_generated/dataModel";
import type { QueryCtx } from "../../_generated/server";
import { requireRow, type Row } from "./agents";
import type { AgentRun, AgentRuns } from "./heartbeatValidators";
import { deliveredLateMs, endsOf, firstOfPhase } from "./history";
import { isOverrunning } from "./liveness";
import { paged, pageSize } from "./pages";
import { lasted } from "./runs";

type Heartbeat = Doc<"agentHeartbeats">;

/**
 * Runs in one answer. Each takes three heartbeats: the one that lists it, and both of its ends. Of the longest there can be, a page ends after these
 * bytes, and what is read for it comes to twice as much again: below Convex's 16 MiB.
 */
const RUNS_PAGE = { default: 20, max: 100, bytes: 4 * 1024 * 1024 };

/**
 * The runs of an agent, the one that began last first, each once: listed by its start, or by its finish where no start was ever heard of.
 * A page may hold fewer than were asked for. A run whose start arrives between two pages may stand on neither; the next look has it.
 */
export async function agentRuns(
  ctx: QueryCtx,
  request: { agent: string; cursor?: string | null; limit?: number },
): Promise<AgentRuns> {
  const row = await requireRow(ctx, request.agent);
  const { page, isDone, continueCursor } = await paged(pageSize(request, RUNS_PAGE), (options) =>
    ctx.db
      .query("agentHeartbeats")
      // the lower bound leaves out what lists no run: a missing field sorts below every number
      .withIndex("by_agent_and_runAt", (q) => q.eq("agent", row.agent).gte("runAt", 0))
      .order("desc")
      .paginate(options),
  );
  const runs = await Promise.all(page.map((listed) => runListedBy(ctx, row, listed)));
  return { runs: runs.filter((run) => run !== null), isDone, continueCursor };
}

/** The run, or null where another heartbeat lists it: a start that came after this finish, or the same end told before. */
async function runListedBy(ctx: QueryCtx, row: Row, listed: Heartbeat): Promise<AgentRun | null> {
  if (listed.run === undefined) return null;
  const { runId } = listed.run;
  const start = await firstOfPhase(ctx, row.agent, runId, "start");
  const finish = await firstOfPhase(ctx, row.agent, runId, "finish");
  if ((start ?? finish)?._id !== listed._id) return null;
  const told = finish ?? listed;
  const ends = { ...endsOf(told), ...(start && endsOf(start)) };
  const open = row.openRuns.find((one) => one.runId === runId);
  return {
    runId,
    ...ends,
    durationMs: lasted({ ...ends, durationMs: told.run?.durationMs }),
    exitCode: told.run?.exitCode,
    status: told.status,
    result: told.result,
    summary: told.summary,
    error: told.error,
    output: told.run?.output,
    outputCut: told.run?.outputCut,
    open: open !== undefined,
    overrunning: open !== undefined && isOverrunning(row, open),
    deadlineAt: open?.deadlineAt,
    host: told.host ?? start?.host,
    deliveredLateMs: deliveredLateMs(told),
  };
}
