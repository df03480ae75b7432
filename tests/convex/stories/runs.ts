/** Runs: which are open, which overrun, how each ended, and what they answer. */
import { expect } from "vitest";
import type { AgentRuns } from "../../../convex/heartbeat/model/heartbeatValidators";
import { book } from "./book";
import { cron, DAY, every, HOUR, MINUTE, runId, SECOND } from "../world";

const { stories, story } = book();
export { stories };

const start = (nth: number) => ({ run: { runId: runId(nth), phase: "start" }, status: "working" });
const finish = (nth: number, exitCode = 0) => ({
  run: { runId: runId(nth), phase: "finish", exitCode },
  status: exitCode === 0 ? "ok" : "error",
});

/** Run ids by their number in the story. */
const numbers = ({ runs }: Pick<AgentRuns, "runs">) => runs.map((run) => parseInt(run.runId.slice(-4), 16));

story("runs that overlap are told apart, and the one that overruns is named", async (w) => {
  await w.register({ agent: "torv", schedule: every(10 * MINUTE), maxRunMs: 30 * MINUTE });
  const startedAt = w.now;
  await w.send("torv", { ...start(1), host: "torvalds" });
  await w.pass(10 * MINUTE);
  await w.send("torv", { ...start(2), host: "lovelace" });
  await w.pass(10 * MINUTE);
  await w.send("torv", start(3));
  const open = (nth: number, after: number) => ({
    runId: runId(nth),
    startedAt: startedAt + after,
    deadlineAt: startedAt + after + 30 * MINUTE,
  });
  const second = open(2, 10 * MINUTE);
  expect(await w.row("torv")).toMatchObject({
    runningSince: startedAt,
    openRuns: [open(1, 0), second, open(3, 20 * MINUTE)],
  });
  // the newest ends first
  await w.send("torv", finish(3));
  await w.pass(10 * MINUTE);
  expect(await w.row("torv")).toMatchObject({ health: "degraded", reason: "overrunning" });
  const { runs } = await w.runs("torv", {}, { example: "runs that overlap, one overrunning" });
  expect(runs).toMatchObject([
    { runId: runId(3), open: false, overrunning: false, finishedAt: w.now - 10 * MINUTE },
    { ...second, open: true, overrunning: false, status: "working", host: "lovelace" },
    { ...open(1, 0), open: true, overrunning: true, host: "torvalds" },
  ]);
  expect(runs[0]).not.toHaveProperty("deadlineAt");
  await w.send("torv", finish(1, 3));
  const row = await w.row("torv");
  expect(row).toMatchObject({ health: "failing", runningSince: second.startedAt, openRuns: [second] });
  expect(row.lastRun).toEqual({
    runId: runId(1),
    startedAt,
    finishedAt: w.now,
    durationMs: 30 * MINUTE,
    exitCode: 3,
    status: "error",
  });
});

story("a run whose finish never comes is open, then overrunning, then lost", async (w) => {
  await w.register({ agent: "torv", schedule: every(HOUR), maxRunMs: 90 * MINUTE });
  await w.send("torv", start(1));
  const run = async () => (await w.runs("torv")).runs.at(-1);
  expect(await run()).toMatchObject({ open: true, overrunning: false, deadlineAt: w.now + 90 * MINUTE });
  await w.pass(90 * MINUTE - 1);
  expect(await run()).toMatchObject({ open: true, overrunning: false });
  await w.pass(1);
  expect(await run()).toMatchObject({ open: true, overrunning: true });
  // paused, nobody is called for it
  await w.control("torv", "paused");
  expect(await run()).toMatchObject({ open: true, overrunning: false });
  await w.control("torv", "active");
  await w.pass(MINUTE);
  await w.send("torv", start(2));
  await w.send("torv", finish(2));
  const { runs } = await w.runs("torv", {}, { example: "a run that nobody ended" });
  expect(runs.map(({ runId: id, open, finishedAt }) => [id, open, finishedAt])).toEqual([
    [runId(2), false, w.now],
    [runId(1), false, undefined],
  ]);
  // and if it comes at last, it has ended
  await w.send("torv", finish(1, 1));
  expect(await run()).toMatchObject({ open: false, finishedAt: w.now, exitCode: 1, durationMs: 91 * MINUTE });
});

story("start and finish are one run, whichever comes first and on whichever page", async (w) => {
  await w.register({ agent: "torv", schedule: every(HOUR) });
  const startedAt = w.now;
  const output = "2 files drifted\n";
  const ended = {
    run: {
      ...finish(1).run,
      startedAt,
      finishedAt: w.now + 4 * MINUTE,
      durationMs: 239_500,
      output,
      outputCut: true,
    },
    summary: "scanned",
    result: "acted",
    host: "torvalds",
  };
  await w.send("torv", { run: { ...start(1).run, startedAt }, status: "working" });
  await w.send("torv"); // a plain one is no run
  for (let nth = 2; nth <= 4; nth++) {
    await w.pass(MINUTE);
    await w.send("torv", start(nth));
  }
  w.later(MINUTE);
  await w.send("torv", ended, { example: "a run finishes after others began" });
  const whole = await w.runs("torv", {}, { example: "runs, the one that began last first" });
  expect(numbers(whole)).toEqual([4, 3, 2, 1]);
  expect(whole.runs[3]).toEqual({
    runId: runId(1),
    startedAt,
    finishedAt: w.now,
    durationMs: 239_500,
    exitCode: 0,
    status: "ok",
    result: "acted",
    summary: "scanned",
    output,
    outputCut: true,
    open: false,
    overrunning: false,
    host: "torvalds",
  });
  const first = await w.runs("torv", { limit: 3 });
  const rest = await w.runs("torv", { limit: 3, cursor: first.continueCursor });
  expect([...first.runs, ...rest.runs]).toEqual(whole.runs);
  expect([first.isDone, rest.isDone]).toEqual([false, true]);

  // a finish that is heard first: its run began when it says, or is listed by its end; its start then joins it
  w.later(10 * MINUTE);
  await w.send("torv", { ...finish(5, 2), age: 5 * MINUTE });
  await w.send("torv", { ...finish(6), run: { ...finish(6).run, durationMs: 2 * MINUTE } });
  expect(numbers(await w.runs("torv", { limit: 2 }))).toEqual([6, 5]);
  const [six, five] = (await w.runs("torv", { limit: 2 })).runs;
  expect(six).toMatchObject({ startedAt: w.now - 2 * MINUTE, finishedAt: w.now, durationMs: 2 * MINUTE });
  expect(five).toMatchObject({ finishedAt: w.now - 5 * MINUTE, exitCode: 2, deliveredLateMs: 5 * MINUTE });
  expect(five).not.toHaveProperty("startedAt");
  expect(five).not.toHaveProperty("durationMs");
  await w.send("torv", { ...start(5), age: 9 * MINUTE });
  await w.send("torv", { ...start(6), age: 2 * MINUTE });
  const joined = await w.runs("torv", {}, { example: "starts that came after their finishes" });
  expect(numbers(joined)).toEqual([6, 5, 4, 3, 2, 1]);
  expect(joined.runs[1]).toMatchObject({
    startedAt: w.now - 9 * MINUTE,
    durationMs: 4 * MINUTE,
    open: false,
  });
  // told twice under another heartbeat id: one run all the same
  await w.send("torv", start(6));
  await w.send("torv", finish(6, 1));
  expect((await w.runs("torv")).runs.slice(0, 2)).toMatchObject([
    { ...six, exitCode: 0 },
    { runId: runId(5) },
  ]);
  expect(await w.runs("torv")).toMatchObject({ runs: { length: 6 }, isDone: true });

  for (const limit of [0, 101, 1.5]) {
    const data = await w.refused("queries/getAgentRuns", { agent: "torv", limit });
    expect(data).toMatchObject({ code: "invalid", field: "limit" });
  }
  expect(await w.refused("queries/getAgentRuns", { agent: "torv", cursor: "junk" })).toMatchObject({
    field: "cursor",
  });
  expect(await w.refused("queries/getAgentRuns", { agent: "nobody" })).toMatchObject({
    code: "unknown_agent",
  });
});

story(
  "after a run longer than its gap the silence begins with the next fire, whatever it left unanswered",
  async (w) => {
    await w.register({ agent: "torv", schedule: cron("0 * * * *"), maxRunMs: DAY, graceMs: 5 * MINUTE });
    const eight = w.now;
    await w.send("torv", start(1));
    expect(await w.row("torv")).toMatchObject({ dueAt: eight + HOUR, firstMissAt: eight + HOUR });
    await w.pass(2.5 * HOUR);
    await w.send("torv", finish(1));
    const row = await w.row("torv");
    expect(row).toMatchObject({ dueAt: eight + HOUR, firstMissAt: eight + 3 * HOUR });
    // two instants of silence, from there on
    expect(row.degradeAt).toBe(eight + 4 * HOUR + 5 * MINUTE);
    await w.control("torv", "paused");
    expect(await w.row("torv")).not.toHaveProperty("firstMissAt");
  },
);

story(
  "a finish that says how long its run took answers from its start, also when that is heard later",
  async (w) => {
    await w.register({ agent: "torv", schedule: cron("0 * * * *"), maxRunMs: DAY });
    w.later(HOUR - MINUTE);
    // at 8:59 it would answer nine o'clock, and its run began at ten past eight
    const run = { ...finish(1).run, durationMs: 49 * MINUTE };
    const dueAt = w.now + MINUTE;
    expect(await w.send("torv", { run })).toMatchObject({ dueAt });
    expect(await w.send("torv", { ...start(1), age: 49 * MINUTE - SECOND })).toMatchObject({ dueAt });
    // one that does not say answers by its own instant
    expect(await w.send("torv", finish(2))).toMatchObject({ dueAt: dueAt + HOUR });
  },
);
