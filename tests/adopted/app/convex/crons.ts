import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";

const crons = cronJobs();

crons.daily("digest", { hourUTC: 6, minuteUTC: 12 }, internal.digests.write);

export default crons;
