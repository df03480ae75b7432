import { cronJobs } from "convex/server";
import { references } from "./references";

const crons = cronJobs();

crons.interval("every hour from the first deploy", { hours: 1 }, references.tick, { name: "hourly" });
crons.interval("every second", { seconds: 1 }, references.tick, { name: "secondly" });
crons.monthly("rarely", { day: 31, hourUTC: 3, minuteUTC: 7 }, references.tick, { name: "monthly" });

export default crons;
