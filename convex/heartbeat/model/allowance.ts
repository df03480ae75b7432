/**
 * How many heartbeats an agent may send: a token bucket, so that one runaway loop cannot fill the history. Pure; the clock is an argument.
 *
 * The bucket is kept as credit in milliseconds of refilling, so that it is exact in whole numbers. It stands on the agent's row, which is
 * written with every heartbeat anyway.
 */
import type { Allowance } from "./validators";

/** One heartbeat a second (ms) for as long as it likes: sixty times what the densest schedule asks for. */
const REFILL_MS = 1_000;

/** Heartbeats at once: the 10,000 that a host keeps for one agent at most, delivered after an outage, and some room. */
const CAPACITY = 12_000;

const FULL_MS = CAPACITY * REFILL_MS;

/** What is left after one more heartbeat, or in how many ms there will be room for it; then nothing is to be stored. */
type Taken = { left: Allowance } | { retryAfterMs: number };

/**
 * Take one heartbeat's worth at `now`; no allowance is a full one.
 *
 * The time since the last is taken whichever way the clock went. So a clock that was set back never locks an agent out: a refusal stores
 * nothing, and credit that only came back once the clock had caught up would be away for as long as it was wrong.
 */
export function takeOne(known: Allowance | undefined, now: number): Taken {
  if (known === undefined) return { left: { creditMs: FULL_MS - REFILL_MS, at: now } };
  const creditMs = Math.min(FULL_MS, known.creditMs + Math.abs(now - known.at));
  if (creditMs >= REFILL_MS) return { left: { creditMs: creditMs - REFILL_MS, at: now } };
  return { retryAfterMs: known.at + REFILL_MS - known.creditMs - now };
}
