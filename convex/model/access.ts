/** Who may call what. Every public function asks here before it reads anything else, and fails closed. */
import type { QueryCtx } from "../_generated/server";
import { refusal } from "./refusal";
import type { Scope } from "./validators";

/** Characters; the CLI's tokens have 43. Longer ones are not even hashed. */
const MAX_TOKEN_CHARS = 200;

/**
 * Let the call pass if the token's scope is one of `scopes` (`admin` may do everything) and, for a send token with a list of agents,
 * `agent` is on it. Anything else is the same `unauthorized`, not saying what was wrong.
 *
 * The token's SHA-256 is looked up by its index: the database compares hashes, never the token.
 */
export async function authorize(
  ctx: QueryCtx,
  token: string | undefined,
  scopes: readonly Scope[],
  agent?: string,
): Promise<void> {
  if (token === undefined || token === "" || token.length > MAX_TOKEN_CHARS) throw unauthorized();
  const tokenHash = await sha256(token);
  const found = await ctx.db
    .query("heartbeatTokens")
    .withIndex("by_tokenHash", (q) => q.eq("tokenHash", tokenHash))
    .first();
  if (found === null || found.revokedAt !== undefined) throw unauthorized();
  if (found.scope !== "admin" && !scopes.includes(found.scope)) throw unauthorized();
  if (found.agents !== undefined && agent !== undefined && !found.agents.includes(agent))
    throw unauthorized();
}

function unauthorized() {
  return refusal("unauthorized", "No valid token for this call.");
}

/** SHA-256 of the UTF-8 text, as lower-case hex. */
async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
