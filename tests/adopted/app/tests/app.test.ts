import { convexTest } from "convex-test";
import { expect, test } from "vitest";
import { api, internal } from "../convex/_generated/api";
import schema from "../convex/schema";

const modules = import.meta.glob("../convex/**/*.*s");
const AT = Date.UTC(2026, 2, 2, 8);

async function atelier() {
  const t = convexTest({ schema, modules });
  await t.mutation(internal.seed.default, { at: AT });
  return t;
}

test("the seed makes 20 agents and 180 tasks", async () => {
  const t = await atelier();
  expect(await t.query(api.agents.list, {})).toHaveLength(20);
  expect(await t.run((ctx) => ctx.db.query("tasks").collect())).toHaveLength(180);
});

test("a task goes through its states, on the board of each", async () => {
  const t = await atelier();
  const hint = await t.query(api.agents.find, { handle: "Hint" });
  const torv = await t.query(api.agents.find, { handle: "Torv" });
  const id = await t.mutation(api.tasks.create, { title: "the plan", assignees: [hint!._id] });
  await t.mutation(api.tasks.assign, { id, assignees: [hint!._id, torv!._id] });
  await t.mutation(api.tasks.move, { id, state: "doing" });
  const doing = await t.query(api.tasks.board, { state: "doing" });
  expect(doing.find((task) => task._id === id)).toMatchObject({ assignees: [hint!._id, torv!._id] });
  await t.mutation(api.tasks.remove, { id });
  expect(await t.query(api.tasks.board, { state: "doing" })).toHaveLength(36);
});

test("a saved profile is the whole profile", async () => {
  const t = await atelier();
  const hint = await t.query(api.agents.find, { handle: "Hint" });
  const { _id, _creationTime, kind, joinedAt } = hint!;
  await t.mutation(api.agents.saveProfile, { id: _id, handle: "Hint", role: "editor", skills: ["prose"] });
  const saved = { _id, _creationTime, kind, joinedAt, handle: "Hint", role: "editor", skills: ["prose"] };
  expect(await t.query(api.agents.find, { handle: "Hint" })).toEqual(saved);
  await t.mutation(api.agents.remove, { id: _id });
  expect(await t.query(api.agents.find, { handle: "Hint" })).toBeNull();
});

test("the digest is served as it was written last", async () => {
  const t = await atelier();
  await t.mutation(internal.digests.write, {});
  const response = await t.fetch("/digest");
  expect(await response.json()).toEqual({ unfinished: 108 });
});
