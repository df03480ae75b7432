/**
 * What the functions promise, told as a client of them would live it. Each story runs on every engine (see engines.ts), in a deployment of
 * its own; steps with an `example` are kept in tests/contract as they went on convex-test.
 */
import { expect } from "vitest";
import type { AgentRow, Applied, Recorded, TaskList } from "../../convex/model/validators";
import { cron, DAY, every, HOUR, hashOf, MINUTE, runId, SECOND, TOKENS, type World } from "./world";

export type Story = { title: string; run: (w: World) => Promise<void> };

export const stories: Story[] = [];

function story(title: string, run: Story["run"]): void {
  stories.push({ title, run });
}

const HINT = { agent: "hint", schedule: every(6 * HOUR), purpose: "Drift detection scan" };
/** a tenth of six hours */
const HINT_GRACE = 36 * MINUTE;

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

story("silence: ok until the second missed instant and its grace, degraded from then on", async (w) => {
  await w.register({ agent: "hint", schedule: every(HOUR) });
  const grace = 6 * MINUTE;
  await w.send("hint");
  await w.pass(2 * HOUR + grace - 1);
  expect(await w.row("hint")).toMatchObject({ health: "ok", degraded: false });
  await w.pass(1);
  expect(await w.row("hint")).toMatchObject({
    health: "degraded",
    degraded: true,
    reason: "2 expected runs missed",
    healthSince: w.now,
    dueAt: w.now - grace - HOUR,
  });
  await w.dashboard({ example: "one agent that is degraded" });
  await w.pass(HOUR);
  expect(await w.send("hint", { summary: "back" })).toMatchObject({ health: "ok", reason: "reported again" });
  const { flips } = await w.detail("hint", { example: "an agent that was degraded" });
  expect(flips).toEqual([
    { from: "degraded", to: "ok", reason: "reported again", becameAt: w.now, noticedAt: w.now },
    {
      from: "ok",
      to: "degraded",
      reason: "2 expected runs missed",
      becameAt: w.now - HOUR,
      noticedAt: w.now - HOUR,
    },
    expect.objectContaining({ from: "new", to: "ok", reason: "first report" }),
  ]);
});

story("an agent that never reports is degraded by the same rule", async (w) => {
  const agent = "never-heard";
  await w.register({ agent, schedule: every(HOUR), misses: 1, graceMs: 10 * MINUTE });
  await w.pass(70 * MINUTE - 1);
  expect(await w.row(agent)).toMatchObject({ health: "new" });
  await w.pass(1);
  expect(await w.row(agent)).toMatchObject({ health: "degraded", reason: "never reported" });
  expect(await w.row(agent)).not.toHaveProperty("lastHeartbeatAt");
});

story("a replay cannot fake life, and explains the flip it comes too late for", async (w) => {
  await w.register({ agent: "hint", schedule: every(10 * MINUTE), graceMs: 5 * MINUTE });
  await w.send("hint");
  await w.pass(100 * MINUTE);
  expect(await w.row("hint")).toMatchObject({ health: "degraded" });

  // kept on the host for eighty minutes: it answers what it can, and that is not enough
  const sent = await w.send(
    "hint",
    { age: 80 * MINUTE, summary: "from the outage" },
    { example: "replayed" },
  );
  expect(sent).toMatchObject({ health: "degraded", livenessAt: w.now - 80 * MINUTE, receivedAt: w.now });
  expect(await w.row("hint")).toMatchObject({
    lastHeartbeatAt: w.now - 80 * MINUTE,
    summary: "from the outage",
  });
  const { flips } = await w.detail("hint");
  expect(flips[0]).toMatchObject({
    to: "degraded",
    explainedBy: { heartbeatId: expect.any(String) as string, deliveredLateMs: 80 * MINUTE },
  });
  const { heartbeats } = await w.history("hint", { limit: 1 });
  expect(heartbeats[0]).toMatchObject({ summary: "from the outage", deliveredLateMs: 80 * MINUTE });

  // the next one is from within its ten minutes
  expect(await w.send("hint", { age: 5 * MINUTE })).toMatchObject({ health: "ok" });
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
    expect(row.lastRun).toEqual({ runId: id, startedAt, finishedAt: w.now, durationMs, exitCode });
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

story("pause freezes health and deadlines, resume counts silence anew", async (w) => {
  await w.register({ agent: "hint", schedule: every(10 * MINUTE), graceMs: 5 * MINUTE });
  await w.send("hint", { status: "error" });
  const paused = await w.control("hint", "paused", { example: "paused" });
  expect(paused).toEqual({ agent: "hint", control: "paused", health: "failing", changed: true });
  expect(await w.control("hint", "paused", { example: "paused already" })).toMatchObject({ changed: false });
  const row = await w.row("hint");
  for (const absent of ["dueAt", "degradeAt"]) expect(row).not.toHaveProperty(absent);
  await w.pass(50 * MINUTE);
  expect(await w.send("hint", { summary: "by hand" })).toMatchObject({
    health: "failing",
    control: "paused",
  });
  const { agents, totals } = await w.dashboard({ example: "one agent that is paused" });
  expect(totals).toMatchObject({ agents: 1, failing: 0, paused: 1 });
  expect(agents[0]).toMatchObject({ summary: "by hand", control: "paused" });
  await w.pass(50 * MINUTE);
  expect(await w.control("hint", "active", { example: "resumed" })).toMatchObject({
    health: "ok",
    changed: true,
  });
  expect(await w.row("hint")).toMatchObject({ reason: "resumed", dueAt: w.now + 10 * MINUTE });
  expect((await w.detail("hint")).flips[0]).toMatchObject({ from: "failing", to: "ok", reason: "resumed" });
  await w.pass(25 * MINUTE);
  expect(await w.row("hint")).toMatchObject({ health: "degraded" });

  // degraded and paused: nobody is called, and what it was is remembered
  await w.control("hint", "paused");
  expect(await w.row("hint")).toMatchObject({ health: "degraded", degraded: false });
  await w.control("hint", "retired");
  expect((await w.dashboard()).agents).toEqual([]);
  expect(await w.send("hint")).toMatchObject({ outcome: "recorded", control: "retired" });
  expect(await w.refused("mutations/setAgentControl", { agent: "nobody", control: "paused" })).toMatchObject({
    code: "unknown_agent",
  });
});

story("a schedule is applied as a whole, and the same again changes nothing", async (w) => {
  const torv = { agent: "torv", schedule: cron("15 8 * * *"), host: "torvalds", status: "idle" };
  const both = [HINT, torv];
  const planned = await w.apply(both, { dryRun: true }, { example: "what would be applied" });
  expect(planned).toMatchObject({ outcome: "planned" });
  await w.register(...both);
  w.later(HOUR);
  const again = await w.apply(both, { listed: ["hint", "torv"] }, { example: "nothing changes" });
  expect(again).toMatchObject({
    changes: [
      { change: "unchanged", fields: [] },
      { change: "unchanged", fields: [] },
    ],
    unlisted: [],
  });
  const changed = { ...torv, schedule: cron("30 8 * * *", "Europe/Berlin"), misses: 3, purpose: "Review" };
  const before = await w.row("torv");
  expect(await w.apply([changed], { dryRun: true })).toMatchObject({ changes: [{ change: "changed" }] });
  expect(await w.row("torv")).toEqual(before);
  const answer = await w.apply(
    [changed],
    { listed: ["torv"] },
    { example: "changed, and one is not listed" },
  );
  expect(answer).toMatchObject({
    changes: [{ agent: "torv", change: "changed", fields: ["schedule", "purpose", "misses"] }],
    unlisted: ["hint"],
  });
  expect(await w.row("torv")).toMatchObject({ scheduleText: "30 8 * * * Europe/Berlin", misses: 3 });
  // who is retired needs no listing
  await w.control("hint", "retired");
  expect(await w.apply([changed], { listed: ["torv"] })).toMatchObject({ unlisted: [] });
  // an optional field that is no longer stated is gone
  await w.apply([{ agent: "torv", schedule: changed.schedule }]);
  const row = await w.row("torv");
  expect(row).not.toHaveProperty("purpose");
  expect(row.misses).toBe(2);
});

story("grace that nobody stated is computed once, whatever the coming week holds", async (w) => {
  const firsts = { agent: "kami", schedule: cron("0 8,9 1 * *") };
  await w.register(firsts);
  expect((await w.row("kami")).graceMs).toBe(HOUR);
  w.later(26 * DAY);
  expect(await w.apply([{ ...firsts, purpose: "Checks" }])).toMatchObject({
    changes: [{ fields: ["purpose"] }],
  });
  expect((await w.row("kami")).graceMs).toBe(HOUR);
  expect(await w.apply([firsts])).toMatchObject({ changes: [{ fields: ["purpose"] }] });
  expect(await w.apply([firsts])).toMatchObject({ changes: [{ change: "unchanged" }] });
  expect((await w.row("kami")).graceMs).toBe(HOUR);
  const stated = { ...firsts, graceMs: 7 * MINUTE };
  expect(await w.apply([stated])).toMatchObject({ changes: [{ change: "changed", fields: ["graceMs"] }] });
  expect((await w.row("kami")).graceMs).toBe(7 * MINUTE);
  // no longer stated: computed again, with two fires an hour apart in sight
  expect(await w.apply([firsts])).toMatchObject({ changes: [{ change: "changed", fields: ["graceMs"] }] });
  expect((await w.row("kami")).graceMs).toBe(6 * MINUTE);
});

story("a schedule with problems is refused with all of them, and nothing is written", async (w) => {
  const answer = await w.apply(
    [
      { agent: "fine-one", schedule: every(HOUR) },
      { agent: "Bad Name", schedule: every(1_000) },
      { agent: "torv", schedule: cron("61 8 * * *"), misses: 0, graceMs: -5 },
      { agent: "torv", schedule: cron("0 0 30 2 *", "Mars/Olympus"), status: "sleepy" },
      { agent: "kami", schedule: cron("0 0 30 2 *"), purpose: "x".repeat(501), maxRunMs: 1, actWithinMs: -1 },
    ],
    {},
    { example: "refused" },
  );
  expect(answer.outcome).toBe("refused");
  const problems = (answer as Applied & { outcome: "refused" }).problems;
  expect(problems.map(({ agent, field }) => `${agent} ${field}`)).toEqual([
    "Bad Name agent",
    "Bad Name schedule",
    "torv schedule",
    "torv graceMs",
    "torv misses",
    "torv agent",
    "torv timeZone",
    "torv status",
    "kami schedule",
    "kami purpose",
    "kami maxRunMs",
    "kami actWithinMs",
  ]);
  expect(
    await w.refused("queries/getAgent", { agent: "fine-one", at: w.now }, { as: "reader" }),
  ).toMatchObject({
    code: "unknown_agent",
  });
});

story("a new schedule counts silence anew and ends no degraded", async (w) => {
  await w.register({ agent: "hint", schedule: every(10 * MINUTE), graceMs: 5 * MINUTE });
  await w.send("hint");
  await w.pass(20 * MINUTE);
  await w.apply([{ agent: "hint", schedule: every(20 * MINUTE), graceMs: 5 * MINUTE }]);
  expect(await w.row("hint")).toMatchObject({ health: "ok", dueAt: w.now + 20 * MINUTE });
  await w.pass(45 * MINUTE);
  expect(await w.row("hint")).toMatchObject({ health: "degraded" });
  await w.apply([{ agent: "hint", schedule: every(DAY), graceMs: 5 * MINUTE }]);
  expect(await w.row("hint")).toMatchObject({ health: "degraded", dueAt: w.now + DAY });
});

story("cron: seconds early answer the fire, an hour early does not", async (w) => {
  const quarter = w.now + 15 * MINUTE;
  await w.register({ agent: "torv", schedule: cron("15 8 * * *") });
  expect(await w.row("torv")).toMatchObject({ dueAt: quarter, scheduleText: "15 8 * * * UTC" });
  await w.pass(10 * MINUTE - 1);
  expect(await w.send("torv")).toMatchObject({ dueAt: quarter });
  await w.pass(1);
  expect(await w.send("torv")).toMatchObject({ dueAt: quarter + DAY });
  const { nextExpectedAt } = await w.detail("torv");
  expect(nextExpectedAt).toEqual([1, 2, 3, 4, 5].map((days) => quarter + days * DAY));
});

story("a backend that was away flips nobody until hosts had time to deliver", async (w) => {
  await w.register(
    { agent: "hint", schedule: every(HOUR), graceMs: 5 * MINUTE },
    { agent: "torv", schedule: every(HOUR), graceMs: 5 * MINUTE },
  );
  await w.send("hint");
  await w.send("torv");
  await w.pass(MINUTE);
  const awayFrom = w.now;
  w.away(5 * HOUR);
  const backAt = w.now;
  await w.sweep();
  expect(await w.monitor({ example: "the sweep was away" })).toEqual({
    contractVersion: 1,
    sweepEveryMs: MINUTE,
    sweepRanAt: backAt,
    holdUntil: backAt + 10 * MINUTE,
  });
  expect(await w.row("hint")).toMatchObject({ health: "ok" });
  // kept while the backend was away; alone it would be too old
  expect(await w.send("hint", { age: 4 * HOUR })).toMatchObject({ health: "ok" });
  await w.pass(5 * MINUTE);
  expect(await w.send("hint", { age: 3 * MINUTE })).toMatchObject({ health: "ok" });
  await w.pass(5 * MINUTE - 1);
  expect(await w.row("torv")).toMatchObject({ health: "ok" });
  await w.pass(1);
  expect(await w.row("hint")).toMatchObject({ health: "ok" });
  expect(await w.row("torv")).toMatchObject({ health: "degraded" });
  const { flips } = await w.detail("torv", { example: "a flip that names the monitor's absence" });
  const [from, to] = [awayFrom, backAt].map((at) => new Date(at).toISOString());
  expect(flips[0]).toMatchObject({
    noticedAt: w.now,
    gapNote: `the monitor itself was away from ${from} to ${to}`,
  });
});

story("a hold also stays the flip that an old heartbeat would cause", async (w) => {
  await w.register({ agent: "hint", schedule: every(HOUR), graceMs: 5 * MINUTE, misses: 1 });
  await w.pass(MINUTE);
  w.away(5 * HOUR);
  await w.sweep();
  expect(await w.send("hint", { age: 3 * HOUR })).toMatchObject({
    health: "ok",
    degradeAt: w.now - 2 * HOUR + 5 * MINUTE,
  });
  await w.pass(10 * MINUTE);
  expect(await w.row("hint")).toMatchObject({ health: "degraded" });
});

story("a heartbeat flips to degraded as it arrives, where the sweep has not been by yet", async (w) => {
  await w.register({ agent: "hint", schedule: every(MINUTE), graceMs: 0, misses: 1 });
  await w.send("hint");
  w.away(3 * MINUTE);
  expect(await w.send("hint", { age: 90 * SECOND })).toMatchObject({ health: "degraded", degraded: true });
  expect((await w.detail("hint")).flips[0]).toMatchObject({
    reason: "1 expected run missed",
    becameAt: w.now - 30 * SECOND,
    noticedAt: w.now,
  });
});

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
});

story("a token does what it is for and nothing else, and ends when it is revoked", async (w) => {
  await w.register(HINT, { agent: "rams", schedule: every(HOUR) });
  expect(await w.send("hint", {}, { as: "hintOnly" })).toMatchObject({ outcome: "recorded" });
  const refusal = { code: "unauthorized", message: "No valid token for this call." };
  const foreign = w.heartbeat("rams");
  expect(
    await w.refused("mutations/recordHeartbeat", foreign, { as: "hintOnly", example: "unauthorized" }),
  ).toEqual(refusal);
  // not even whether the agent exists
  expect(await w.refused("mutations/recordHeartbeat", w.heartbeat("nobody"), { as: "hintOnly" })).toEqual(
    refusal,
  );
  expect(await w.refused("mutations/recordHeartbeat", w.heartbeat("hint"), { as: "nobody" })).toEqual(
    refusal,
  );
  expect(await w.refused("queries/getAgentDashboard", {}, { as: "sender" })).toEqual(refusal);
  expect(await w.refused("mutations/recordHeartbeat", w.heartbeat("hint"), { as: "reader" })).toEqual(
    refusal,
  );

  const request = {
    tokenHash: hashOf(`temporary ${w.now}`),
    name: "temporary",
    scope: "send",
    agents: ["hint"],
  };
  const made = await w.ask<{ fingerprint: string }>("mutations/createToken", request, { example: "a token" });
  expect(await w.ask("mutations/createToken", request)).toEqual(made);
  for (const change of [
    { scope: "admin", agents: undefined },
    { name: "other" },
    { agents: ["rams"] },
    { hostName: "h" },
  ]) {
    const data = await w.refused("mutations/createToken", { ...request, ...change });
    expect(data).toMatchObject({ code: "conflict" });
  }
  const reader = { tokenHash: hashOf(TOKENS.reader), name: "reader" };
  expect(await w.refused("mutations/createToken", { ...reader, scope: "admin" })).toMatchObject({
    code: "conflict",
  });
  for (const [field, change] of [
    ["tokenHash", { tokenHash: request.tokenHash.toUpperCase() }],
    ["name", { name: " " }],
    ["name", { name: "n".repeat(101) }],
    ["agents", { agents: [] }],
    ["agents", { agents: ["Hint"] }],
    ["agents", { scope: "read" }],
  ] as const) {
    const data = await w.refused("mutations/createToken", { ...request, ...change });
    expect(data).toMatchObject({ code: "invalid", field });
  }
  const { fingerprint } = made;
  const revoked = await w.ask("mutations/revokeToken", { fingerprint }, { example: "revoked" });
  await w.pass(MINUTE);
  expect(await w.ask("mutations/revokeToken", { fingerprint })).toEqual(revoked);
  // what was revoked does not come back
  expect(await w.refused("mutations/createToken", request)).toMatchObject({ code: "conflict" });
  expect(await w.refused("mutations/revokeToken", { fingerprint: "0123456789ab" })).toMatchObject({
    code: "invalid",
  });
  const { tokens } = await w.ask<{ tokens: { fingerprint: string }[] }>(
    "queries/listTokens",
    {},
    { example: "all" },
  );
  expect(tokens.find((one) => one.fingerprint === fingerprint)).toEqual({
    fingerprint,
    name: "temporary",
    scope: "send",
    agents: ["hint"],
    createdAt: expect.any(Number) as number,
    revokedAt: w.now - MINUTE,
  });
  expect(JSON.stringify(tokens)).not.toContain(request.tokenHash);
});

story("bad input is refused by name, and nothing is written", async (w) => {
  await w.register(HINT);
  const before = await w.row("hint");
  const bad: [field: string, change: object][] = [
    ["heartbeatId", { heartbeatId: "not-a-uuid" }],
    ["heartbeatId", { heartbeatId: w.newHeartbeatId().toUpperCase().replace("7000", "7ABC") }],
    ["heartbeatId", { heartbeatId: "0190f0c0-0000-4000-9000-000000000001" }],
    ["agent", { agent: "Hint" }],
    ["agent", { agent: "a".repeat(65) }],
    ["sentAt", { sentAt: NaN }],
    ["sentAt", { sentAt: -1 }],
    ["sentAt", { sentAt: 0 }],
    ["deliveredAt", { deliveredAt: Infinity }],
    ["deliveredAt", { deliveredAt: 8.64e15 }],
    ["status", { status: "sleepy" }],
    ["status", { status: "constructor" }],
    ["status", { status: "ok ".repeat(100) }],
    ["summary", { summary: "x".repeat(501) }],
    ["error", { error: "x".repeat(4_001) }],
    ["result", { result: "done" }],
    ["host", { host: "h".repeat(256) }],
    ["clientVersion", { clientVersion: "1".repeat(65) }],
    ["openTasks", { openTasks: -1 }],
    ["openTasks", { openTasks: 1.5 }],
    ["openTasks", { openTasks: 1e9 }],
    ["staleTasks", { openTasks: 1, staleTasks: 2 }],
    ["staleTasks", { staleTasks: undefined }],
    ["openTasks", { openTasks: undefined }],
    ["run.runId", { run: { runId: "1", phase: "start" } }],
    ["run.phase", { run: { runId: runId(1), phase: "middle" } }],
    ["run.startedAt", { run: { runId: runId(1), phase: "start", startedAt: NaN } }],
    ["run.finishedAt", { run: { runId: runId(1), phase: "finish", finishedAt: -5 } }],
    ["run.durationMs", { run: { runId: runId(1), phase: "finish", durationMs: -5 } }],
    ["run.exitCode", { run: { runId: runId(1), phase: "finish", exitCode: 0.5 } }],
    ["run.output", { run: { runId: runId(1), phase: "finish", output: "x".repeat(10_001) } }],
  ];
  for (const [field, change] of bad) {
    const heartbeat = { ...w.heartbeat("hint"), ...change };
    const data = await w.refused("mutations/recordHeartbeat", heartbeat);
    expect(data, JSON.stringify(change)).toMatchObject({ code: "invalid", field });
  }
  const long = { ...w.heartbeat("hint"), summary: "x".repeat(612) };
  expect(
    await w.refused("mutations/recordHeartbeat", long, { example: "a summary that is too long" }),
  ).toMatchObject({
    message: "summary: 612 characters, at most 500 are taken",
  });
  expect(
    await w.refused("mutations/recordHeartbeat", w.heartbeat("nobody"), {
      example: "an agent nobody applied",
    }),
  ).toMatchObject({ code: "unknown_agent" });
  expect(await w.row("hint")).toEqual(before);
  // 500 characters that take two units each in UTF-16 are still 500
  expect(await w.send("hint", { summary: "🫀".repeat(500) })).toMatchObject({ outcome: "recorded" });
  expect(await w.refused("queries/getAgent", { agent: "hint", at: NaN })).toMatchObject({ field: "at" });
  expect(await w.refused("queries/getAgentTaskCounts", { agent: "hint", at: 9e15 })).toMatchObject({
    field: "at",
  });
  expect(await w.refused("queries/getAgentHistory", { agent: "hint", limit: 201 })).toMatchObject({
    field: "limit",
  });
});

story("a sweep with more to do than one batch goes on by itself", async (w) => {
  const agents = Array.from({ length: 250 }, (_, nth) => ({
    agent: `agent-${nth}`,
    schedule: every(MINUTE),
    graceMs: 0,
    misses: 1,
  }));
  await w.register(...agents.slice(0, 200));
  await w.register(...agents.slice(200));
  await w.sweep();
  w.away(4 * MINUTE);
  await w.sweep();
  await w.until(async () => (await w.dashboard()).totals.degraded === 250);
  expect(await w.refused("mutations/applySchedule", { source: "too many", agents })).toMatchObject({
    code: "invalid",
    field: "agents",
  });
});
