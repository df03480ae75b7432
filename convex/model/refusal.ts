/** How a function says no: one ConvexError with a code, since the text of every other error is redacted in production. */
import { ConvexError } from "convex/values";

/**
 * - `unauthorized`: no token, or not one for this call; carries nothing else
 * - `invalid`: a value is outside its limits; `field` names it
 * - `unknown_agent`: no schedule registered an agent of this name
 * - `conflict`: the id is taken by something else
 */
type RefusalCode = "unauthorized" | "invalid" | "unknown_agent" | "conflict";

/** The error to throw; `message` is one sentence with the value, and what to do where that is not plain. */
export function refusal(code: RefusalCode, message: string, more: Record<string, string> = {}) {
  return new ConvexError({ code, message, ...more });
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
