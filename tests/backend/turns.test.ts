/** In which order shared queries are handed to the engine, which the outside sees only as time. */
import { expect, test } from "vitest";
import type { Host } from "../../backend/host.ts";
import type { Outcome, QueryTask } from "../../backend/messages.ts";
import { Watches, type Subscriber } from "../../backend/watches.ts";

const NOBODY: Subscriber = { stale: () => undefined };

/** An engine whose answers are given by hand, and the queries that it was asked for. */
function engine() {
  const asked: { args: string[]; answer: () => Promise<void> }[] = [];
  const host = {
    functions: new Map([["list", { kind: "query", internal: false }]]),
    generation: 0,
    forget: () => undefined,
    queries: (runs: QueryTask[]) =>
      new Promise<Outcome[]>((resolve) => {
        const answer = async (): Promise<void> => {
          resolve(runs.map(() => ({ ok: true, value: "[]", journal: null })));
          await new Promise((settled) => setImmediate(settled));
        };
        asked.push({ args: runs.map(({ call }) => call.args), answer });
      }),
  };
  const watches = new Watches(host as unknown as Host);
  const watch = (args: string) => watches.subscribe(NOBODY, "list", args, null, { admin: false });
  return { asked, watches, watch };
}

test("groups of queries are run one after another, so that a mutation waits for one of them at most", async () => {
  const { asked, watches, watch } = engine();
  const fresh = ["[1]", "[2]", "[3]"].map((args) => watches.refresh([watch(args)]));
  for (let nth = 0; nth < 3; nth++) {
    await fresh[nth - 1];
    expect(asked.map(({ args }) => args)).toEqual([["[1]"], ["[2]"], ["[3]"]].slice(0, nth + 1));
    await asked[nth]?.answer();
  }
  await Promise.all(fresh);
});

test("a query whose last subscriber left before its turn is not run, and the next one is", async () => {
  const { asked, watches, watch } = engine();
  const [busy, left, kept] = [watch("[1]"), watch("[2]"), watch("[3]")];
  const fresh = Promise.all([busy, left, kept].map((one) => watches.refresh([one])));
  await Promise.resolve();
  watches.unsubscribe(left, NOBODY);
  await asked[0]?.answer();
  expect(asked.map(({ args }) => args)).toEqual([["[1]"], ["[3]"]]);
  await asked[1]?.answer();
  await fresh;
  expect(kept.dirty).toBe(false);
});
