/** The heartbeat of the monitor itself: when the sweep last ran, and whether it was away. */
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import type { MonitorStatus } from "./validators";

const MINUTE_MS = 60_000;

/**
 * Counted up when functions or their arguments gain something a CLI must know of: 2 has recordHeartbeats, getToken, getAgentRuns, `failAfter` and
 * `slow_down`.
 */
const CONTRACT_VERSION = 2;

/** How often heartbeat/crons.ts starts the sweep; an answer says so, so that a dashboard can tell when it is late. */
export const SWEEP_EVERY_MINUTES = 1;
const SWEEP_EVERY_MS = SWEEP_EVERY_MINUTES * MINUTE_MS;

/** A sweep whose predecessor is longer ago than this was away itself, not merely slow. */
const AWAY_AFTER_MS = 5 * MINUTE_MS;

/** After an absence, time for hosts to deliver what they kept before anybody is flipped to degraded. */
const HOLD_MS = 10 * MINUTE_MS;

/** What the sweep knows of itself. */
type Monitor = {
  sweepRanAt: number;
  awayFrom?: number;
  awayUntil?: number;
  holdUntil?: number;
  stoppedAt?: number;
};

/** The monitor's one row; null until the sweep has run for the first time. */
async function readMonitor(ctx: QueryCtx) {
  return await ctx.db.query("heartbeatMonitor").first();
}

/**
 * The monitor as a sweep at `now` would find it, so that who comes before that sweep judges as it will; null in a deployment whose sweep
 * never ran, which cannot have been away.
 */
export async function monitorAt(ctx: QueryCtx, now: number): Promise<Monitor | null> {
  const monitor = await readMonitor(ctx);
  return monitor && { ...monitor, ...absence(monitor, now) };
}

/** What is noted at `now` where the sweep ran too long ago: the absence, and the hold that follows it. */
function absence({ sweepRanAt }: Monitor, now: number): Partial<Monitor> {
  if (now - sweepRanAt <= AWAY_AFTER_MS) return {};
  return { awayFrom: sweepRanAt, awayUntil: now, holdUntil: now + HOLD_MS };
}

/** For getMonitorStatus; never says more than what is stored. */
export async function monitorStatus(ctx: QueryCtx): Promise<MonitorStatus> {
  const monitor = await readMonitor(ctx);
  return {
    contractVersion: CONTRACT_VERSION,
    sweepEveryMs: SWEEP_EVERY_MS,
    sweepRanAt: monitor?.sweepRanAt,
    holdUntil: monitor?.holdUntil,
    stoppedAt: monitor?.stoppedAt,
  };
}

/**
 * Whether what starts by itself is to write nothing: the monitor was stopped; or it knows nothing, and nobody has a token to tell or ask it
 * anything: before the first one was made, and after the last one is gone (leave.ts).
 */
export async function isAtRest(ctx: QueryCtx): Promise<boolean> {
  return rests(ctx, await readMonitor(ctx));
}

async function rests(ctx: QueryCtx, monitor: Monitor | null): Promise<boolean> {
  if (monitor !== null) return monitor.stoppedAt !== undefined;
  return (await ctx.db.query("heartbeatTokens").first()) === null;
}

/** Nothing starts by itself from now on. @returns how many documents it wrote */
export async function stopMonitor(ctx: MutationCtx, now: number): Promise<number> {
  const known = await readMonitor(ctx);
  if (known?.stoppedAt !== undefined) return 0;
  // where the sweep never ran its absence counts from here
  if (known === null) await ctx.db.insert("heartbeatMonitor", { sweepRanAt: now, stoppedAt: now });
  else await ctx.db.patch("heartbeatMonitor", known._id, { stoppedAt: now });
  return 1;
}

/** When the monitor was stopped, undefined where it was not; `start` lets it go on, and its next sweep notes how long it was away. */
export async function stopped(ctx: MutationCtx, start: boolean): Promise<number | undefined> {
  const known = await readMonitor(ctx);
  if (known?.stoppedAt === undefined) return undefined;
  if (start) await ctx.db.patch("heartbeatMonitor", known._id, { stoppedAt: undefined });
  return known.stoppedAt;
}

/** Forget everything about the monitor. @returns how many documents it deleted */
export async function forgetMonitor(ctx: MutationCtx): Promise<number> {
  const known = await readMonitor(ctx);
  if (known !== null) await ctx.db.delete("heartbeatMonitor", known._id);
  return known === null ? 0 : 1;
}

/** The sweep runs at `now`: write it down, and a hold if its predecessor is too long ago. Null where it is to leave everything as it is. */
export async function sweepRuns(ctx: MutationCtx, now: number): Promise<Monitor | null> {
  const known = await readMonitor(ctx);
  if (await rests(ctx, known)) return null;
  if (known === null) {
    await ctx.db.insert("heartbeatMonitor", { sweepRanAt: now });
    return { sweepRanAt: now };
  }
  const changes = { ...absence(known, now), sweepRanAt: now };
  await ctx.db.patch("heartbeatMonitor", known._id, changes);
  return { ...known, ...changes };
}

/** Nobody is flipped to degraded now. A hold that begins later was set by a clock that has been put right since. */
export function isHeld(monitor: Monitor | null, now: number): boolean {
  if (monitor?.awayUntil === undefined || monitor.holdUntil === undefined) return false;
  return now >= monitor.awayUntil && now < monitor.holdUntil;
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
