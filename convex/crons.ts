/** What the deployment does by itself. A team adds these two lines to crons of its own. */
import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";
import { SWEEP_EVERY_MINUTES } from "./model/monitor";

const crons = cronJobs();

crons.interval("heartbeat sweep", { minutes: SWEEP_EVERY_MINUTES }, internal.maintenance.sweep);
// a quiet time that is nobody's full hour
crons.daily("heartbeat prune", { hourUTC: 3, minuteUTC: 37 }, internal.maintenance.prune);

export default crons;
