/** Leaving, as it is told by the functions alone; tests/convex/leave.test.ts looks into the tables. */
import { expect } from "vitest";
import { every, HOUR, type World } from "../world";
import { book, HINT } from "./book";

const { stories, story } = book();
export { stories };

async function take(w: World, step: string, example: string) {
  return await w.ask<Record<string, unknown>>("mutations/leave", { step }, { example });
}

story(
  "who leaves ends every other token, and in the end the own one, with everything that it was for",
  async (w) => {
    await w.register(HINT, { agent: "torv", schedule: every(HOUR) });
    await w.send("hint");
    expect(await take(w, "stop", "nobody else gets in")).toMatchObject({ done: true });
    const stoppedAt = w.now;
    expect(await w.monitor({ as: "admin" })).toMatchObject({ stoppedAt });
    expect(await w.refused("queries/getMonitorStatus", {}, { as: "sender" })).toMatchObject({
      code: "unauthorized",
    });
    expect(await take(w, "links", "nobody is linked any more")).toMatchObject({ done: true, changed: 2 });
    expect(await take(w, "cards", "no card is left")).toMatchObject({ done: true, changed: 2 });
    // each call empties what is in the front: of one table, and at last of the tokens
    expect(await take(w, "empty", "emptied, not to the end")).toEqual({ done: false, changed: 2 });
    let left = await w.ask<{ done: boolean }>("mutations/leave", { step: "empty", limit: 1 });
    while (!left.done) left = await w.ask<{ done: boolean }>("mutations/leave", { step: "empty" });
    expect(await take(w, "end", "the last two rows")).toEqual({ done: true, changed: 2 });
    expect(
      await w.refused("mutations/leave", { step: "end" }, { example: "the token is gone" }),
    ).toMatchObject({
      code: "unauthorized",
    });
  },
);
