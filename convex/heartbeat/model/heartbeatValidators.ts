/** The shapes of heartbeats: as they are sent, one or many, as the sender is answered, as history shows them. See validators.ts. */
import { v, type Infer } from "convex/values";
import {
  control,
  countedBy,
  health,
  optionalNumber,
  optionalString,
  pageEnd,
  phase,
  refusalData,
  result,
  status,
} from "./validators";

const runFacts = {
  runId: v.string(),
  startedAt: optionalNumber,
  finishedAt: optionalNumber,
  durationMs: optionalNumber,
  exitCode: optionalNumber,
  output: optionalString,
  outputCut: v.optional(v.boolean()),
};
/** A run as one of its two heartbeats tells it; instants on the sender's clock. */
export const storedRun = v.object({ ...runFacts, phase });

// --- arguments ---

/** A heartbeat on the wire; `sentAt` was made once, `deliveredAt` on this attempt, both on the sender's clock. */
export const heartbeatArgs = v.object({
  heartbeatId: v.string(),
  agent: v.string(),
  sentAt: v.number(),
  deliveredAt: v.number(),
  status: v.string(),
  summary: optionalString,
  error: optionalString,
  result: optionalString,
  openTasks: optionalNumber,
  staleTasks: optionalNumber,
  host: optionalString,
  clientVersion: optionalString,
  run: v.optional(v.object({ ...runFacts, phase: v.string() })),
});
export type HeartbeatArgs = Infer<typeof heartbeatArgs>;

/** Heartbeats of several agents or of one, delivered together; at most a hundred. */
export const batchArgs = v.object({ heartbeats: v.array(heartbeatArgs) });
export type BatchArgs = Infer<typeof batchArgs>;

// --- answers ---

/** What a sender learns: how its agent stands now, and what was stored of the heartbeat. */
export const recorded = v.object({
  outcome: v.union(v.literal("recorded"), v.literal("duplicate")),
  agent: v.string(),
  health,
  healthBefore: v.optional(health), // only where this heartbeat changed it
  degraded: v.boolean(),
  reason: optionalString,
  control,
  dueAt: optionalNumber,
  degradeAt: optionalNumber,
  livenessAt: v.number(),
  receivedAt: v.number(),
  skewMs: v.number(),
  openTasks: v.number(),
  staleTasks: v.number(),
  countsCapped: v.boolean(),
  countedBy,
  linked: v.boolean(),
});
export type Recorded = Infer<typeof recorded>;

/** A heartbeat of a batch that was not recorded: what a call of its own would have thrown. */
export const refusedHeartbeat = refusalData.extend({ outcome: v.literal("refused") });

/** What became of each heartbeat of a batch, in the order they came in. */
export const batchRecorded = v.object({ results: v.array(v.union(recorded, refusedHeartbeat)) });
export type BatchRecorded = Infer<typeof batchRecorded>;

/** A heartbeat of history. `deliveredLateMs` only where it took over a minute. */
export const pastHeartbeat = v.object({
  heartbeatId: v.string(),
  sentAt: v.number(),
  receivedAt: v.number(),
  livenessAt: v.number(),
  deliveredLateMs: optionalNumber,
  status,
  rawStatus: v.string(),
  summary: optionalString,
  error: optionalString,
  result: v.optional(result),
  openTasks: optionalNumber,
  staleTasks: optionalNumber,
  countedBy,
  host: optionalString,
  clientVersion: optionalString,
  run: v.optional(storedRun),
});
export type PastHeartbeat = Infer<typeof pastHeartbeat>;

/** A page of heartbeats, newest first. */
export const history = v.object({
  heartbeats: v.array(pastHeartbeat),
  ...pageEnd,
});
export type History = Infer<typeof history>;

/**
 * A run as far as its start, its finish or both were heard of. Without `finishedAt` and not open it is lost: nobody told how it ended. What its
 * agent said is from its finish, or until then from its start.
 */
const agentRun = v.object({
  ...runFacts,
  status: v.optional(status),
  result: v.optional(result),
  summary: optionalString,
  error: optionalString,
  open: v.boolean(),
  overrunning: v.boolean(), // noticed to be past its deadline
  deadlineAt: optionalNumber, // of an open run
  host: optionalString,
  deliveredLateMs: optionalNumber,
});
export type AgentRun = Infer<typeof agentRun>;

/** A page of runs, the one that began last first; it may hold fewer than were asked for, also where it is not the last. */
export const agentRuns = v.object({
  runs: v.array(agentRun),
  ...pageEnd,
});
export type AgentRuns = Infer<typeof agentRuns>;
