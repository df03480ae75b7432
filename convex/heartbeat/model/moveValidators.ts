/** The shapes of what is exported and imported: the rows of our tables without what each deployment finds out for itself. See validators.ts. */
import { v, type Infer } from "convex/values";
import { heartbeatTables } from "../tables";
import { pageArgs, pageEnd, refusalData } from "./validators";

const { agentHeartbeats, agentLiveness, agentFlips } = heartbeatTables;

/** An agent: its schedule, what the operator wants, what was heard and concluded; not its deadlines, which follow, nor what it may still send. */
export const agentRecord = agentLiveness.validator.omit(
  "agentRow",
  "linked",
  "rank",
  "dueAt",
  "degradeAt",
  "sweepAt",
  "allowance",
  "sweepError",
);
export type AgentRecord = Infer<typeof agentRecord>;

/** A heartbeat with when it was received, which is in no deployment's power to say again. A run is in its two heartbeats. */
export const heartbeatRecord = agentHeartbeats.validator;
export type HeartbeatRecord = Infer<typeof heartbeatRecord>;

export const flipRecord = agentFlips.validator;
export type FlipRecord = Infer<typeof flipRecord>;

const agents = { kind: v.literal("agents"), records: v.array(agentRecord) };
const heartbeats = { kind: v.literal("heartbeats"), records: v.array(heartbeatRecord) };
const flips = { kind: v.literal("flips"), records: v.array(flipRecord) };

// --- arguments ---

/** A page of one kind. */
export const exportArgs = pageArgs.extend({ kind: v.union(agents.kind, heartbeats.kind, flips.kind) });
export type ExportArgs = Infer<typeof exportArgs>;

/** Records of one kind; at most two hundred. */
export const importArgs = v.union(v.object(agents), v.object(heartbeats), v.object(flips));
export type ImportArgs = Infer<typeof importArgs>;

// --- answers ---

/** Records in the order in which they were made. */
export const exported = v.union(
  v.object({ ...agents, ...pageEnd }),
  v.object({ ...heartbeats, ...pageEnd }),
  v.object({ ...flips, ...pageEnd }),
);
export type Exported = Infer<typeof exported>;

/**
 * What became of the records: stored anew; of agents, changed by what is newer; known already; and each of those that were refused, by its place
 * among them.
 */
export const imported = v.object({
  recorded: v.number(),
  updated: v.number(),
  known: v.number(),
  refused: v.array(refusalData.extend({ index: v.number() })),
});
export type Imported = Infer<typeof imported>;
