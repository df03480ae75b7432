import fc from "fast-check";
import { expect, test } from "vitest";
import type { Doc } from "../../convex/_generated/dataModel";
import { hear, registered } from "../../convex/heartbeat/model/liveness";
import { shown } from "../../convex/heartbeat/model/shown";
import { every, HOUR, MINUTE } from "./world";

type Row = Doc<"agentLiveness">;
type Heartbeat = Omit<Doc<"agentHeartbeats">, "_id" | "_creationTime">;

const T = Date.UTC(2026, 2, 2, 8);
const RECEIVED_AT = T + 48 * HOUR;

function freshRow(): Row {
  const rules = { schedule: every(HOUR), graceMs: 5 * MINUTE, misses: 2 };
  const known = {
    agent: "hint",
    source: "s",
    graceComputed: false,
    linked: true,
    rank: 0,
    hosts: [],
    runsSinceActed: 0,
  };
  return { ...registered(rules, T), ...known } as unknown as Row;
}

const heartbeats = fc.uniqueArray(
  fc.record(
    {
      livenessAt: fc.integer({ min: T, max: T + 24 * HOUR }),
      status: fc.constantFrom("ok", "working", "error", "waiting"),
      summary: fc.constantFrom("a", "b", "c"),
      error: fc.constantFrom("x", "y"),
      result: fc.constantFrom("acted", "noop"),
      host: fc.constantFrom("h1", "h2", "h3"),
      openTasks: fc.nat(9),
      countedBy: fc.constantFrom("sender", "server"),
    },
    { requiredKeys: ["livenessAt", "status", "openTasks", "countedBy"] },
  ),
  { maxLength: 10, selector: (one) => one.livenessAt },
);

/** Arrive in this order, all at one instant after them. */
function arrive(list: Heartbeat[]): Row {
  return list.reduce<Row>((row, one) => {
    const heard = {
      heartbeatId: one.heartbeatId,
      livenessAt: one.livenessAt,
      failing: one.status === "error",
    };
    return { ...row, ...hear(row, heard, RECEIVED_AT, true).changes, ...shown(row, one, one.livenessAt) };
  }, freshRow());
}

test("a replay in any order shows what arrival in order shows", () => {
  fc.assert(
    fc.property(heartbeats, fc.infiniteStream(fc.nat()), (list, keys) => {
      const sent = list.map((one, nth): Heartbeat => ({
        ...one,
        heartbeatId: `id-${nth}`,
        agent: "hint",
        sentAt: one.livenessAt,
        deliveredAt: RECEIVED_AT,
        receivedAt: RECEIVED_AT,
        rawStatus: one.status,
        staleTasks: 0,
        countsCapped: false,
      }));
      const inOrder = arrive(sent.toSorted((a, b) => a.livenessAt - b.livenessAt));
      const shuffled = arrive(
        sent
          .map((one) => ({ one, key: keys.next().value }))
          .sort((a, b) => a.key - b.key)
          .map(({ one }) => one),
      );
      // since when, and how many since, would take the history to know
      for (const row of [inOrder, shuffled]) Object.assign(row, { statusSince: 0, runsSinceActed: 0 });
      // flips differ with the order, the state they lead to does not
      for (const row of [inOrder, shuffled]) Object.assign(row, { healthSince: 0, reason: "" });
      expect(shuffled).toEqual(inOrder);
      const newest = sent.toSorted((a, b) => b.livenessAt - a.livenessAt)[0];
      expect(inOrder.summary).toBe(newest?.summary);
      expect(inOrder.openTasks).toBe(newest?.openTasks);
      expect(inOrder.lastActedAt).toBe(
        sent
          .filter((one) => one.result === "acted")
          .map((one) => one.livenessAt)
          .sort()
          .at(-1),
      );
    }),
  );
});
