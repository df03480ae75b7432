/**
 * The shapes that cross an edge: stored rows, arguments, answers. Types are inferred from here and written nowhere else.
 *
 * Instants are epoch milliseconds and end in `At`, durations are milliseconds and end in `Ms`; an optional field is absent when
 * unknown. Words that a sender chooses (status, result, phase) are plain strings among the arguments: a wrong one is then refused by us
 * with the code `invalid`, which reaches the sender, while Convex's own refusal of an argument is redacted in production.
 */
import { v, type Infer } from "convex/values";

const optionalNumber = v.optional(v.number());
const optionalString = v.optional(v.string());

// --- words ---

export const health = v.union(v.literal("new"), v.literal("ok"), v.literal("failing"), v.literal("degraded"));
export type Health = Infer<typeof health>;

export const control = v.union(v.literal("active"), v.literal("paused"), v.literal("retired"));
export type Control = Infer<typeof control>;

export const status = v.union(
  v.literal("ok"),
  v.literal("idle"),
  v.literal("working"),
  v.literal("blocked"),
  v.literal("waiting"),
  v.literal("error"),
);
export type Status = Infer<typeof status>;

export const result = v.union(v.literal("acted"), v.literal("noop"), v.literal("error"));
export type Result = Infer<typeof result>;

export const phase = v.union(v.literal("start"), v.literal("finish"));
export type Phase = Infer<typeof phase>;

export const scope = v.union(v.literal("send"), v.literal("read"), v.literal("admin"));
export type Scope = Infer<typeof scope>;

export const countedBy = v.union(v.literal("sender"), v.literal("server"));

// --- parts that several shapes share ---

export const schedule = v.union(
  v.object({ kind: v.literal("interval"), everyMs: v.number() }),
  v.object({ kind: v.literal("cron"), expression: v.string(), timeZone: v.string() }),
);
export type Schedule = Infer<typeof schedule>;

/** A run that was started and not yet finished; instants on the backend's clock. */
export const openRun = v.object({
  runId: v.string(),
  startedAt: v.number(),
  /** the instant whose expected instant its start answered; its finish answers nothing later */
  answeredFromAt: v.number(),
  /** after this it is overrunning */
  deadlineAt: v.number(),
});
export type OpenRun = Infer<typeof openRun>;

export const lastRun = v.object({
  runId: v.string(),
  startedAt: optionalNumber,
  finishedAt: optionalNumber,
  durationMs: optionalNumber,
  exitCode: optionalNumber,
});
export type LastRun = Infer<typeof lastRun>;

export const lastError = v.object({ message: v.string(), at: v.number() });
export const reportingHost = v.object({ host: v.string(), at: v.number() });
export type ReportingHost = Infer<typeof reportingHost>;

const runFacts = {
  runId: v.string(),
  startedAt: optionalNumber,
  finishedAt: optionalNumber,
  durationMs: optionalNumber,
  exitCode: optionalNumber,
  output: optionalString,
  outputCut: v.optional(v.boolean()),
};
export const storedRun = v.object({ ...runFacts, phase });

/** What stands in `agents.heartbeat`, for a page of the team's own. */
export const agentCard = v.object({
  lastHeartbeatAt: optionalNumber,
  status: v.optional(status),
  openTasks: optionalNumber,
  staleTasks: optionalNumber,
  summary: optionalString,
  purpose: optionalString,
  /** the error that the last heartbeat told of; absent once a heartbeat came without one */
  error: optionalString,
  health,
  degraded: v.boolean(),
});
export type AgentCard = Infer<typeof agentCard>;

// --- arguments ---

export const token = v.optional(v.string());

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

export const scheduledAgent = v.object({
  agent: v.string(),
  schedule,
  purpose: optionalString,
  status: optionalString,
  graceMs: optionalNumber,
  misses: optionalNumber,
  maxRunMs: optionalNumber,
  actWithinMs: optionalNumber,
  host: optionalString,
});
export type ScheduledAgent = Infer<typeof scheduledAgent>;

export const scheduleArgs = v.object({
  source: v.string(),
  agents: v.array(scheduledAgent),
  listed: v.optional(v.array(v.string())),
  dryRun: v.optional(v.boolean()),
});
export type ScheduleArgs = Infer<typeof scheduleArgs>;

const cursor = v.optional(v.union(v.string(), v.null()));
const limit = optionalNumber;
export const pageArgs = v.object({ cursor, limit });
export const historyArgs = v.object({ agent: v.string(), cursor, limit });
export const taskListArgs = v.object({ agent: v.string(), at: v.number(), cursor, limit });
export const agentAtArgs = v.object({ agent: v.string(), at: v.number() });
export const controlArgs = v.object({ agent: v.string(), control });
export const emptyArgs = v.object({});
export const tokenArgs = v.object({
  tokenHash: v.string(),
  name: v.string(),
  scope,
  agents: v.optional(v.array(v.string())),
  hostName: optionalString,
});
export type TokenArgs = Infer<typeof tokenArgs>;
export const firstTokenArgs = tokenArgs.pick("tokenHash", "name", "scope");
export const fingerprintArgs = v.object({ fingerprint: v.string() });
export const newTaskArgs = v.object({ agent: v.string(), title: v.string(), status: optionalString });
export const taskArgs = v.object({ taskId: v.string() });

// --- answers ---

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

export const taskCounts = v.object({
  agent: v.string(),
  openTasks: v.number(),
  staleTasks: v.number(),
  capped: v.boolean(),
  unknownStatuses: v.array(v.string()),
  countedAt: v.number(),
  staleAfterMs: v.number(),
});

export const monitorStatus = v.object({
  contractVersion: v.number(),
  sweepEveryMs: v.number(),
  sweepRanAt: optionalNumber,
  holdUntil: optionalNumber,
});
export type MonitorStatus = Infer<typeof monitorStatus>;

/** One agent as every view shows it. */
export const agentRow = v.object({
  agent: v.string(),
  purpose: optionalString,
  linked: v.boolean(),
  schedule,
  scheduleText: v.string(),
  graceMs: v.number(),
  misses: v.number(),
  maxRunMs: optionalNumber,
  actWithinMs: optionalNumber,
  control,
  controlSince: v.number(),
  health,
  degraded: v.boolean(),
  reason: optionalString,
  healthSince: v.number(),
  noticedAt: optionalNumber,
  status: v.optional(status),
  rawStatus: optionalString,
  statusSince: optionalNumber,
  summary: optionalString,
  result: v.optional(result),
  lastHeartbeatAt: optionalNumber,
  lastSentAt: optionalNumber,
  lastReceivedAt: optionalNumber,
  skewMs: optionalNumber,
  lastActedAt: optionalNumber,
  runsSinceActed: v.number(),
  lastError: v.optional(lastError),
  openTasks: optionalNumber,
  staleTasks: optionalNumber,
  countedAt: optionalNumber,
  countsCapped: v.optional(v.boolean()),
  hosts: v.array(reportingHost),
  clientVersion: optionalString,
  dueAt: optionalNumber,
  degradeAt: optionalNumber,
  runningSince: optionalNumber,
  lastRun: v.optional(lastRun),
});
export type AgentRow = Infer<typeof agentRow>;

export const dashboard = v.object({
  agents: v.array(agentRow),
  totals: v.object({
    agents: v.number(),
    new: v.number(),
    ok: v.number(),
    failing: v.number(),
    degraded: v.number(),
    paused: v.number(),
  }),
  isDone: v.boolean(),
  continueCursor: v.string(),
});
export type Dashboard = Infer<typeof dashboard>;

export const shownFlip = v.object({
  from: health,
  to: health,
  reason: v.string(),
  becameAt: v.number(),
  noticedAt: v.number(),
  gapNote: optionalString,
  explainedBy: v.optional(v.object({ heartbeatId: v.string(), deliveredLateMs: v.number() })),
});
export type ShownFlip = Infer<typeof shownFlip>;

export const agentDetail = v.object({
  row: agentRow,
  nextExpectedAt: v.array(v.number()),
  flips: v.array(shownFlip),
});
export type AgentDetail = Infer<typeof agentDetail>;

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

export const history = v.object({
  heartbeats: v.array(pastHeartbeat),
  isDone: v.boolean(),
  continueCursor: v.string(),
});
export type History = Infer<typeof history>;

export const listedTask = v.object({
  taskId: v.string(),
  title: v.string(),
  status: v.string(),
  updatedAt: optionalNumber,
  counted: v.union(v.literal("open"), v.literal("stale"), v.literal("no")),
  why: v.string(),
});
export type ListedTask = Infer<typeof listedTask>;

export const taskList = v.object({
  tasks: v.array(listedTask),
  isDone: v.boolean(),
  continueCursor: v.string(),
});
export type TaskList = Infer<typeof taskList>;

export const scheduleChange = v.object({
  agent: v.string(),
  change: v.union(v.literal("added"), v.literal("changed"), v.literal("unchanged")),
  fields: v.array(v.string()),
  linked: v.boolean(),
  firstDueAt: v.number(),
});
export type ScheduleChange = Infer<typeof scheduleChange>;

export const scheduleProblem = v.object({ agent: v.string(), field: v.string(), message: v.string() });
export type ScheduleProblem = Infer<typeof scheduleProblem>;

export const applied = v.union(
  v.object({
    outcome: v.union(v.literal("applied"), v.literal("planned")),
    changes: v.array(scheduleChange),
    unlisted: v.array(v.string()),
  }),
  v.object({ outcome: v.literal("refused"), problems: v.array(scheduleProblem) }),
);
export type Applied = Infer<typeof applied>;

export const controlled = v.object({ agent: v.string(), control, health, changed: v.boolean() });
export type Controlled = Infer<typeof controlled>;

export const listedToken = v.object({
  fingerprint: v.string(),
  name: v.string(),
  scope,
  agents: v.optional(v.array(v.string())),
  hostName: optionalString,
  createdAt: v.number(),
  revokedAt: optionalNumber,
});
export const tokenList = v.object({ tokens: v.array(listedToken) });
export const createdToken = v.object({ fingerprint: v.string(), name: v.string(), scope });
export type CreatedToken = Infer<typeof createdToken>;
export const storedToken = v.object({ fingerprint: v.string() });
export const revokedToken = v.object({ fingerprint: v.string(), revokedAt: v.number() });
export const taskReference = v.object({ taskId: v.string() });
