/** The `agents` and `tasks` tables of this app, as the heartbeat functions see them. This file is ours to edit. */
import type { Doc } from "./_generated/dataModel";
import type { TaskFacts, TaskIndex } from "./heartbeat/fleet";

/** The name by which cron-schedule.md knows the agent of a row; null for rows that are none of its agents. */
export function agentName(agent: Doc<"agents">): string | null {
  return agent.kind === "bot" ? agent.handle.toLowerCase() : null;
}

/** What counting needs to know of a task. */
export function taskFacts(task: Doc<"tasks">): TaskFacts {
  return {
    title: task.title,
    status: task.state,
    assignees: task.assignees,
    touchedAt: task.lastActivityAt,
  };
}

export const OPEN_STATUSES = ["idea", "doing", "review"];
export const CLOSED_STATUSES = ["shipped", "dropped"];

/** An open task that nobody has touched for this long (ms) is stale. */
export const STALE_AFTER_MS = 7 * 24 * 60 * 60_000;

/** No index finds the tasks of one agent among several assignees: they are counted from the mirror. */
export const taskIndex: TaskIndex | null = null;
