/** What a heartbeat records and shows: the report itself, replays, clocks, errors, runs, hosts. */
import { expect } from "vitest";
import type { Recorded } from "../../../convex/heartbeat/model/heartbeatValidators";
import { book, HINT, HINT_GRACE } from "./book";
import { DAY, every, HOUR, MINUTE, runId, SECOND } from "../world";

const { stories, story } = book();
export { stories };

story("an agent is new until it reports, and then what it said is shown", async (w) => {
  expect(await w.apply([HINT], {}, { example: "a new agent is added" })).toEqual({
    outcome: "applied",
    changes: [{ agent: "hint", change: "added", fields: [], linked: true, firstDueAt: w.now + 6 * HOUR }],
    unlisted: [],
  });
  expect(await w.row("hint")).toMatchObject({
    health: "new",
    purpose: "Drift detection scan",
    graceMs: HINT_GRACE,
  });

  await w.pass(5 * MINUTE);
  const said = { status: "busy", summary: "3 files drifted", result: "acted", openTasks: 12, staleTasks: 3 };
  const sent = await w.send(
    "hint",
    { ...said, host: "torvalds", clientVersion: "0.1.0" },
    { example: "recorded" },
  );
  expect(sent).toEqual({
    outcome: "recorded",
    agent: "hint",
    health: "ok",
    healthBefore: "new",
    degraded: false,
    reason: "first report",
    control: "active",
    dueAt: w.now + 6 * HOUR,
    degradeAt: w.now + 12 * HOUR + HINT_GRACE,
    livenessAt: w.now,
    receivedAt: w.now,
    skewMs: 0,
    openTasks: 12,
    staleTasks: 3,
    countsCapped: false,
    countedBy: "sender",
    linked: true,
  });
  const { agents, totals } = await w.dashboard({ example: "one agent that is ok" });
  expect(totals).toEqual({ agents: 1, new: 0, ok: 1, failing: 0, degraded: 0, paused: 0 });
  expect(agents[0]).toMatchObject({
    agent: "hint",
    scheduleText: "every 6 h",
    health: "ok",
    status: "working",
    rawStatus: "busy",
    statusSince: w.now,
    summary: "3 files drifted",
    result: "acted",
    lastActedAt: w.now,
    runsSinceActed: 0,
    lastHeartbeatAt: w.now,
    openTasks: 12,
    staleTasks: 3,
    hosts: [{ host: "torvalds", at: w.now }],
    clientVersion: "0.1.0",
  });
});

story("the same heartbeat sent again is a duplicate and writes nothing", async (w) => {
  await w.register(HINT, { agent: "rams", schedule: every(HOUR) });
  const heartbeat = w.heartbeat("hint", { summary: "once" });
  const first = await w.ask<Recorded>("mutations/recordHeartbeat", heartbeat, { as: "sender" });
  const before = await w.row("hint");
  await w.pass(MINUTE);
  const again = { ...heartbeat, deliveredAt: w.now, summary: "twice" };
  const second = await w.ask<Recorded>("mutations/recordHeartbeat", again, {
    as: "sender",
    example: "duplicate",
  });
  const { healthBefore, ...unchanged } = first;
  expect(healthBefore).toBe("new");
  expect(second).toEqual({ ...unchanged, outcome: "duplicate" });
  expect(await w.row("hint")).toEqual(before);
  expect((await w.history("hint")).heartbeats.map((one) => one.summary)).toEqual(["once"]);

  const other = { ...heartbeat, agent: "rams" };
  expect(
    await w.refused("mutations/recordHeartbeat", other, { as: "sender", example: "id of another agent" }),
  ).toMatchObject({ code: "conflict" });
});

story("a heartbeat that is older than what is known goes to history only", async (w) => {
  await w.register(HINT);
  w.later(HOUR);
  await w.send("hint", { summary: "new", status: "idle" });
  const before = await w.row("hint");
  await w.send("hint", { summary: "old", status: "error", error: "disk full", age: 20 * MINUTE });
  const error = { message: "disk full", at: w.now - 20 * MINUTE };
  expect(await w.row("hint")).toEqual({
    ...before,
    lastError: error,
    runsSinceActed: before.runsSinceActed + 1,
  });
  const { heartbeats } = await w.history("hint", { limit: 2 }, { example: "two heartbeats" });
  expect(heartbeats.map((one) => one.summary)).toEqual(["new", "old"]);
  // a minute under way is not late yet
  await w.pass(2 * MINUTE);
  await w.send("hint", { age: MINUTE });
  await w.send("hint", { age: MINUTE - 1 });
  expect((await w.history("hint", { limit: 2 })).heartbeats.map((one) => one.deliveredLateMs)).toEqual([
    undefined,
    undefined,
  ]);
  await w.send("hint", { age: MINUTE + 1 });
  expect((await w.history("hint", { limit: 3 })).heartbeats[2]).toMatchObject({
    deliveredLateMs: MINUTE + 1,
  });
});

story("neither a slow nor a fast clock of a host matters, and the skew is told", async (w) => {
  await w.register(HINT);
  for (const ahead of [-3 * DAY, 40 * 365 * DAY]) {
    await w.pass(MINUTE);
    const sent = await w.send(
      "hint",
      { ahead, age: 2 * SECOND },
      { example: `a clock ${ahead / DAY} days ahead` },
    );
    expect(sent).toMatchObject({ livenessAt: w.now - 2 * SECOND, skewMs: -ahead, health: "ok" });
  }
  // a clock that was set back between writing and sending: no age is better than a wrong one
  await w.pass(MINUTE);
  expect(await w.send("hint", { age: -HOUR })).toMatchObject({ livenessAt: w.now });
  // one that was unset at boot, 1970, and set before sending: too old for life, recorded all the same
  const unset = { ...w.heartbeat("hint"), sentAt: 10 * SECOND };
  expect(await w.ask("mutations/recordHeartbeat", unset)).toMatchObject({ outcome: "recorded" });
  // one that broke between writing and sending: older than anything
  const broken = { ...w.heartbeat("hint"), deliveredAt: 2e14 };
  expect(await w.ask("mutations/recordHeartbeat", broken)).toMatchObject({
    livenessAt: 0,
    skewMs: w.now - 2e14,
  });
  expect(await w.row("hint")).toMatchObject({ lastHeartbeatAt: w.now, health: "ok" });
});

story(
  "an error makes an agent failing until it reports without one; the last error stays with its time",
  async (w) => {
    await w.register(HINT);
    const said = { status: "error", error: "git: not a repository", summary: "could not scan" };
    expect(await w.send("hint", said, { example: "failing" })).toMatchObject({
      health: "failing",
      degraded: false,
    });
    const failedAt = w.now;
    expect(await w.row("hint")).toMatchObject({
      reason: "reported error",
      lastError: { message: "git: not a repository", at: failedAt },
    });
    w.later(HOUR);
    expect(await w.send("hint", { status: "ok", result: "error" })).toMatchObject({ health: "failing" });
    w.later(HOUR);
    expect(await w.send("hint")).toMatchObject({ health: "ok", reason: "recovered" });
    expect((await w.row("hint")).lastError).toMatchObject({ at: failedAt + HOUR });
  },
);

story(
  "a start answers and changes no health; while the run is open only its own deadline counts",
  async (w) => {
    await w.register({
      agent: "torv",
      schedule: every(10 * MINUTE),
      graceMs: 5 * MINUTE,
      maxRunMs: 40 * MINUTE,
    });
    await w.send("torv");
    await w.pass(10 * MINUTE);
    const start = { runId: runId(1), phase: "start", startedAt: w.now };
    const startedAt = w.now;
    expect(
      await w.send("torv", { status: "working", run: start }, { example: "a run starts" }),
    ).toMatchObject({
      health: "ok",
      dueAt: w.now + 10 * MINUTE,
      degradeAt: w.now + 40 * MINUTE,
    });
    expect(await w.row("torv")).toMatchObject({ runningSince: startedAt, status: "working" });
    await w.pass(40 * MINUTE - 1);
    expect(await w.row("torv")).toMatchObject({ health: "ok" });
    await w.pass(1);
    expect(await w.row("torv")).toMatchObject({ health: "degraded", reason: "overrunning" });

    await w.pass(5 * MINUTE);
    const finish = { ...start, phase: "finish", finishedAt: w.now, durationMs: 45 * MINUTE, exitCode: 0 };
    const ended = { ...finish, output: "last lines of output\n", outputCut: true };
    expect(
      await w.send("torv", { run: ended, summary: "reviewed" }, { example: "a run finishes" }),
    ).toMatchObject({
      health: "ok",
      // it answers what its start answered, nothing later
      dueAt: startedAt + 10 * MINUTE,
    });
    const row = await w.row("torv");
    expect(row).not.toHaveProperty("runningSince");
    const { runId: id, exitCode, durationMs } = finish;
    expect(row.lastRun).toEqual({
      ...{ runId: id, startedAt, finishedAt: w.now, durationMs, exitCode },
      status: "ok",
    });
    expect((await w.history("torv", { limit: 1 })).heartbeats[0]?.run).toEqual(ended);
  },
);

story("a start that arrives after its finish only fills in when the run started", async (w) => {
  await w.register({ agent: "torv", schedule: every(HOUR) });
  await w.pass(10 * MINUTE);
  const finish = { runId: runId(2), phase: "finish", finishedAt: w.now, exitCode: 3 };
  await w.send("torv", { run: finish, status: "error" });
  const start = { runId: runId(2), phase: "start" };
  expect(await w.send("torv", { run: start, age: 4 * MINUTE, status: "working" })).toMatchObject({
    health: "failing",
  });
  const row = await w.row("torv");
  expect(row).toMatchObject({ status: "error", lastRun: { startedAt: w.now - 4 * MINUTE, exitCode: 3 } });
  expect(row).not.toHaveProperty("runningSince");
  // even when another run has finished meanwhile
  await w.send("torv", { run: { runId: runId(3), phase: "finish" }, age: MINUTE });
  await w.send("torv", { run: { runId: runId(4), phase: "finish" } });
  await w.send("torv", { run: { runId: runId(3), phase: "start" }, age: 2 * MINUTE });
  expect(await w.row("torv")).not.toHaveProperty("runningSince");
});

story("on time and nothing done: reports are counted since the agent last acted", async (w) => {
  await w.register({ ...HINT, actWithinMs: DAY });
  await w.send("hint", { result: "acted" });
  const actedAt = w.now;
  for (let nth = 0; nth < 3; nth++) {
    w.later(HOUR);
    await w.send("hint", { result: "noop" });
  }
  expect(await w.row("hint")).toMatchObject({
    lastActedAt: actedAt,
    runsSinceActed: 3,
    actWithinMs: DAY,
    result: "noop",
  });
  await w.send("hint", { run: { runId: runId(30), phase: "start" } });
  expect(await w.row("hint")).toMatchObject({ runsSinceActed: 3, result: "noop" });
  // one that comes late has acted when it was sent; the reports since then are not counted back
  await w.send("hint", { result: "acted", age: 2.5 * HOUR });
  expect(await w.row("hint")).toMatchObject({
    lastActedAt: actedAt + 0.5 * HOUR,
    runsSinceActed: 3,
    result: "noop",
  });
  await w.send("hint", { result: "acted", age: 4 * HOUR });
  expect(await w.row("hint")).toMatchObject({ lastActedAt: actedAt + 0.5 * HOUR, runsSinceActed: 3 });
  w.later(HOUR);
  await w.send("hint", { result: "acted", run: { runId: runId(30), phase: "finish" } });
  expect(await w.row("hint")).toMatchObject({ lastActedAt: w.now, runsSinceActed: 0 });
});

story("an old replay leaves the counts and hosts of the newest heartbeat alone", async (w) => {
  await w.register(HINT);
  w.later(8 * HOUR);
  await w.ask("mutations/addTask", { agent: "hint", title: "look at the drift" });
  await w.send("hint", { openTasks: 5, staleTasks: 2 });
  const before = await w.row("hint");
  w.later(MINUTE);
  const uncounted = { openTasks: undefined, staleTasks: undefined };
  const sent = await w.send("hint", { age: 7 * HOUR, host: "lovelace", ...uncounted });
  expect(sent).toMatchObject({ openTasks: 1, countedBy: "server" });
  const { runsSinceActed, ...shown } = await w.row("hint");
  expect({ ...shown, runsSinceActed: runsSinceActed - 1 }).toEqual(before);
  // from within the same six hours it is a second host of the agent, however late it tells
  await w.send("hint", { age: 5 * HOUR, host: "lovelace", ...uncounted });
  expect(await w.row("hint")).toMatchObject({
    openTasks: 5,
    hosts: [{ host: "lovelace", at: w.now - 5 * HOUR }],
  });
});

story("two hosts that report for one agent within one expected instant are both shown", async (w) => {
  await w.register(HINT);
  await w.send("hint", { host: "torvalds" });
  w.later(2 * HOUR);
  await w.send("hint", { host: "lovelace" });
  const both = [
    { host: "lovelace", at: w.now },
    { host: "torvalds", at: w.now - 2 * HOUR },
  ];
  expect((await w.row("hint")).hosts).toEqual(both);
  w.later(6 * HOUR);
  await w.send("hint", { host: "torvalds" });
  expect((await w.row("hint")).hosts).toEqual([{ host: "torvalds", at: w.now }]);
  // whoever reported for the next instant did not say where it runs
  w.later(6 * HOUR);
  await w.send("hint");
  expect((await w.row("hint")).hosts).toEqual([]);
});
