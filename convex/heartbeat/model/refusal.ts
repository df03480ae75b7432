/** How a function says no: one ConvexError with a code, since the text of every other error is redacted in production. */
import { ConvexError } from "convex/values";
import type { RefusalData } from "./validators";

/**
 * A refusal of ours, as a class of its own so that it is told from a ConvexError that a team's fleet.ts throws. Its codes:
 *
 * - `unauthorized`: no token, or not one for this call; carries nothing else
 * - `invalid`: a value is outside its limits; `field` names it, `problem` says what is wrong with it
 * - `unknown_agent`: no schedule registered an agent of this name
 * - `conflict`: the id is taken by something else
 * - `slow_down`: the agent sent more than it may; `retryAfterMs` from now there is room for one more
 */
export class Refusal extends ConvexError<RefusalData> {}

/** The error to throw; `message` is one sentence with the value, and what to do where that is not plain. */
export function refusal(
  code: RefusalData["code"],
  message: string,
  more: Omit<RefusalData, "code" | "message"> = {},
) {
  return new Refusal({ code, message, ...more });
}

/** `invalid`, naming the field; `problem` is the message without it, for callers that say the field in words of their own. */
export function invalid(field: string, problem: string) {
  return refusal("invalid", `${field}: ${problem}`, { field, problem });
}

/** The refusal of a name that no schedule registered. */
export function unknownAgent(agent: string) {
  return refusal(
    "unknown_agent",
    `No agent ${JSON.stringify(agent)} is registered; \`heartbeat apply\` registers it.`,
  );
}

/** The refusal of a heartbeat past what its agent may send. */
export function slowDown(agent: string, retryAfterMs: number) {
  return refusal(
    "slow_down",
    `Agent ${agent} sends more heartbeats than are taken; the next one is taken in ${Math.ceil(retryAfterMs / 1_000)} s.`,
    { retryAfterMs },
  );
}
