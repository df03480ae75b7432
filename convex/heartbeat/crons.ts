/** What the deployment does by itself. */
import type { Crons } from "convex/server";
import { internal } from "../_generated/api";
import { SWEEP_EVERY_MINUTES } from "./model/monitor";
import { RECONCILE_EVERY_HOURS } from "./model/reconcile";

/** Add the heartbeat functions' own to the crons of an app. */
export function addHeartbeatCrons(crons: Crons): void {
  crons.interval("heartbeat sweep", { minutes: SWEEP_EVERY_MINUTES }, internal.heartbeat.maintenance.sweep);
  // a quiet time that is nobody's full hour
  crons.daily("heartbeat prune", { hourUTC: 3, minuteUTC: 37 }, internal.heartbeat.maintenance.prune);
  // an interval, because its first run is right after the push that brought it
  crons.interval(
    "heartbeat reconcile",
    { hours: RECONCILE_EVERY_HOURS },
    internal.heartbeat.maintenance.reconcile,
    {},
  );
}
