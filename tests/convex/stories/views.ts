/** What people look at: tasks and why each counts, the dashboard and its order. */
import { expect } from "vitest";
import type { AgentRow, TaskList } from "../../../convex/heartbeat/model/validators";
import { book, HINT } from "./book";
import { DAY, every, MINUTE } from "../world";

const { stories, story } = book();
export { stories };

story(
  "tasks are counted by the server where the sender did not, stale and unknown ones told apart",
  async (w) => {
    await w.register(HINT);
    const add = async (title: string, status?: string) =>
      (
        await w.ask<{ taskId: string }>("mutations/addTask", {
          agent: "hint",
          title,
          ...(status && { status }),
        })
      ).taskId;
    await w.ask("mutations/addTask", { agent: "hint", title: "look at the drift" }, { example: "a task" });
    const finished = await add("long done");
    await add("cancelled one", "cancelled");
    await add("of a team's own", "zzz-icebox");
    await w.ask("mutations/completeTask", { taskId: finished }, { example: "a task is done" });
    const week = w.now + 7 * DAY;
    const counts = await w.ask(
      "queries/getAgentTaskCounts",
      { agent: "hint", at: week },
      { as: "sender", example: "counted" },
    );
    expect(counts).toEqual({
      agent: "hint",
      openTasks: 2,
      staleTasks: 0,
      capped: false,
      unknownStatuses: ["zzz-icebox"],
      countedAt: week,
      staleAfterMs: 7 * DAY,
    });
    await w.pass(1);
    await add("young", "in_progress");
    const later = { agent: "hint", at: week + 1 };
    expect(await w.ask("queries/getAgentTaskCounts", later)).toMatchObject({ openTasks: 3, staleTasks: 2 });

    const uncounted = { openTasks: undefined, staleTasks: undefined };
    const sent = await w.send("hint", uncounted, { example: "counted by the server" });
    expect(sent).toMatchObject({ openTasks: 3, staleTasks: 0, countedBy: "server", countsCapped: false });
    expect(await w.row("hint")).toMatchObject({ openTasks: 3, countedAt: w.now });

    const { tasks } = await w.ask<TaskList>("queries/listAgentTasks", later, {
      as: "reader",
      example: "every task",
    });
    expect(Object.fromEntries(tasks.map(({ title, counted, why }) => [title, `${counted}: ${why}`]))).toEqual(
      {
        "long done": "no: done is a closed status",
        "cancelled one": "no: cancelled is a closed status",
        "look at the drift": "stale: inbox is an open status; untouched for more than 7 d",
        "of a team's own":
          'stale: "zzz-icebox" is a status that fleet.ts does not know, so it counts as open; untouched for more than 7 d',
        young: "open: in_progress is an open status",
      },
    );
    const page = await w.ask<TaskList>("queries/listAgentTasks", { ...later, limit: 2 });
    const rest = await w.ask<TaskList>("queries/listAgentTasks", { ...later, cursor: page.continueCursor });
    expect([...page.tasks, ...rest.tasks]).toEqual(tasks);
    expect(await w.refused("mutations/completeTask", { taskId: "junk" })).toMatchObject({ code: "invalid" });
    expect(await w.refused("mutations/addTask", { agent: "nobody", title: "x" })).toMatchObject({
      code: "unknown_agent",
    });
  },
);

story("the worst comes first, a page at a time", async (w) => {
  const names = [
    "new-one",
    "ok-one",
    "paused-one",
    "failing-one",
    "degraded-b",
    "degraded-a",
    "waiting-one",
    "blocked-one",
  ];
  await w.register(...names.map((agent) => ({ agent, schedule: every(DAY) })));
  await w.register(
    { agent: "degraded-a", schedule: every(10 * MINUTE) },
    { agent: "degraded-b", schedule: every(10 * MINUTE) },
  );
  await w.send("ok-one");
  await w.send("failing-one", { status: "crashed" });
  await w.send("waiting-one", { status: "awaiting input" });
  await w.send("blocked-one", { status: "Stuck" });
  await w.control("paused-one", "paused");
  await w.pass(30 * MINUTE);
  const order = [
    "degraded-a",
    "degraded-b",
    "failing-one",
    "blocked-one",
    "waiting-one",
    "new-one",
    "ok-one",
    "paused-one",
  ];
  const whole = await w.dashboard({ example: "a fleet, worst first" });
  expect(whole.agents.map((row) => row.agent)).toEqual(order);
  expect(whole.totals).toEqual({ agents: 8, new: 1, ok: 3, failing: 1, degraded: 2, paused: 1 });
  const seen: AgentRow[] = [];
  let cursor: string | null = null;
  do {
    const page: typeof whole = await w.ask(
      "queries/getAgentDashboard",
      { cursor, limit: 3 },
      { as: "reader" },
    );
    seen.push(...page.agents);
    cursor = page.isDone ? null : page.continueCursor;
  } while (cursor !== null);
  expect(seen).toEqual(whole.agents);
  for (const limit of [0, 1_001, 1.5]) {
    expect(await w.refused("queries/getAgentDashboard", { limit })).toMatchObject({
      code: "invalid",
      field: "limit",
    });
  }
  expect(await w.refused("queries/getAgentDashboard", { cursor: "junk" })).toMatchObject({ field: "cursor" });
});
