/** Crons of every kind under a clock that the test moves: each runs when it is due, and once for however much was missed. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { eventually, makeBundle, startBackend, temporaryFolder, type Backend } from "./server.ts";

const HOUR_MS = 3_600_000;
/** A Monday. */
const START = Date.parse("2026-03-02T10:00:00Z");
const APP = await makeBundle({
  "crons.ts": `import { cronJobs, makeFunctionReference } from "convex/server";
    const tick = makeFunctionReference("ticks:tick");
    const crons = cronJobs();
    crons.interval("interval", { hours: 1 }, tick, { name: "interval" });
    crons.hourly("hourly", { minuteUTC: 30 }, tick, { name: "hourly" });
    crons.daily("daily", { hourUTC: 12, minuteUTC: 0 }, tick, { name: "daily" });
    crons.weekly("weekly", { dayOfWeek: "tuesday", hourUTC: 1, minuteUTC: 0 }, tick, { name: "weekly" });
    crons.monthly("monthly", { day: 31, hourUTC: 0, minuteUTC: 5 }, tick, { name: "monthly" });
    crons.cron("cron", "0 6-9/3 * 3 wed,thu", tick, { name: "cron" });
    crons.interval("action", { hours: 1 }, makeFunctionReference("ticks:act"), {});
    export default crons;`,
  "ticks.ts": `import { actionGeneric as action, internalMutationGeneric as internalMutation, makeFunctionReference,
      mutationGeneric as mutation, queryGeneric as query } from "convex/server";
    export const tick = internalMutation(async (ctx, { name }) => {
      await ctx.db.insert("ticks", { name, at: Date.now() });
    });
    export const act = action((ctx) => ctx.runMutation(makeFunctionReference("ticks:tick"), { name: "action" }));
    export const nudge = mutation(async () => null);
    export const times = query(async (ctx) => {
      const found = {};
      for (const { name, at } of await ctx.db.query("ticks").collect()) (found[name] ??= []).push(at);
      return found;
    });`,
});

type Times = Record<string, number[]>;

/** How often each has run, and at which hours after the start; waits for so many runs in all. */
async function ran(backend: Backend, total: number): Promise<Record<string, number[]>> {
  // a backend sleeps until the next time that it knows; whoever writes wakes it
  await backend.call("mutation", "ticks:nudge");
  const times = await eventually(
    async () => (await backend.call("query", "ticks:times")).value as Times,
    (found) => Object.values(found).flat().length >= total,
  );
  const hours = Object.entries(times).map(([name, at]) => [name, at.map((ms) => (ms - START) / HOUR_MS)]);
  return Object.fromEntries(hours) as Record<string, number[]>;
}

/** A backend's folder and its clock, which `now` sets to so many hours after the start. */
function underAClock() {
  const folder = temporaryFolder();
  const clock = join(folder, "clock");
  const now = (hours: number): void => writeFileSync(clock, String(START + hours * HOUR_MS));
  const start = (): Promise<Backend> => startBackend(folder, APP, 0, [], clock);
  return { now, start };
}

test("a clock that was ahead and is put right stops no cron for as long as it was wrong", async () => {
  const { now, start } = underAClock();
  now(0);
  const backend = await start();
  await ran(backend, 2);
  now(100);
  expect(await ran(backend, 8)).toMatchObject({ interval: [0, 100], hourly: [100], daily: [100] });
  now(1);
  expect(await ran(backend, 13)).toMatchObject({ interval: [0, 100, 1], hourly: [100, 1], daily: [100, 1] });
  now(3);
  expect(await ran(backend, 16)).toMatchObject({ interval: [0, 100, 1, 3], hourly: [100, 1, 3] });
  await backend.end();
});

test("crons run at their times, once for what was missed, and go on after a restart", async () => {
  const { now, start } = underAClock();
  now(0);
  let backend = await start();
  // an interval's first run is at its first deploy
  expect(await ran(backend, 2)).toEqual({ interval: [0], action: [0] });
  now(0.5);
  expect(await ran(backend, 3)).toEqual({ interval: [0], action: [0], hourly: [0.5] });
  now(5.25);
  expect(await ran(backend, 7)).toEqual({
    interval: [0, 5.25],
    action: [0, 5.25],
    hourly: [0.5, 5.25],
    daily: [5.25],
  });
  // an interval keeps its beat, whatever was missed
  now(6);
  expect(await ran(backend, 10)).toMatchObject({ interval: [0, 5.25, 6], hourly: [0.5, 5.25, 6] });

  await backend.end("SIGKILL");
  now(72);
  backend = await start();
  const after = await ran(backend, 16);
  expect(after).toMatchObject({ interval: [0, 5.25, 6, 72], daily: [5.25, 72], weekly: [72], cron: [72] });
  expect(after).not.toHaveProperty("monthly");
  await backend.end();

  backend = await start();
  expect(await ran(backend, 16)).toEqual(after);
  now(24 * 29 + 14.25);
  expect((await ran(backend, 23)).monthly).toEqual([24 * 29 + 14.25]);
  await backend.end();
});
