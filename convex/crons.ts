import { cronJobs } from "convex/server";
import { addHeartbeatCrons } from "./heartbeat/crons";

const crons = cronJobs();

addHeartbeatCrons(crons);

export default crons;
