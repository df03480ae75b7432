/** Rows of the liveness tests: an hourly agent registered at T, and what is heard of it. */
import {
  type Deadlines,
  type Heard,
  hear,
  type Liveness,
  type Move,
  registered,
} from "../../convex/heartbeat/model/liveness";
import type { Schedule } from "../../convex/heartbeat/model/validators";
import { every, HOUR, MINUTE, runId } from "./world";

/** Monday 2 March 2026, 08:00 UTC. */
export const T = Date.UTC(2026, 2, 2, 8);
export const GRACE = 6 * MINUTE;
export const RULES = { schedule: every(HOUR), graceMs: GRACE, misses: 2 };

export type Row = Liveness & Deadlines;

let made = 0;
export function report(livenessAt: number, rest: Partial<Heard> = {}): Heard {
  return { heartbeatId: `id-${String(++made).padStart(9, "0")}`, livenessAt, failing: false, ...rest };
}

export function run(phase: "start" | "finish", nth: number, rest: Partial<NonNullable<Heard["run"]>> = {}) {
  return { run: { runId: runId(nth), phase, ...rest } };
}

/** The row after a move, as the database would hold it: what is undefined is gone. */
export function after(liveness: Liveness, move: Move): Row {
  const row: Record<string, unknown> = { ...liveness, ...move.changes };
  for (const [key, value] of Object.entries(row)) if (value === undefined) delete row[key];
  return row as Row;
}

export function heardNow(liveness: Liveness, ...reports: Heard[]): Row {
  return reports.reduce<Row>((row, one) => after(row, hear(row, one, one.livenessAt, false)), liveness);
}

export function agent(
  rules: Partial<typeof RULES & { maxRunMs: number; failAfter: number; schedule: Schedule }> = {},
): Liveness {
  return registered({ ...RULES, ...rules }, T);
}
