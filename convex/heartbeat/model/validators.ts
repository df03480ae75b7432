/**
 * The shapes that cross an edge: stored rows, arguments, answers. Types are inferred from here and written nowhere else. What is only about
 * heartbeats stands in heartbeatValidators.ts, what is about tokens in tokenValidators.ts.
 *
 * Instants are epoch milliseconds and end in `At`, durations are milliseconds and end in `Ms`; an optional field is absent when
 * unknown. Words that a sender chooses (status, result, phase) are plain strings among the arguments: a wrong one is then refused by us
 * with the code `invalid`, which reaches the sender, while Convex's own refusal of an argument is redacted in production.
 */
import { v, type Infer } from "convex/values";

export const optionalNumber = v.optional(v.number());
export const optionalString = v.optional(v.string());

// --- words ---

/** What the backend concludes; who may move it stands in liveness.ts. */
export const health = v.union(v.literal("new"), v.literal("ok"), v.literal("failing"), v.literal("degraded"));
export type Health = Infer<typeof health>;

/** What the operator wants. */
export const control = v.union(v.literal("active"), v.literal("paused"), v.literal("retired"));
export type Control = Infer<typeof control>;

/** What an agent says of itself, after aliases. */
export const status = v.union(
  v.literal("ok"),
  v.literal("idle"),
  v.literal("working"),
  v.literal("blocked"),
  v.literal("waiting"),
  v.literal("error"),
);
export type Status = Infer<typeof status>;

/** What a run achieved. */
export const result = v.union(v.literal("acted"), v.literal("noop"), v.literal("error"));
export type Result = Infer<typeof result>;

/** Which end of a run a heartbeat tells of. */
export const phase = v.union(v.literal("start"), v.literal("finish"));
export type Phase = Infer<typeof phase>;

/** Who counted the tasks that a heartbeat tells of. */
export const countedBy = v.union(v.literal("sender"), v.literal("server"));

// --- parts that several shapes share ---

/** When an agent is expected; `timeZone` is an IANA name. */
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

/** The run that finished last; instants on the backend's clock. */
export const lastRun = v.object({
  runId: v.string(),
  startedAt: optionalNumber,
  finishedAt: optionalNumber,
  durationMs: optionalNumber,
  exitCode: optionalNumber,
  status: v.optional(status),
});
export type LastRun = Infer<typeof lastRun>;

/** The newest good report, and the reports since then that said error, oldest first; see failures.ts. */
export const failures = v.object({ goodAt: optionalNumber, at: v.array(v.number()) });
export type Failures = Infer<typeof failures>;

export const lastError = v.object({ message: v.string(), at: v.number() });
/** A host and its newest sign of life. */
export const reportingHost = v.object({ host: v.string(), at: v.number() });
export type ReportingHost = Infer<typeof reportingHost>;

/** What an agent may still send, and when that was so; see allowance.ts. */
export const allowance = v.object({ creditMs: v.number(), at: v.number() });
export type Allowance = Infer<typeof allowance>;

const refusalCode = v.union(
  v.literal("unauthorized"),
  v.literal("invalid"),
  v.literal("unknown_agent"),
  v.literal("conflict"),
  v.literal("slow_down"),
);
/** The data of a ConvexError of ours; what each code means stands in refusal.ts. */
export const refusalData = v.object({
  code: refusalCode,
  message: v.string(),
  field: optionalString,
  problem: optionalString,
  retryAfterMs: optionalNumber,
});
export type RefusalData = Infer<typeof refusalData>;

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

/** The text of an access token; absent is refused by us, without being printed into a log. */
export const token = v.optional(v.string());

const scheduledAgent = v.object({
  agent: v.string(),
  schedule,
  purpose: optionalString,
  status: optionalString,
  graceMs: optionalNumber,
  misses: optionalNumber,
  failAfter: optionalNumber,
  maxRunMs: optionalNumber,
  actWithinMs: optionalNumber,
  host: optionalString,
});
export type ScheduledAgent = Infer<typeof scheduledAgent>;

/** Agents of the schedule file `source`; `listed` names all of that file, and comes with its last batch only. */
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
export const newTaskArgs = v.object({ agent: v.string(), title: v.string(), status: optionalString });
export const taskArgs = v.object({ taskId: v.string() });

// --- answers ---

/** Counts of one agent as of `countedAt`. `mirrored`: from the mirror, as of its last whole reconcile; absent before the first. */
export const taskCounts = v.object({
  agent: v.string(),
  openTasks: v.number(),
  staleTasks: v.number(),
  capped: v.boolean(),
  unknownStatuses: v.array(v.string()),
  mirrored: v.optional(v.literal(true)),
  countedAt: optionalNumber,
  staleAfterMs: v.number(),
});

/** The monitor's own heartbeat. `holdUntil`: nobody is flipped to degraded before. `stoppedAt`: there is no sweep since, until applySchedule. */
export const monitorStatus = v.object({
  contractVersion: v.number(),
  sweepEveryMs: v.number(),
  sweepRanAt: optionalNumber,
  holdUntil: optionalNumber,
  stoppedAt: optionalNumber,
});
export type MonitorStatus = Infer<typeof monitorStatus>;

/** One agent as every view shows it. */
const agentRow = v.object({
  agent: v.string(),
  purpose: optionalString,
  linked: v.boolean(),
  schedule,
  scheduleText: v.string(),
  graceMs: v.number(),
  misses: v.number(),
  failAfter: v.number(),
  maxRunMs: optionalNumber,
  actWithinMs: optionalNumber,
  plannedStatus: v.optional(status),
  plannedHost: optionalString,
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
  /** reports in a row that said error, up to the newest; past a hundred it stays a hundred */
  consecutiveFailures: v.number(),
  openTasks: optionalNumber,
  staleTasks: optionalNumber,
  countedAt: optionalNumber,
  countsCapped: v.optional(v.boolean()),
  hosts: v.array(reportingHost),
  clientVersion: optionalString,
  dueAt: optionalNumber,
  /** the first expected instant that the silence misses, or will: `dueAt`, or where that passed during a run, the first after it */
  firstMissAt: optionalNumber,
  degradeAt: optionalNumber,
  /** the start of the oldest open run */
  runningSince: optionalNumber,
  /** oldest first; after its deadline a run is overrunning */
  openRuns: v.array(openRun.omit("answeredFromAt")),
  lastRun: v.optional(lastRun),
  sweepError: v.optional(lastError),
});
export type AgentRow = Infer<typeof agentRow>;

/** What every page ends with: whether it is the last, and from where the next one goes on. */
export const pageEnd = { isDone: v.boolean(), continueCursor: v.string() };

/** A page of agents, worst first; `totals` are of the page. */
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
  ...pageEnd,
});
export type Dashboard = Infer<typeof dashboard>;

/** A change of health. `explainedBy`: a heartbeat from within that silence, delivered only afterwards. */
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

/** One agent, when it is expected next, and its newest flips. */
export const agentDetail = v.object({
  row: agentRow,
  nextExpectedAt: v.array(v.number()),
  flips: v.array(shownFlip),
});
export type AgentDetail = Infer<typeof agentDetail>;

/** A task, whether it counted, and why in words. */
const listedTask = v.object({
  taskId: v.string(),
  title: v.string(),
  status: v.string(),
  /** when somebody last did something about it, by which it is stale; absent in answers of functions that did not tell */
  touchedAt: optionalNumber,
  updatedAt: optionalNumber,
  counted: v.union(v.literal("open"), v.literal("stale"), v.literal("no")),
  why: v.string(),
});
export type ListedTask = Infer<typeof listedTask>;

/** A page of an agent's tasks, closed ones too. */
export const taskList = v.object({
  tasks: v.array(listedTask),
  ...pageEnd,
});
export type TaskList = Infer<typeof taskList>;

/** What a schedule does to one agent; `fields` are the changed ones by the names of the arguments, and `link` where its row was found anew. */
const scheduleChange = v.object({
  agent: v.string(),
  change: v.union(v.literal("added"), v.literal("changed"), v.literal("unchanged")),
  fields: v.array(v.string()),
  linked: v.boolean(),
  /** only where it is not active: applying a schedule resumes nobody */
  control: v.optional(control),
  firstDueAt: v.number(),
});
export type ScheduleChange = Infer<typeof scheduleChange>;

/** Why an agent of the schedule cannot be used. */
const scheduleProblem = v.object({ agent: v.string(), field: v.string(), message: v.string() });
export type ScheduleProblem = Infer<typeof scheduleProblem>;

/** What applying a schedule did, or would do (`planned`); refused, nothing was written. `stoppedAt`: the monitor was stopped then, and goes on. */
export const applied = v.union(
  v.object({
    outcome: v.union(v.literal("applied"), v.literal("planned")),
    changes: v.array(scheduleChange),
    unlisted: v.array(v.string()),
    stoppedAt: optionalNumber,
  }),
  v.object({ outcome: v.literal("refused"), problems: v.array(scheduleProblem) }),
);
export type Applied = Infer<typeof applied>;

/** An agent after pause, resume or retire; `changed` false where it was so already. */
export const controlled = v.object({ agent: v.string(), control, health, changed: v.boolean() });
export type Controlled = Infer<typeof controlled>;

export const taskReference = v.object({ taskId: v.string() });
