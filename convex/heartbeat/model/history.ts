/** Heartbeats as they are stored: how late one came, when its run began and ended, which is the other half of it. */
import type { Doc } from "../../_generated/dataModel";
import type { QueryCtx } from "../../_generated/server";
import type { Phase } from "./validators";

type Heartbeat = Doc<"agentHeartbeats">;

/** A heartbeat that took longer than this (ms) was delivered late: it was kept on its host, or its clock jumped. */
const LATE_DELIVERY_MS = 60_000;

/** How late (ms) it was delivered; undefined where it was not. */
export function deliveredLateMs({
  receivedAt,
  livenessAt,
}: Pick<Heartbeat, "receivedAt" | "livenessAt">): number | undefined {
  const lateMs = receivedAt - livenessAt;
  return lateMs > LATE_DELIVERY_MS ? lateMs : undefined;
}

/** The ends of a run as one of its heartbeats tells them, on our clock; a finish that says how long the run took says when it began. */
export function endsOf({ sentAt, livenessAt, run }: Pick<Heartbeat, "sentAt" | "livenessAt" | "run">): {
  startedAt?: number;
  finishedAt?: number;
} {
  if (run === undefined) return {};
  // never after the heartbeat itself
  const onOurClock = (at: number) => Math.max(0, livenessAt - Math.max(0, sentAt - at));
  const startedAt = run.startedAt === undefined ? undefined : onOurClock(run.startedAt);
  if (run.phase === "start") return { startedAt: startedAt ?? livenessAt };
  const finishedAt = run.finishedAt === undefined ? livenessAt : onOurClock(run.finishedAt);
  if (startedAt !== undefined || run.durationMs === undefined) return { startedAt, finishedAt };
  return { startedAt: Math.max(0, finishedAt - run.durationMs), finishedAt };
}

/** The first heartbeat that told of this end of a run; a sender that tells it twice is believed once. */
export async function firstOfPhase(
  ctx: QueryCtx,
  agent: string,
  runId: string,
  phase: Phase,
): Promise<Heartbeat | null> {
  return await ctx.db
    .query("agentHeartbeats")
    .withIndex("by_run", (q) => q.eq("agent", agent).eq("run.runId", runId).eq("run.phase", phase))
    .first();
}
