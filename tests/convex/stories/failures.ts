/** Failing: how many errors in a row are too many, what counts among them, and who judges anew. */
import { expect } from "vitest";
import { book } from "./book";
import { DAY, every, HOUR, MINUTE, runId, type World } from "../world";

const { stories, story } = book();
export { stories };

/** An agent that may fail twice in a row. */
const PATIENT = { agent: "hint", schedule: every(HOUR), failAfter: 3 };

const reasons = async (w: World) =>
  (await w.detail("hint")).flips.map(({ from, to, reason }) => `${from} ${to}: ${reason}`).reverse();

story(
  "an agent that may fail twice in a row stays ok until the third error, and one good report ends it",
  async (w) => {
    await w.register(PATIENT);
    expect(await w.row("hint")).toMatchObject({ failAfter: 3, consecutiveFailures: 0 });
    const failed = { status: "error", error: "exit 3" };
    for (const [nth, health] of ["ok", "ok", "failing", "failing"].entries()) {
      w.later(10 * MINUTE);
      expect(await w.send("hint", failed)).toMatchObject({ health });
      expect(await w.row("hint")).toMatchObject({
        health,
        consecutiveFailures: nth + 1,
        lastError: { message: "exit 3", at: w.now },
      });
    }
    await w.detail("hint", { example: "an agent that failed four times in a row" });
    // a result says so as well as a status, a start says nothing of either
    w.later(MINUTE);
    await w.send("hint", { result: "error" });
    await w.send("hint", { run: { runId: runId(1), phase: "start" }, status: "ok" });
    expect(await w.row("hint")).toMatchObject({ health: "failing", consecutiveFailures: 5 });
    w.later(MINUTE);
    expect(await w.send("hint")).toMatchObject({ health: "ok", reason: "recovered" });
    expect(await w.row("hint")).toMatchObject({ consecutiveFailures: 0 });
    expect(await reasons(w)).toEqual([
      "new ok: first report",
      "ok failing: reported error 3 times in a row",
      "failing ok: recovered",
    ]);
  },
);

story("what was kept on its host takes its place among the errors, whenever it comes", async (w) => {
  await w.register(PATIENT);
  w.later(50 * MINUTE);
  const error = (age: number) => w.heartbeat("hint", { status: "error", age: age * MINUTE });
  await w.deliver([error(40), error(20)]);
  // the third one comes last and lies between them
  expect(await w.deliver([error(30)])).toMatchObject([{ health: "failing", healthBefore: "ok" }]);
  expect(await w.row("hint")).toMatchObject({ healthSince: w.now - 20 * MINUTE, consecutiveFailures: 3 });
  // and so does a good one, after which there was one error only
  const [good] = await w.deliver([w.heartbeat("hint", { age: 25 * MINUTE })]);
  expect(good).toMatchObject({ health: "ok", reason: "recovered" });
  expect(await w.row("hint")).toMatchObject({ consecutiveFailures: 1, status: "error" });
  // what was before the good one counts no more
  await w.deliver([error(26), error(27), error(28)]);
  expect(await w.row("hint")).toMatchObject({ health: "ok", consecutiveFailures: 1 });
  // one that is late and the newest at once
  await w.deliver([error(10), error(5)]);
  expect(await w.row("hint")).toMatchObject({ health: "failing", consecutiveFailures: 3 });
});

story("another number of errors judges what has been reported already, at once", async (w) => {
  const one = { agent: "hint", schedule: every(HOUR) };
  await w.register(one);
  await w.send("hint", { status: "error" });
  w.later(MINUTE);
  await w.send("hint", { status: "error" });
  expect(await w.row("hint")).toMatchObject({ health: "failing", failAfter: 1, consecutiveFailures: 2 });
  const changed = { changes: [{ change: "changed", fields: ["failAfter"] }] };
  expect(await w.apply([PATIENT], { dryRun: true })).toMatchObject(changed);
  expect(await w.row("hint")).toMatchObject({ health: "failing", failAfter: 1 });
  w.later(MINUTE);
  expect(await w.apply([PATIENT], {}, { example: "more errors in a row are allowed" })).toMatchObject(
    changed,
  );
  expect(await w.row("hint")).toMatchObject({ health: "ok", healthSince: w.now, consecutiveFailures: 2 });
  expect(await w.apply([PATIENT])).toMatchObject({ changes: [{ change: "unchanged", fields: [] }] });
  w.later(MINUTE);
  await w.apply([{ ...PATIENT, failAfter: 2 }]);
  expect(await w.row("hint")).toMatchObject({ health: "failing", healthSince: w.now });
  // no longer stated: one again, which changes nothing about it
  await w.apply([one]);
  expect(await w.row("hint")).toMatchObject({ health: "failing", failAfter: 1 });
  expect(await reasons(w)).toEqual([
    "new failing: reported error",
    "failing ok: fails after 3 errors now",
    "ok failing: fails after 2 errors now",
  ]);

  // who is degraded or paused is not judged by it
  await w.pass(3 * HOUR);
  await w.apply([PATIENT]);
  expect(await w.row("hint")).toMatchObject({ health: "degraded" });
  await w.send("hint", { status: "error" });
  expect(await w.row("hint")).toMatchObject({ health: "failing", consecutiveFailures: 3 });
  await w.control("hint", "paused");
  await w.apply([{ ...PATIENT, failAfter: 100 }]);
  expect(await w.row("hint")).toMatchObject({ health: "failing", failAfter: 100 });
  await w.control("hint", "active");
  expect(await w.row("hint")).toMatchObject({ health: "ok", reason: "resumed" });

  const wrong = [0, 101, 1.5].map((failAfter, nth) => ({ ...PATIENT, agent: `bad-${nth}`, failAfter }));
  expect(await w.apply(wrong)).toMatchObject({
    outcome: "refused",
    problems: wrong.map(({ agent, failAfter }) => ({
      agent,
      field: "failAfter",
      message: `${failAfter} is not a whole number from 1 to 100`,
    })),
  });
});

story("a pause breaks no row of errors: only a good report shows that an agent works again", async (w) => {
  await w.register(PATIENT);
  for (let nth = 0; nth < 2; nth++) await w.send("hint", { status: "error" });
  await w.control("hint", "paused");
  await w.pass(DAY);
  // tried by hand while paused: it counts, and health is frozen
  expect(await w.send("hint", { status: "error" })).toMatchObject({ health: "ok" });
  expect(await w.control("hint", "active", { example: "resumed and failing" })).toMatchObject({
    health: "failing",
  });
  expect(await w.row("hint")).toMatchObject({ reason: "resumed", consecutiveFailures: 3 });
  await w.control("hint", "paused");
  await w.send("hint");
  await w.control("hint", "active");
  expect(await w.row("hint")).toMatchObject({ health: "ok", reason: "resumed", consecutiveFailures: 0 });
});
