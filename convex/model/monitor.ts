/** The heartbeat of the monitor itself: when the sweep last ran, and whether it was away. */
import type { MutationCtx, QueryCtx } from "../_generated/server";
import type { MonitorStatus } from "./validators";

const MINUTE_MS = 60_000;

/** Counted up when functions or their arguments gain something a CLI must know of. */
export const CONTRACT_VERSION = 1;

/** How often crons.ts starts the sweep; an answer says so, so that a dashboard can tell when it is late. */
export const SWEEP_EVERY_MINUTES = 1;
export const SWEEP_EVERY_MS = SWEEP_EVERY_MINUTES * MINUTE_MS;

/** A sweep whose predecessor is longer ago than this was away itself, not merely slow. */
const AWAY_AFTER_MS = 5 * MINUTE_MS;

/** After an absence, time for hosts to deliver what they kept before anybody is flipped to degraded. */
const HOLD_MS = 10 * MINUTE_MS;

/** What the sweep knows of itself. */
export type Monitor = { sweepRanAt: number; awayFrom?: number; awayUntil?: number; holdUntil?: number };

export async function readMonitor(ctx: QueryCtx): Promise<Monitor | null> {
  return await ctx.db.query("heartbeatMonitor").first();
}

/** For getMonitorStatus; never says more than what is stored. */
export async function monitorStatus(ctx: QueryCtx): Promise<MonitorStatus> {
  const monitor = await readMonitor(ctx);
  return {
    contractVersion: CONTRACT_VERSION,
    sweepEveryMs: SWEEP_EVERY_MS,
    sweepRanAt: monitor?.sweepRanAt,
    holdUntil: monitor?.holdUntil,
  };
}

/** The sweep runs at `now`: write it down, and a hold if its predecessor is too long ago. */
export async function sweepRuns(ctx: MutationCtx, now: number): Promise<Monitor> {
  const known = await ctx.db.query("heartbeatMonitor").first();
  if (known === null) {
    await ctx.db.insert("heartbeatMonitor", { sweepRanAt: now });
    return { sweepRanAt: now };
  }
  const changes: Monitor = { sweepRanAt: now };
  if (now - known.sweepRanAt > AWAY_AFTER_MS) {
    Object.assign(changes, { awayFrom: known.sweepRanAt, awayUntil: now, holdUntil: now + HOLD_MS });
  }
  await ctx.db.patch("heartbeatMonitor", known._id, changes);
  return { ...known, ...changes };
}

/** Nobody is flipped to degraded now. */
export function isHeld(monitor: Monitor | null, now: number): boolean {
  return monitor?.holdUntil !== undefined && now < monitor.holdUntil;
}

/** What a flip that became true during the last absence, or the hold after it, says of it. */
export function gapNote(monitor: Monitor | null, becameAt: number): string | undefined {
  if (monitor === null) return undefined;
  const { awayFrom, awayUntil, holdUntil } = monitor;
  if (awayFrom === undefined || awayUntil === undefined || holdUntil === undefined) return undefined;
  if (becameAt < awayFrom || becameAt >= holdUntil) return undefined;
  return `the monitor itself was away from ${spell(awayFrom)} to ${spell(awayUntil)}`;
}

function spell(at: number): string {
  return new Date(at).toISOString();
}
