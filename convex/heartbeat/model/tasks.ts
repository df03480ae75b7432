/** Counting an agent's tasks, and saying of each whether it counted and why. What a task is stands in fleet.ts. */
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import {
  CLOSED_STATUSES,
  OPEN_STATUSES,
  ownTasks,
  pageTasks,
  readOpenTasks,
  STALE_AFTER_MS,
  type TaskFacts,
} from "../../fleet";
import { requireRow } from "./agents";
import { agentName, filledText, instant, quote, spoken, TEXT_LIMITS } from "./checks";
import { paged, pageSize } from "./pages";
import { invalid } from "./refusal";
import type { ListedTask, TaskList } from "./validators";

/** Tasks counted per agent: what one heartbeat may cost. Past it the answer says `capped`. */
const MAX_COUNTED = 1_000;

/** Tasks in one answer, by default and at most. */
const TASK_PAGE = { default: 50, max: 200 };

/** Unknown words named in one answer; they are a list to mend fleet.ts by, not data. */
const MAX_UNKNOWN_STATUSES = 20;

/** `capped`: there are more, not counted; `unknownStatuses`: words among the counted that fleet.ts does not list. */
type Counts = { openTasks: number; staleTasks: number; capped: boolean; unknownStatuses: string[] };

/** Open tasks (stale ones included) and stale ones of an agent, seen from the instant `at`. */
async function countTasks(ctx: QueryCtx, agent: string, at: number): Promise<Counts> {
  // one more than is counted tells whether there are more
  const tasks = await readOpenTasks(ctx, agent, MAX_COUNTED + 1);
  const counted = tasks.slice(0, MAX_COUNTED);
  const unknown = new Set(
    counted.map((task) => task.status).filter((status) => !OPEN_STATUSES.includes(status)),
  );
  return {
    openTasks: counted.length,
    staleTasks: counted.filter((task) => isStale(task, at)).length,
    capped: tasks.length > MAX_COUNTED,
    unknownStatuses: [...unknown].slice(0, MAX_UNKNOWN_STATUSES),
  };
}

/** Counts tasks as of `at`, those of one agent once however often it is asked: for one transaction, in which they do not change. */
export function taskCounter(ctx: QueryCtx, at: number): (agent: string) => Promise<Counts> {
  const counted = new Map<string, Promise<Counts>>();
  return (agent) => {
    const counts = counted.get(agent) ?? countTasks(ctx, agent, at);
    counted.set(agent, counts);
    return counts;
  };
}

function isStale(task: TaskFacts, at: number): boolean {
  return at - task.touchedAt > STALE_AFTER_MS;
}

/** The counts of a registered agent, with what they were measured from. */
export async function agentTaskCounts(ctx: QueryCtx, request: { agent: string; at: number }) {
  const at = instant(request.at, "at");
  const { agent } = await requireRow(ctx, request.agent);
  const counts = await countTasks(ctx, agent, at);
  return { agent, ...counts, countedAt: at, staleAfterMs: STALE_AFTER_MS };
}

/** Each task of an agent, closed ones too. */
export async function listTasks(
  ctx: QueryCtx,
  request: { agent: string; at: number; cursor?: string | null; limit?: number },
): Promise<TaskList> {
  const at = instant(request.at, "at");
  const { agent } = await requireRow(ctx, request.agent);
  const { page, isDone, continueCursor } = await paged(pageSize(request, TASK_PAGE), (options) =>
    pageTasks(ctx, agent, options),
  );
  return { tasks: page.map((task) => explain(task, at)), isDone, continueCursor };
}

function explain(task: TaskFacts, at: number): ListedTask {
  const { taskId, title, status, updatedAt } = task;
  const listed = { taskId, title, status, updatedAt };
  if (CLOSED_STATUSES.includes(status))
    return { ...listed, counted: "no", why: `${status} is a closed status` };
  const word = OPEN_STATUSES.includes(status)
    ? `${status} is an open status`
    : `${quote(status)} is a status that fleet.ts does not know, so it counts as open`;
  if (isStale(task, at)) {
    return { ...listed, counted: "stale", why: `${word}; untouched for more than ${spoken(STALE_AFTER_MS)}` };
  }
  return { ...listed, counted: "open", why: word };
}

/** Add a task of a registered agent. Refused `invalid` where the table is the team's own. */
export async function addTask(ctx: MutationCtx, request: { agent: string; title: string; status?: string }) {
  const tasks = requireOwnTasks();
  const task: { agent: string; title: string; status?: string } = {
    agent: agentName(request.agent),
    title: filledText(request.title, "title", TEXT_LIMITS.taskTitle),
  };
  if (request.status !== undefined) task.status = filledText(request.status, "status", TEXT_LIMITS.status);
  await requireRow(ctx, task.agent);
  return { taskId: await tasks.add(ctx, task, Date.now()) };
}

/** Mark a task done; doing it again changes no more than when it was touched. Refused `invalid` where the table is the team's own. */
export async function completeTask(ctx: MutationCtx, request: { taskId: string }) {
  const taskId = await requireOwnTasks().complete(ctx, request.taskId, Date.now());
  if (taskId === null) throw invalid("taskId", `there is no task ${quote(request.taskId)}`);
  return { taskId };
}

function requireOwnTasks() {
  if (ownTasks === null)
    throw invalid(
      "request",
      "the tasks table of this deployment is the team's own; add and finish tasks there",
    );
  return ownTasks;
}
