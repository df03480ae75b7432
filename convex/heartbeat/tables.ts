/**
 * Our tables, to be spread into `defineSchema`, and the one field of the team's `agents`. Nobody but the functions here writes them.
 */
import { defineTable } from "convex/server";
import { v } from "convex/values";
import { storedRun } from "./model/heartbeatValidators";
import { scope } from "./model/tokenValidators";
import {
  agentCard,
  allowance,
  control,
  countedBy,
  failures,
  health,
  lastError,
  lastRun,
  openRun,
  reportingHost,
  result,
  schedule,
  status,
} from "./model/validators";

/** What `agents` gains, a field that nobody has to set: an agent's state for a page of the team's own. */
export const heartbeatField = v.optional(agentCard);

export const heartbeatTables = {
  /**
   * History: one immutable row per heartbeat.
   * Written by recordHeartbeat and, many at once, recordHeartbeats and importRecords. Read by these (is it there already, the other half of a
   * run), getAgentHistory, getAgentRuns, getAgent (what explains a flip) and exportRecords. Pruned daily, 90 days after
   * it was stored (by creation time, which is its receipt or its import: an index for the difference would be a fifth more to store).
   */
  agentHeartbeats: defineTable({
    heartbeatId: v.string(),
    agent: v.string(),
    sentAt: v.number(),
    deliveredAt: v.number(),
    receivedAt: v.number(),
    livenessAt: v.number(),
    status,
    rawStatus: v.string(),
    summary: v.optional(v.string()),
    error: v.optional(v.string()),
    result: v.optional(result),
    openTasks: v.number(),
    staleTasks: v.number(),
    countsCapped: v.boolean(),
    countedBy,
    host: v.optional(v.string()),
    clientVersion: v.optional(v.string()),
    run: v.optional(storedRun),
    /** when its run began: on a start, and on a finish that came before its start; what lists each run once */
    runAt: v.optional(v.number()),
  })
    // recordHeartbeat, recordHeartbeats: recorded exactly once
    .index("by_heartbeatId", ["heartbeatId"])
    // getAgentHistory: newest liveness instant first; getAgent: what was delivered late into a silence
    .index("by_agent_and_livenessAt", ["agent", "livenessAt"])
    // recordHeartbeat, recordHeartbeats, getAgentRuns: the start of a finish, the finish of a start
    .index("by_run", ["agent", "run.runId", "run.phase"])
    // getAgentRuns: the run that began last first
    .index("by_agent_and_runAt", ["agent", "runAt"]),

  /**
   * One row per watched agent: its schedule, what the operator wants, what was heard last, and what the backend concludes.
   * Written by applySchedule, recordHeartbeat(s), setAgentControl, importRecords, the sweep and the reconcile; who may move which state
   * stands in model/liveness.ts.
   * Read by every view. Never pruned: a retired agent keeps its row.
   */
  agentLiveness: defineTable({
    agent: v.string(),
    /** the schedule file that registered it */
    source: v.string(),
    schedule,
    graceMs: v.number(),
    /** the grace was computed from the schedule, nobody stated it */
    graceComputed: v.boolean(),
    misses: v.number(),
    /** absent in rows of functions that did not know it: one */
    failAfter: v.optional(v.number()),
    maxRunMs: v.optional(v.number()),
    actWithinMs: v.optional(v.number()),
    purpose: v.optional(v.string()),
    /** the status and host that the schedule names: what a send reports by default, where it runs */
    plannedStatus: v.optional(status),
    plannedHost: v.optional(v.string()),
    /** the agent's row in the team's `agents`, as last found; see model/links.ts */
    agentRow: v.optional(v.id("agents")),
    /** when this row was last written, that row was there and said the agent's name */
    linked: v.boolean(),

    control,
    controlSince: v.number(),
    health,
    healthSince: v.number(),
    noticedAt: v.number(),
    reason: v.optional(v.string()),
    rank: v.number(),

    /** registration, resume or schedule change, the latest: silence is not counted from before it */
    resetAt: v.number(),
    /** the latest instant that answers expected instants; a finish answers what its start did */
    answeredFromAt: v.optional(v.number()),
    dueAt: v.optional(v.number()),
    degradeAt: v.optional(v.number()),
    /** the earliest pending deadline; absent when there is none or the agent is already degraded */
    sweepAt: v.optional(v.number()),
    openRuns: v.array(openRun),
    lastRun: v.optional(lastRun),
    /** the latest heartbeat that is not a start: health follows it */
    lastReport: v.optional(v.object({ at: v.number(), heartbeatId: v.string(), failing: v.boolean() })),
    /** reports in a row that said error; absent before the first report */
    failures: v.optional(failures),

    lastHeartbeatId: v.optional(v.string()),
    lastHeartbeatAt: v.optional(v.number()),
    lastSentAt: v.optional(v.number()),
    lastReceivedAt: v.optional(v.number()),
    skewMs: v.optional(v.number()),
    status: v.optional(status),
    rawStatus: v.optional(v.string()),
    statusSince: v.optional(v.number()),
    summary: v.optional(v.string()),
    result: v.optional(result),
    clientVersion: v.optional(v.string()),
    hosts: v.array(reportingHost),
    lastError: v.optional(lastError),
    lastActedAt: v.optional(v.number()),
    runsSinceActed: v.number(),
    openTasks: v.optional(v.number()),
    staleTasks: v.optional(v.number()),
    countedAt: v.optional(v.number()),
    countsCapped: v.optional(v.boolean()),

    /** what it may still send; only recordHeartbeat(s) touch it, and there is none before the first heartbeat */
    allowance: v.optional(allowance),

    /** why the sweep could not handle this row, and when it tried; gone with whatever is stored of the row next */
    sweepError: v.optional(lastError),
  })
    // every function that names an agent
    .index("by_agent", ["agent"])
    // getAgentDashboard: worst first
    .index("by_rank_and_agent", ["rank", "agent"])
    // the sweep: whose deadline has passed
    .index("by_sweepAt", ["sweepAt"])
    // applySchedule: what this schedule registered and no longer lists
    .index("by_source_and_agent", ["source", "agent"]),

  /**
   * The mirror of the team's tasks, a row for each task and assignee; empty where fleet.ts has a `taskIndex`. Written by mirrorTask, which the
   * app's mutations call, and by the reconcile. Read by getAgentTaskCounts, listAgentTasks and, when a heartbeat comes without counts,
   * recordHeartbeat(s). A row goes with its task.
   */
  heartbeatTasks: defineTable({
    taskId: v.id("tasks"),
    /** the task's creation time, by which the reconcile meets it */
    taskMadeAt: v.number(),
    /** the name of an agent or the id of its row, as the task has it */
    assignee: v.string(),
    title: v.string(),
    status: v.string(),
    open: v.boolean(),
    touchedAt: v.number(),
    updatedAt: v.optional(v.number()),
  })
    // mirrorTask: what there is of a task
    .index("by_task", ["taskId"])
    // the reconcile: what there is of the tasks of one page
    .index("by_taskMadeAt", ["taskMadeAt"])
    // counting, listAgentTasks
    .index("by_assignee", ["assignee", "open"]),

  /**
   * One row about the reconcile. Written by it when it begins and when it is through, deleted by leave. Read by applySchedule, by mirrorTask, which
   * mirrors nothing without it, and by whatever counts from the mirror. Never pruned.
   */
  heartbeatReconcile: defineTable({
    /** when the newest one began */
    begunAt: v.number(),
    /** when the newest one began that came to its end: of before that instant the mirror lacks nothing */
    wholeAt: v.optional(v.number()),
  }),

  /**
   * Changes of stored health. Written by recordHeartbeat(s), setAgentControl, the sweep, importRecords and, where it changes how many errors make
   * an agent failing, applySchedule. Read by getAgent and exportRecords.
   * Pruned daily, 365 days after they were noticed.
   */
  agentFlips: defineTable({
    agent: v.string(),
    from: health,
    to: health,
    reason: v.string(),
    becameAt: v.number(),
    noticedAt: v.number(),
    /** the monitor itself was away when this became true */
    gapNote: v.optional(v.string()),
    /** of a flip to degraded: nothing had been heard since this instant; what is delivered later from after it explains the flip */
    silentSince: v.optional(v.number()),
  })
    // getAgent: the newest of one agent; importRecords: is it there already
    .index("by_agent_and_becameAt", ["agent", "becameAt"])
    // pruning
    .index("by_noticedAt", ["noticedAt"]),

  /**
   * Access tokens, by SHA-256 only. Written by createToken, revokeToken, setup:storeFirstToken and, `lastUsedAt` once a day, by every public
   * mutation. Read by every public function.
   * Pruned daily, 365 days after being revoked.
   */
  heartbeatTokens: defineTable({
    tokenHash: v.string(),
    /** the first 12 hex digits of the hash, by which people name a token */
    fingerprint: v.string(),
    name: v.string(),
    scope,
    agents: v.optional(v.array(v.string())),
    hostName: v.optional(v.string()),
    createdAt: v.number(),
    /** the start of the UTC day of the last mutation called with it; queries cannot write, so read tokens have none */
    lastUsedAt: v.optional(v.number()),
    revokedAt: v.optional(v.number()),
  })
    // every public function: the look-up is the comparison
    .index("by_tokenHash", ["tokenHash"])
    // createToken and revokeToken: the token of that name; getToken: is it older
    .index("by_fingerprint", ["fingerprint"])
    // pruning
    .index("by_revokedAt", ["revokedAt"]),

  /**
   * One row about the monitor itself. Written by the sweep, and by leave and applySchedule where they stop and start it. Read by getMonitorStatus,
   * the sweep, whatever starts or links (reconcile, applySchedule, importRecords), and by recordHeartbeat(s) only where it is about to flip an
   * agent to degraded: whatever else read it would run again each minute. Never pruned.
   */
  heartbeatMonitor: defineTable({
    sweepRanAt: v.number(),
    /** the sweep was away between these; nobody is flipped to degraded before holdUntil */
    awayFrom: v.optional(v.number()),
    awayUntil: v.optional(v.number()),
    holdUntil: v.optional(v.number()),
    /** nothing starts by itself since then: the team is leaving */
    stoppedAt: v.optional(v.number()),
  }),
};
