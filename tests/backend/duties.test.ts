/** Scheduled functions and crons. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nextFire } from "../../backend/crons.ts";
import type { CronSpec } from "../../backend/functions.ts";
import { eventually, startBackend, temporaryFolder, type Backend } from "./server.ts";

const folder = temporaryFolder();
let backend: Backend;
beforeAll(async () => {
  backend = await startBackend(folder);
});
afterAll(() => backend.end());

async function count(name: string): Promise<number> {
  return (await backend.call("query", "runtime:count", { name })).value as number;
}

async function schedule(name: string, inMs: number, kind: string): Promise<string> {
  return (await backend.call("mutation", "jobs:schedule", { name, inMs, kind })).value as string;
}

type State = { name: string; args: unknown[]; kind: string; completed: boolean };

async function state(id: string): Promise<State> {
  return (await backend.call("query", "jobs:state", { id })).value as State;
}

/** Waits until a scheduled function has got that far. */
async function reaches(id: string, wanted: string): Promise<State> {
  return eventually(
    () => state(id),
    ({ kind }) => kind === wanted,
  );
}

describe("a scheduled function", () => {
  test("runs once when its time has come, and says that it succeeded", async () => {
    const id = await schedule("soon", 700, "mutation");
    expect(await state(id)).toEqual({
      name: "jobs.js:run",
      args: [{ name: "soon", fail: false }],
      kind: "pending",
      completed: false,
    });
    const done = await reaches(id, "success");
    expect(done).toMatchObject({ kind: "success", completed: true });
    expect(await count("soon")).toBe(1);
  });

  test("that fails leaves nothing but its failure", async () => {
    const id = await schedule("fails", 0, "failing");
    expect((await reaches(id, "failed")).kind).toBe("failed");
    expect(await count("fails")).toBe(0);
  });

  test("may be an action", async () => {
    const id = await schedule("acts", 0, "action");
    expect((await reaches(id, "success")).kind).toBe("success");
    expect(await count("acts")).toBe(1);
  });

  test("that was cancelled does not run", async () => {
    const id = await schedule("cancelled", 150, "mutation");
    await backend.call("mutation", "jobs:cancel", { id });
    expect((await state(id)).kind).toBe("canceled");
    await schedule("after", 200, "mutation");
    await eventually(
      () => count("after"),
      (found) => found === 1,
    );
    expect(await count("cancelled")).toBe(0);
  });

  test("of a mutation that failed was never scheduled", async () => {
    const args = { name: "never", inMs: 0, kind: "mutation", refuse: true };
    expect((await backend.call("mutation", "jobs:schedule", args)).status).toBe("error");
    expect((await backend.call("query", "jobs:open")).value).toBe(0);
  });

  test("of a sub-transaction that was refused was never scheduled either", async () => {
    const inside = (fail: boolean) =>
      backend.call("mutation", "jobs:scheduleInside", { name: "inside", fail });
    expect((await inside(true)).value).toBe("refused");
    const id = (await inside(false)).value as string;
    await reaches(id, "success");
    expect(await count("inside")).toBe(1);
  });

  test("may be scheduled and cancelled by an action", async () => {
    const { value } = await backend.call("action", "jobs:scheduleAndCancel", { name: "by an action" });
    const [kept, cancelled] = value as [string, string];
    await reaches(kept, "success");
    expect((await state(cancelled)).kind).toBe("canceled");
    expect(await count("by an action")).toBe(1);
  });

  test.each([
    ["that is not there", "no:where", 0, "Attempted to schedule function at nonexistent path: no:where"],
    ["that is a query", "runtime:count", 0, "Only mutations and actions can be scheduled"],
    ["in six years", "jobs:run", 6 * 366 * 86_400_000, "is more than 5 years in the future"],
  ])("%s is refused", async (_name, path, inMs, sentence) => {
    const answer = await backend.call("mutation", "jobs:scheduleWrongly", { path, inMs });
    expect(answer.errorMessage).toContain(sentence);
  });
});

describe("after the backend was killed and started again", () => {
  test("what was scheduled runs once, an hourly cron does not run again, a cron that was due runs once", async () => {
    expect(
      await eventually(
        () => count("hourly"),
        (found) => found > 0,
      ),
    ).toBe(1);
    expect(
      await eventually(
        () => count("secondly"),
        (found) => found > 1,
      ),
    ).toBeGreaterThan(1);
    const id = await schedule("survivor", 100, "mutation");
    await backend.end("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 100));
    backend = await startBackend(folder);
    expect((await reaches(id, "success")).kind).toBe("success");
    expect(await count("survivor")).toBe(1);
    expect(await count("hourly")).toBe(1);
    expect(await count("monthly")).toBe(0);
  });
});

describe("a cron's next run", () => {
  const at = (text: string): number => Date.parse(text);
  const next = (schedule: CronSpec["schedule"], now: string, previous: number | null = null): string =>
    new Date(nextFire("any", { name: "f", args: [], schedule }, previous, at(now))).toISOString();

  test.each([
    ["hourly", { type: "hourly", minuteUTC: 30 }, "2026-03-01T10:30:00Z", "2026-03-01T11:30:00.000Z"],
    [
      "daily",
      { type: "daily", hourUTC: 17, minuteUTC: 30 },
      "2026-03-01T17:29:59Z",
      "2026-03-01T17:30:00.000Z",
    ],
    [
      "weekly",
      { type: "weekly", dayOfWeek: "tuesday", hourUTC: 1, minuteUTC: 0 },
      "2026-03-03T02:00:00Z",
      "2026-03-10T01:00:00.000Z",
    ],
    [
      "monthly on the 31st",
      { type: "monthly", day: 31, hourUTC: 0, minuteUTC: 5 },
      "2026-01-31T01:00:00Z",
      "2026-03-31T00:05:00.000Z",
    ],
    [
      "cron on leap days",
      { type: "cron", cron: "0 12 29 2 *" },
      "2026-01-01T00:00:00Z",
      "2028-02-29T12:00:00.000Z",
    ],
    [
      "cron on either day field",
      { type: "cron", cron: "0 0 13 * fri" },
      "2026-03-01T00:00:00Z",
      "2026-03-06T00:00:00.000Z",
    ],
    [
      "cron with steps and ranges",
      { type: "cron", cron: "*/20 9-17/4 * mar-may 1-5" },
      "2026-03-02T13:41:00Z",
      "2026-03-02T17:00:00.000Z",
    ],
  ])("%s", (_name, schedule, now, expected) => {
    expect(next(schedule, now)).toBe(expected);
  });

  test("of an interval is at once for a new cron, and skips what was missed", () => {
    const every = { type: "interval", minutes: 10 };
    expect(next(every, "2026-03-01T10:00:00Z")).toBe("2026-03-01T10:00:00.000Z");
    const previous = at("2026-03-01T08:00:00Z");
    expect(next(every, "2026-03-01T08:00:01Z", previous)).toBe("2026-03-01T08:10:00.000Z");
    expect(next(every, "2026-03-01T09:55:00Z", previous)).toBe("2026-03-01T10:00:00.000Z");
  });
});
