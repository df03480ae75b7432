/** Counting an agent's tasks, and saying of each whether it counted and why. What a task is stands in fleet.ts. */
import type { PaginationResult } from "convex/server";
import type { Doc } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { fleet } from "../fleet";
import { requireRow, type Row } from "./agents";
import { agentName, filledText, instant, quote, spoken, TEXT_LIMITS } from "./checks";
import { allTasks, isClosed, openTasks } from "./mirror";
import { paged, pageSize } from "./pages";
import { reconciledAt } from "./reconcile";
import { invalid } from "./refusal";
import type { ListedTask, TaskList } from "./validators";

/** Tasks counted per agent: what one heartbeat may cost. Past it the answer says `capped`. */
const MAX_COUNTED = 1_000;

/** Tasks in one answer, by default and at most. */
const TASK_PAGE = { default: 50, max: 200 };

/** Unknown words named in one answer; they are a list to mend fleet.ts by, not data. */
const MAX_UNKNOWN_STATUSES = 20;

/** A task, of the team's table or mirrored. */
type Task = {
  taskId: string;
  title: string;
  status: string;
  touchedAt: number;
  updatedAt?: number | undefined;
};

/**
 * `capped`: there are more, not counted; `unknownStatuses`: words among the counted that fleet.ts does not list. `countedAt`: the counts are as
 * of then at least; `mirrored` ones as of the last whole reconcile, and of no known instant before the first.
 */
type Counts = {
  openTasks: number;
  staleTasks: number;
  capped: boolean;
  unknownStatuses: string[];
  mirrored?: true;
  countedAt?: number;
};

/** A watched agent, as far as its tasks are concerned. */
type Assignee = Pick<Row, "agent" | "agentRow">;

function taskOf(task: Doc<"tasks">): Task {
  const { title, status, touchedAt, updatedAt } = fleet.taskFacts(task);
  return { taskId: task._id, title, status, touchedAt, updatedAt };
}

async function readOpen(
  ctx: QueryCtx,
  { agent: name, agentRow: row }: Assignee,
  limit: number,
): Promise<Task[]> {
  if (!fleet.taskIndex) return await openTasks(ctx, { name, row }, limit);
  const tasks = await fleet.taskIndex.open(ctx, { name, row }, limit);
  return tasks.map(taskOf).filter(({ status }) => !isClosed(status));
}

/** Open tasks (stale ones included) and stale ones of an agent, seen from the instant `at`. */
async function countTasks(ctx: QueryCtx, agent: Assignee, at: number): Promise<Counts> {
  // one more than is counted tells whether there are more
  const tasks = await readOpen(ctx, agent, MAX_COUNTED + 1);
  const counted = tasks.slice(0, MAX_COUNTED);
  const unknown = new Set(counted.map((task) => task.status).filter((status) => !isOpen(status)));
  const counts: Counts = {
    openTasks: counted.length,
    staleTasks: counted.filter((task) => isStale(task, at)).length,
    capped: tasks.length > MAX_COUNTED,
    unknownStatuses: [...unknown].slice(0, MAX_UNKNOWN_STATUSES),
  };
  if (fleet.taskIndex) return { ...counts, countedAt: at };
  const countedAt = await reconciledAt(ctx);
  return { ...counts, mirrored: true, ...(countedAt === undefined ? {} : { countedAt }) };
}

/**
 * Counts tasks as of `at`, those of one agent once however often it is asked: for one transaction, in which they do not change.
 *
 * Null, and a line in the deployment's log, where they cannot be counted: fleet.ts is the team's, and what it throws must not stop a heartbeat.
 */
export function taskCounter(ctx: QueryCtx, at: number): (agent: Assignee) => Promise<Counts | null> {
  const counted = new Map<string, Promise<Counts | null>>();
  return (agent) => {
    const counts = counted.get(agent.agent) ?? countTasks(ctx, agent, at).catch(uncounted(agent));
    counted.set(agent.agent, counts);
    return counts;
  };
}

function uncounted({ agent }: Assignee) {
  return (error: unknown): null => {
    console.error(`the open tasks of ${agent} cannot be counted by fleet.ts: ${String(error)}`);
    return null;
  };
}

/** fleet.ts lists the word as one of a task that is still to be done. */
function isOpen(status: string): boolean {
  return fleet.OPEN_STATUSES.includes(status);
}

function isStale(task: Task, at: number): boolean {
  return at - task.touchedAt > fleet.STALE_AFTER_MS;
}

/** The counts of a registered agent, with what they were measured from. */
export async function agentTaskCounts(ctx: QueryCtx, request: { agent: string; at: number }) {
  const at = instant(request.at, "at");
  const row = await requireRow(ctx, request.agent);
  return { agent: row.agent, ...(await countTasks(ctx, row, at)), staleAfterMs: fleet.STALE_AFTER_MS };
}

/** Each task of an agent, closed ones too. */
export async function listTasks(
  ctx: QueryCtx,
  request: { agent: string; at: number; cursor?: string | null; limit?: number },
): Promise<TaskList> {
  const at = instant(request.at, "at");
  const { agent: name, agentRow: row } = await requireRow(ctx, request.agent);
  const { taskIndex } = fleet;
  const { page, isDone, continueCursor } = await paged(
    pageSize(request, TASK_PAGE),
    async (options): Promise<PaginationResult<Task>> => {
      if (!taskIndex) return await allTasks(ctx, { name, row }, options);
      const found = await taskIndex.all(ctx, { name, row }, options);
      return { ...found, page: found.page.map(taskOf) };
    },
  );
  return { tasks: page.map((task) => explain(task, at)), isDone, continueCursor };
}

function explain(task: Task, at: number): ListedTask {
  const { taskId, title, status, touchedAt, updatedAt } = task;
  const listed = { taskId, title, status, touchedAt, updatedAt };
  if (isClosed(status)) return { ...listed, counted: "no", why: `${status} is a closed status` };
  const word = isOpen(status)
    ? `${status} is an open status`
    : `${quote(status)} is a status that fleet.ts does not know, so it counts as open`;
  if (isStale(task, at)) {
    return {
      ...listed,
      counted: "stale",
      why: `${word}; untouched for more than ${spoken(fleet.STALE_AFTER_MS)}`,
    };
  }
  return { ...listed, counted: "open", why: word };
}

/** Add a task of a registered agent. Refused `invalid` where the table is the team's own. */
export async function addTask(ctx: MutationCtx, request: { agent: string; title: string; status?: string }) {
  const tasks = requireOwnTables();
  const task: { agent: string; title: string; status?: string } = {
    agent: agentName(request.agent),
    title: filledText(request.title, "title", TEXT_LIMITS.taskTitle),
  };
  if (request.status !== undefined) task.status = filledText(request.status, "status", TEXT_LIMITS.status);
  await requireRow(ctx, task.agent);
  return { taskId: await tasks.addTask(ctx, task, Date.now()) };
}

/** Mark a task done; doing it again changes no more than when it was touched. Refused `invalid` where the table is the team's own. */
export async function completeTask(ctx: MutationCtx, request: { taskId: string }) {
  const taskId = await requireOwnTables().completeTask(ctx, request.taskId, Date.now());
  if (taskId === null) throw invalid("taskId", `there is no task ${quote(request.taskId)}`);
  return { taskId };
}

function requireOwnTables() {
  if (!fleet.ownTables)
    throw invalid(
      "request",
      "the tasks table of this deployment is the team's own; add and finish tasks there",
    );
  return fleet.ownTables;
}
