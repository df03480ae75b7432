/** What is recorded as it is read out and taken in: within one deployment, where what was exported may come back at any time. */
import { expect } from "vitest";
import type { Exported, Imported } from "../../../convex/heartbeat/model/moveValidators";
import { book, HINT } from "./book";
import { every, HOUR, MINUTE, runId, type World } from "../world";

const { stories, story } = book();
export { stories };

type Kind = Exported["kind"];
type Records = Exported["records"];

async function exported(w: World, kind: Kind, example?: string): Promise<Records> {
  const answer = await w.ask<Exported>("queries/exportRecords", { kind }, { example });
  expect(answer).toMatchObject({ kind, isDone: true });
  return answer.records;
}

async function take(w: World, kind: Kind, records: unknown[], example?: string): Promise<Imported> {
  return await w.ask("mutations/importRecords", { kind, records }, { example });
}

const nothing = { recorded: 0, updated: 0, known: 0, refused: [] };

story("what is exported comes oldest first, and is known where it comes from", async (w) => {
  const planned = { status: "idle", host: "torvalds", maxRunMs: 2 * HOUR, actWithinMs: 48 * HOUR };
  await w.register({ ...HINT, ...planned }, { agent: "rams", schedule: every(HOUR) });
  const run = { runId: runId(1), startedAt: w.now - MINUTE };
  await w.send("hint", { run: { ...run, phase: "start" }, age: MINUTE, status: "working" });
  const over = { finishedAt: w.now, durationMs: 59_000, exitCode: 3, output: "no", outputCut: true };
  const said = { error: "exit 3", result: "acted", host: "torvalds", clientVersion: "0.1.0" };
  await w.send("hint", { run: { ...run, ...over, phase: "finish" }, status: "error", ...said });
  w.later(MINUTE);
  await w.send("hint", { age: 5 * MINUTE, summary: "late", host: "torvalds" });
  await w.send("hint", {
    run: { runId: runId(2), phase: "start" },
    summary: "begun",
    clientVersion: "0.1.0",
  });
  const before = await w.detail("hint");
  const agents = await exported(w, "agents", "agents");
  const heartbeats = await exported(w, "heartbeats", "heartbeats");
  const flips = await exported(w, "flips", "flips");
  expect(agents).toMatchObject([
    { agent: "hint", health: "failing" },
    { agent: "rams", health: "new" },
  ]);
  // neither what follows from it, nor what is of this deployment alone
  for (const name of ["_id", "_creationTime", "linked", "rank", "dueAt", "sweepAt", "allowance"]) {
    expect(agents[0]).not.toHaveProperty(name);
  }
  expect(heartbeats).toMatchObject([
    { run: { phase: "start" } },
    { run: { phase: "finish" }, receivedAt: w.now - MINUTE },
    { summary: "late", livenessAt: w.now - 5 * MINUTE, receivedAt: w.now },
    { summary: "begun" },
  ]);
  expect(flips).toMatchObject([{ agent: "hint", from: "new", to: "failing" }]);
  expect(await take(w, "agents", agents, "known agents")).toEqual({ ...nothing, known: 2 });
  expect(await take(w, "heartbeats", heartbeats)).toEqual({ ...nothing, known: 4 });
  expect(await take(w, "flips", flips)).toEqual({ ...nothing, known: 1 });
  expect(await w.detail("hint")).toEqual(before);
});

story("a page goes on where the one before ended, and then tells what was recorded meanwhile", async (w) => {
  await w.register(HINT);
  for (let nth = 0; nth < 3; nth++) await w.send("hint", { summary: `${nth}` });
  const page = (cursor?: string) =>
    w.ask<Exported>("queries/exportRecords", { kind: "heartbeats", limit: 2, ...(cursor && { cursor }) });
  const first = await page();
  expect(first).toMatchObject({ isDone: false, records: [{ summary: "0" }, { summary: "1" }] });
  await w.send("hint", { summary: "meanwhile" });
  const second = await page(first.continueCursor);
  expect(second.records).toMatchObject([{ summary: "2" }, { summary: "meanwhile" }]);
  for (const wrong of [{ limit: 0 }, { limit: 1_001 }, { cursor: "nowhere" }]) {
    const request = { kind: "heartbeats", ...wrong };
    expect(await w.refused("queries/exportRecords", request)).toMatchObject({ code: "invalid" });
  }
});

story("each record is stored once, and one that is refused harms no other", async (w) => {
  await w.register(HINT);
  await w.send("hint", { summary: "as it was" });
  const [mine] = (await exported(w, "heartbeats")) as unknown as [Record<string, unknown>];
  const { row } = await w.detail("hint");
  const another = { ...mine, heartbeatId: w.newHeartbeatId(), receivedAt: 1_000, livenessAt: 0 };
  const records = [
    { ...mine, summary: "otherwise" },
    { ...mine, agent: "rams" },
    another,
    another,
    { ...another, heartbeatId: "one" },
    { ...another, heartbeatId: w.newHeartbeatId(), livenessAt: -1 },
    { ...another, heartbeatId: w.newHeartbeatId(), rawStatus: "x".repeat(65) },
  ];
  expect(await take(w, "heartbeats", records, "recorded, known and refused")).toMatchObject({
    ...{ recorded: 1, updated: 0, known: 2 },
    refused: [
      { index: 1, code: "conflict" },
      { index: 4, code: "invalid", field: "heartbeatId" },
      { index: 5, code: "invalid", field: "livenessAt" },
      { index: 6, code: "invalid", field: "rawStatus" },
    ],
  });
  const { heartbeats } = await w.history("hint");
  expect(heartbeats).toMatchObject([{ summary: "as it was" }, { receivedAt: 1_000, livenessAt: 0 }]);
  expect((await w.detail("hint")).row).toEqual(row);

  const flip = { agent: "hint", from: "ok", to: "degraded", reason: "r", becameAt: 1_000, noticedAt: 2_000 };
  const others = [flip, { ...flip, silentSince: 500 }, flip, { ...flip, agent: "Hint" }];
  expect(await take(w, "flips", others)).toMatchObject({ recorded: 2, known: 1, refused: [{ index: 3 }] });
  // what is older than what is known is shown below it
  expect((await w.detail("hint")).flips.map((one) => one.becameAt)).toEqual([w.now, 1_000, 1_000]);

  for (const size of [0, 201]) {
    const request = { kind: "heartbeats", records: Array.from({ length: size }, () => mine) };
    const refused = await w.refused("mutations/importRecords", request);
    expect(refused).toMatchObject({ code: "invalid", field: "records" });
  }
  await w.refused("mutations/importRecords", { kind: "flips", records: [] }, { example: "none" });
});

story("an agent that is watched keeps its schedule and control, and takes over what is newer", async (w) => {
  await w.register({ agent: "hint", schedule: every(HOUR), graceMs: 5 * MINUTE });
  await w.send("hint", { status: "error", error: "first", openTasks: 3 });
  const [older] = (await exported(w, "agents")) as unknown as [Record<string, unknown>];
  w.later(10 * MINUTE);
  await w.send("hint", { summary: "second", result: "acted" });
  const [newer] = (await exported(w, "agents")) as unknown as [Record<string, unknown>];
  w.later(2 * MINUTE);

  // the newest heartbeat is known here: nothing of an older one is shown
  const shownBefore = await w.row("hint");
  expect(await take(w, "agents", [older])).toEqual({ ...nothing, known: 1 });
  expect(await w.row("hint")).toEqual(shownBefore);

  // but an error that is newer than any here, and when it last acted
  const [lastError, lastActedAt] = [{ message: "unheard of", at: w.now - MINUTE }, w.now - 1];
  expect(await take(w, "agents", [{ ...older, lastError, lastActedAt }])).toEqual({ ...nothing, updated: 1 });
  expect(await w.row("hint")).toEqual({ ...shownBefore, lastError, lastActedAt });

  const { lastHeartbeatAt } = newer as { lastHeartbeatAt: number };
  const later = { lastHeartbeatAt: lastHeartbeatAt + MINUTE, lastHeartbeatId: w.newHeartbeatId() };
  const lastReport = { at: later.lastHeartbeatAt, heartbeatId: later.lastHeartbeatId, failing: true };
  const failing = { health: "failing", healthSince: w.now, reason: "reported error", status: "error" };
  const less = {
    lastError: { message: "older", at: 1 },
    lastActedAt: 1,
    runsSinceActed: 7,
    answeredFromAt: 1,
  };
  const told = { ...newer, ...later, ...failing, lastReport, ...less };
  const strange = { control: "paused", misses: 9, schedule: every(48 * HOUR), purpose: "another" };
  const flipsBefore = (await w.detail("hint")).flips;
  const answer = await take(w, "agents", [{ ...told, ...strange }], "an agent with newer heartbeats");
  expect(answer).toEqual({ ...nothing, updated: 1 });
  const row = await w.row("hint");
  expect(row).toMatchObject({
    ...{ schedule: every(HOUR), control: "active", misses: 2, health: "failing", status: "error" },
    // what is answered here stays so, and what is newer here than there
    ...{ lastHeartbeatAt: later.lastHeartbeatAt, dueAt: lastHeartbeatAt + HOUR, runsSinceActed: 0 },
    ...{ lastError, lastActedAt },
  });
  expect(row).not.toHaveProperty("purpose");
  expect((await w.detail("hint")).flips).toEqual(flipsBefore);
  expect(await take(w, "agents", [{ ...told, ...strange }])).toEqual({ ...nothing, known: 1 });

  const names = { ...told, agent: "Hint" };
  const never = { ...told, schedule: { kind: "cron", expression: "0 0 30 2 *", timeZone: "UTC" } };
  expect((await take(w, "agents", [names, never])).refused).toMatchObject([
    { index: 0, field: "agent" },
    { index: 1, field: "schedule" },
  ]);
});

story("health goes along with newer facts, and who is overdue by them is the sweep's to flip", async (w) => {
  const hourly = (agent: string) => ({ agent, schedule: every(HOUR), graceMs: 0 });
  await w.register(hourly("hint"), hourly("torv"));
  await w.send("torv");
  await w.pass(3 * HOUR);
  const records = (await exported(w, "agents")) as unknown as Record<string, unknown>[];
  const [hint, torv] = records as [Record<string, unknown>, Record<string, unknown>];
  expect(torv).toMatchObject({ agent: "torv", health: "degraded" });
  const heardAt = w.now - MINUTE;
  const heard = { lastHeartbeatId: w.newHeartbeatId(), lastHeartbeatAt: heardAt, answeredFromAt: heardAt };
  const lastReport = { at: heardAt, heartbeatId: heard.lastHeartbeatId, failing: true };
  const failing = { ...heard, lastReport, health: "failing", failures: { at: [heardAt] } };
  expect(await take(w, "agents", [{ ...torv, ...failing }])).toMatchObject({ updated: 1 });
  expect(await w.row("torv")).toMatchObject({ health: "failing", dueAt: w.now + 59 * MINUTE });
  // here two errors in a row make it failing
  await w.register({ ...hourly("hint"), failAfter: 2 });
  expect(await take(w, "agents", [{ ...hint, ...failing }])).toMatchObject({ updated: 1 });
  expect(await w.row("hint")).toMatchObject({ health: "ok", reason: "imported", failAfter: 2 });

  // another name is another agent: unknown here, and as it was there, degraded or about to be
  const oldAt = w.now - 4 * HOUR;
  const old = { lastHeartbeatId: w.newHeartbeatId(), lastHeartbeatAt: oldAt, answeredFromAt: oldAt };
  const silent = { ...torv, ...old, agent: "kami", health: "ok", healthSince: 0, resetAt: 0 };
  expect(await take(w, "agents", [silent, { ...torv, agent: "rams", control: "paused" }])).toMatchObject({
    recorded: 2,
  });
  expect(await w.row("kami")).toMatchObject({ health: "ok", degradeAt: w.now - 2 * HOUR, linked: true });
  expect(await w.row("rams")).toMatchObject({ health: "degraded", control: "paused", degraded: false });
  await w.sweep();
  expect(await w.detail("kami")).toMatchObject({
    row: { health: "degraded" },
    flips: [{ reason: "2 expected runs missed", becameAt: w.now - 2 * HOUR }],
  });
  // what is paused here keeps its health, whatever was heard
  expect(await take(w, "agents", [{ ...torv, ...failing, agent: "rams" }])).toMatchObject({ updated: 1 });
  expect(await w.row("rams")).toMatchObject({
    health: "degraded",
    control: "paused",
    lastHeartbeatAt: heardAt,
  });
  expect(await w.row("rams")).not.toHaveProperty("dueAt");
});
