/** What fleet.ts, the team's own file, tells the heartbeat functions; they read it from here and nowhere else. */
import type { PaginationOptions, PaginationResult } from "convex/server";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as team from "../fleet";

/**
 * What counting needs to know of a task. `assignees`: names of agents, or ids of their rows; of one kind in all tasks. `touchedAt`: when
 * somebody last did something about it (epoch ms). `updatedAt`: shown with the task, where there is such an instant.
 */
export type TaskFacts = {
  title: string;
  status: string;
  assignees: readonly string[];
  touchedAt: number;
  updatedAt?: number | undefined;
};

/** A watched agent, and its row in the team's `agents` where it is linked. */
export type WatchedAgent = { name: string; row?: Id<"agents"> | undefined };

/** An agent's tasks by an index of the team's own. `open`: those that are not closed, at most `limit`; `all`: also closed ones, a page at a time. */
export type TaskIndex = {
  open: (ctx: QueryCtx, agent: WatchedAgent, limit: number) => Promise<Doc<"tasks">[]>;
  all: (
    ctx: QueryCtx,
    agent: WatchedAgent,
    page: PaginationOptions,
  ) => Promise<PaginationResult<Doc<"tasks">>>;
};

/** What only an app of our own may do: tables that are a team's have rules that only the team knows. */
export type OwnTables = {
  findAgent: (ctx: QueryCtx, agent: string) => Promise<Doc<"agents"> | null>;
  insertAgent: (ctx: MutationCtx, agent: string) => Promise<Id<"agents">>;
  addTask: (
    ctx: MutationCtx,
    task: { agent: string; title: string; status?: string },
    now: number,
  ) => Promise<string>;
  /** null when there is no such task */
  completeTask: (ctx: MutationCtx, taskId: string, now: number) => Promise<string | null>;
};

type Fleet = {
  /** the name by which the schedule knows the agent of a row; null for rows that are none of its agents */
  agentName: (agent: Doc<"agents">) => string | null;
  taskFacts: (task: Doc<"tasks">) => TaskFacts;
  OPEN_STATUSES: readonly string[];
  CLOSED_STATUSES: readonly string[];
  STALE_AFTER_MS: number;
  /** null: tasks are counted from the mirror */
  taskIndex?: TaskIndex | null;
  ownTables?: OwnTables | null;
};

export const fleet: Fleet = team;
