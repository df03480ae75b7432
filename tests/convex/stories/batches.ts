/** Heartbeats that were kept on their host and are delivered together: what a batch answers, and what a replay may and may not do. */
import { expect } from "vitest";
import { book, HINT } from "./book";
import { every, HOUR, MINUTE, runId } from "../world";

const { stories, story } = book();
export { stories };

const hourly = (agent: string) => ({ agent, schedule: every(HOUR), graceMs: 5 * MINUTE });

story("each heartbeat of a batch has its own result, and a refused one harms no other", async (w) => {
  await w.register(HINT, { agent: "rams", schedule: every(HOUR) });
  const first = w.heartbeat("hint", { summary: "first", age: MINUTE });
  const { heartbeatId } = first;
  const results = await w.deliver(
    [
      first,
      { ...first, summary: "again" },
      { ...w.heartbeat("hint"), status: "sleepy" },
      w.heartbeat("nobody"),
      { ...w.heartbeat("rams"), heartbeatId },
      w.heartbeat("rams", { status: "error" }),
      w.heartbeat("hint", { summary: "last" }),
    ],
    { example: "some recorded, some refused" },
  );
  expect(results).toMatchObject([
    { outcome: "recorded", agent: "hint", healthBefore: "new", health: "ok", livenessAt: w.now - MINUTE },
    { outcome: "duplicate", agent: "hint", livenessAt: w.now - MINUTE },
    { outcome: "refused", code: "invalid", field: "status" },
    { outcome: "refused", code: "unknown_agent" },
    { outcome: "refused", code: "conflict" },
    { outcome: "recorded", agent: "rams", health: "failing" },
    { outcome: "recorded", agent: "hint", livenessAt: w.now },
  ]);
  expect(results[1]).not.toHaveProperty("healthBefore");
  expect((await w.history("hint")).heartbeats.map((one) => one.summary)).toEqual(["last", "first"]);
  expect((await w.history("rams")).heartbeats).toHaveLength(1);
  // the whole again, as after an answer that was lost
  const again = await w.deliver([first, w.heartbeat("hint", { summary: "new" })]);
  expect(again.map((one) => one.outcome)).toEqual(["duplicate", "recorded"]);
});

story("a batch is taken with a valid token only, and of it what the token's list names", async (w) => {
  await w.register(HINT, { agent: "rams", schedule: every(HOUR) });
  const path = "mutations/recordHeartbeats";
  const mixed = () => ["rams", "hint", "nobody", "Not A Name"].map((agent) => w.heartbeat(agent));
  const results = await w.deliver(mixed(), { as: "hintOnly", example: "agents of others" });
  const foreign = { outcome: "refused", code: "unauthorized", message: "No valid token for this call." };
  // not even whether the agent exists
  expect(results).toEqual([foreign, expect.objectContaining({ outcome: "recorded" }), foreign, foreign]);
  expect(await w.row("rams")).not.toHaveProperty("lastHeartbeatAt");
  for (const as of ["reader", "nobody"] as const) {
    expect(await w.refused(path, { heartbeats: mixed() }, { as })).toMatchObject({ code: "unauthorized" });
  }
  for (const size of [0, 101]) {
    const heartbeats = Array.from({ length: size }, () => w.heartbeat("hint"));
    const refused = await w.refused(path, { heartbeats }, { as: "sender" });
    expect(refused).toMatchObject({ code: "invalid", field: "heartbeats" });
  }
  await w.refused(path, { heartbeats: [] }, { as: "sender", example: "a batch of none" });
  expect((await w.history("hint")).heartbeats).toHaveLength(1);
  const full = Array.from({ length: 100 }, () => w.heartbeat("hint"));
  expect((await w.deliver(full)).filter((one) => one.outcome === "recorded")).toHaveLength(100);
});

story("a day's heartbeats delivered together after the backend was away flip nobody", async (w) => {
  await w.register(hourly("hint"), hourly("torv"));
  await w.deliver([w.heartbeat("hint"), w.heartbeat("torv")]);
  const heardAt = w.now;
  await w.pass(MINUTE);
  w.away(24 * HOUR);
  // oldest first, in two calls: alone, the first would leave the agent hours overdue
  const kept = Array.from({ length: 24 }, (_, nth) =>
    w.heartbeat("hint", { age: w.now - heardAt - (nth + 1) * HOUR, summary: `run ${nth + 1}` }),
  );
  for (const part of [kept.slice(0, 15), kept.slice(15)]) {
    for (const result of await w.deliver(part)) {
      expect(result).toMatchObject({ outcome: "recorded", health: "ok" });
      expect(result).not.toHaveProperty("healthBefore");
    }
  }
  expect(await w.row("hint")).toMatchObject({ summary: "run 24", lastHeartbeatAt: heardAt + 24 * HOUR });
  const { heartbeats } = await w.history("hint", { limit: 30 });
  expect(heartbeats.map((one) => one.livenessAt)).toEqual(
    Array.from({ length: 25 }, (_, nth) => heardAt + (24 - nth) * HOUR),
  );
  expect(heartbeats[19]).toMatchObject({ summary: "run 5", deliveredLateMs: w.now - heardAt - 5 * HOUR });
  // nor when the time to deliver is over; the one that was not heard of is judged then
  await w.sweep();
  await w.pass(10 * MINUTE);
  expect((await w.detail("hint")).flips.map((flip) => flip.reason)).toEqual(["first report"]);
  expect(await w.row("torv")).toMatchObject({ health: "degraded" });
});

story("a host that was cut off fakes no life with what it kept, and explains the silence", async (w) => {
  await w.register(hourly("hint"), hourly("torv"));
  await w.deliver([w.heartbeat("hint"), w.heartbeat("torv")]);
  const kept: Record<string, unknown>[] = [];
  for (let nth = 1; nth <= 5; nth++) {
    await w.pass(HOUR);
    await w.send("torv");
    kept.push(w.heartbeat("hint", { summary: `run ${nth}` }));
  }
  await w.pass(HOUR);
  expect(await w.row("hint")).toMatchObject({ health: "degraded" });
  const delivered = kept.map((one) => ({ ...one, deliveredAt: w.now }));

  const early = await w.deliver(delivered.slice(0, 3), { example: "a replay" });
  expect(early.map((one) => one.outcome === "recorded" && [one.health, one.livenessAt])).toEqual(
    [5, 4, 3].map((hours) => ["degraded", w.now - hours * HOUR]),
  );
  expect(await w.row("hint")).toMatchObject({ health: "degraded", lastHeartbeatAt: w.now - 3 * HOUR });
  const late = await w.deliver(delivered.slice(3));
  expect(late).toMatchObject([{ health: "ok", reason: "reported again" }, { health: "ok" }]);
  const { flips } = await w.detail("hint", { example: "a flip that a batch explains" });
  expect(flips.map((flip) => [flip.from, flip.to])).toEqual([
    ["degraded", "ok"],
    ["ok", "degraded"],
    ["new", "ok"],
  ]);
  // the second hour's run is the last from within the silence that led to the flip
  expect(flips[1]?.explainedBy).toEqual({
    heartbeatId: kept[1]?.["heartbeatId"],
    deliveredLateMs: 4 * HOUR,
  });
  const { heartbeats } = await w.history("hint");
  expect(heartbeats.map((one) => one.deliveredLateMs)).toEqual([
    ...[1, 2, 3, 4, 5].map((hours) => hours * HOUR),
    undefined,
  ]);
  expect((await w.detail("torv")).flips.map((flip) => flip.reason)).toEqual(["first report"]);
});

story("a run whose start and finish come in one batch is over, and answers what its start did", async (w) => {
  await w.register(hourly("hint"));
  await w.pass(20 * MINUTE);
  const run = { runId: runId(1), startedAt: w.now - 15 * MINUTE };
  const results = await w.deliver([
    w.heartbeat("hint", { age: 15 * MINUTE, run: { ...run, phase: "start" }, status: "working" }),
    w.heartbeat("hint", { age: 2 * MINUTE, run: { ...run, phase: "finish", exitCode: 0 } }),
  ]);
  expect(results).toMatchObject([
    { outcome: "recorded", health: "new" },
    { outcome: "recorded", health: "ok", dueAt: run.startedAt + HOUR },
  ]);
  const row = await w.row("hint");
  expect(row).toMatchObject({ lastRun: { startedAt: run.startedAt, durationMs: 13 * MINUTE } });
  expect(row).not.toHaveProperty("runningSince");
});
