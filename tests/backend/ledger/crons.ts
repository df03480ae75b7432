import { cronJobs } from "convex/server";
import { references } from "./references";

const crons = cronJobs();

crons.interval("every second", { seconds: 1 }, references.tick);

export default crons;
