/** Who is degraded, when, and who is not: silence, the sweep, and a backend that was away. */
import { expect } from "vitest";
import { book } from "./book";
import { every, HOUR, MINUTE, SECOND } from "../world";

const { stories, story } = book();
export { stories };

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
    contractVersion: 2,
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

story(
  "what hosts kept and deliver before the first sweep after an absence flips nobody either",
  async (w) => {
    await w.register({ agent: "hint", schedule: every(HOUR), graceMs: 5 * MINUTE });
    await w.send("hint");
    await w.sweep();
    w.away(8 * HOUR);
    for (const age of [7 * HOUR, 6 * HOUR, MINUTE]) {
      w.later(SECOND);
      expect(await w.send("hint", { age })).toMatchObject({ health: "ok" });
    }
    expect((await w.detail("hint")).flips.map((flip) => flip.reason)).toEqual(["first report"]);
  },
);

story("a clock that ran ahead for a while holds nothing once it is right again", async (w) => {
  await w.register({ agent: "hint", schedule: every(HOUR), graceMs: 5 * MINUTE, misses: 1 });
  await w.send("hint");
  await w.sweep();
  w.away(5 * HOUR);
  await w.sweep();
  w.away(-5 * HOUR);
  await w.pass(HOUR + 5 * MINUTE);
  expect(await w.row("hint")).toMatchObject({ health: "degraded" });
});

story("a heartbeat flips to degraded as it arrives, where the sweep has not been by yet", async (w) => {
  await w.register({ agent: "hint", schedule: every(MINUTE), graceMs: 0, misses: 1 });
  await w.send("hint");
  await w.sweep();
  w.away(3 * MINUTE);
  expect(await w.send("hint", { age: 90 * SECOND })).toMatchObject({ health: "degraded", degraded: true });
  expect((await w.detail("hint")).flips[0]).toMatchObject({
    reason: "1 expected run missed",
    becameAt: w.now - 30 * SECOND,
    noticedAt: w.now,
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
