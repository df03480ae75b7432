/** What the operator says: schedules applied and changed, agents paused, resumed and retired. */
import { expect } from "vitest";
import type { Applied } from "../../../convex/heartbeat/model/validators";
import { book, HINT } from "./book";
import { cron, DAY, every, HOUR, MINUTE } from "../world";

const { stories, story } = book();
export { stories };

story("a schedule is applied as a whole, and the same again changes nothing", async (w) => {
  const torv = { agent: "torv", schedule: cron("15 8 * * *"), host: "torvalds", status: "idle" };
  const both = [HINT, torv];
  const planned = await w.apply(both, { dryRun: true }, { example: "what would be applied" });
  expect(planned).toMatchObject({ outcome: "planned" });
  await w.register(...both);
  const { row: registered } = await w.detail("torv", { example: "an agent with a planned status and host" });
  expect(registered).toMatchObject({ plannedStatus: "idle", plannedHost: "torvalds" });
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
  // who is retired needs no listing; who is listed all the same stays retired, and the answer says so
  await w.control("hint", "retired");
  expect(await w.apply([changed], { listed: ["torv"] })).toMatchObject({ unlisted: [] });
  expect(await w.apply([HINT, changed], {}, { example: "one of the agents is retired" })).toEqual({
    outcome: "applied",
    changes: [
      expect.objectContaining({ agent: "hint", change: "unchanged", control: "retired" }),
      expect.not.objectContaining({ control: expect.anything() as unknown }),
    ],
    unlisted: [],
  });
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
  // a day after its last heartbeat, over an hour ago
  expect(await w.row("hint")).toMatchObject({ health: "degraded", dueAt: w.now - 65 * MINUTE + DAY });
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
