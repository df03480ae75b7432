/**
 * Lets another language ask convex/heartbeat/model/cron.ts: one JSON request a line on stdin, one JSON answer a line on stdout.
 *
 *   {"samples": count, "seed"}         -> random expressions
 *   {"timeZone", "from", "to"}         -> {"offset", "changes": [[at, offset], ...]}: by how much (ms) the wall clock is
 *                                         ahead of UTC at `from`, and after each change before `to`, as Node knows it
 *   {"timeZone", "expression", "at"}   -> {"next", "prev"}: the fires around an instant, or null
 */

import { createInterface } from "node:readline";
import { nextFire, parseCron, prevFire } from "../../convex/heartbeat/model/cron.ts";
import { clockChanges, wallOffset } from "./cron.oracle.ts";
import { randomExpression, seeded } from "./cron.samples.ts";

type Request =
  | { samples: number; seed: number }
  | { timeZone: string; from: number; to: number }
  | { timeZone: string; expression: string; at: number };

function answer(request: Request): unknown {
  if ("samples" in request) {
    const random = seeded(request.seed);
    return Array.from({ length: request.samples }, () => randomExpression(random));
  }
  const { timeZone } = request;
  if ("from" in request) {
    const changes = clockChanges(timeZone, request.from, request.to);
    return {
      offset: wallOffset(timeZone, request.from),
      changes: changes.map((at) => [at, wallOffset(timeZone, at)]),
    };
  }
  const cron = parseCron(request.expression);
  return { next: nextFire(cron, timeZone, request.at), prev: prevFire(cron, timeZone, request.at) };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(answer(JSON.parse(line) as Request)));
}
