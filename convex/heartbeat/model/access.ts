/** Who may call what. Every public function asks here before it reads anything else, and fails closed. */
import type { Doc } from "../../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import { refusal } from "./refusal";
import type { Scope } from "./tokenValidators";

/** Characters; the CLI's tokens have 43. Longer ones are not even hashed. */
const MAX_TOKEN_CHARS = 200;

const DAY_MS = 24 * 60 * 60_000;

/** A valid token, as it is stored. */
export type Token = Doc<"heartbeatTokens">;

/**
 * Let a query pass if the token's scope is one of `scopes` (`admin` may do everything) and, for a send token with a list of agents,
 * `agent` is on it. Anything else is the same `unauthorized`, not saying what was wrong.
 *
 * The token's SHA-256 is looked up by its index: the database compares hashes, never the token.
 */
export async function authorize(
  ctx: QueryCtx,
  token: string | undefined,
  scopes: readonly Scope[],
  agent?: string,
): Promise<Token> {
  if (token === undefined || token === "" || token.length > MAX_TOKEN_CHARS) throw unauthorized();
  const tokenHash = await sha256(token);
  const found = await ctx.db
    .query("heartbeatTokens")
    .withIndex("by_tokenHash", (q) => q.eq("tokenHash", tokenHash))
    .first();
  if (found === null || found.revokedAt !== undefined) throw unauthorized();
  if (found.scope !== "admin" && !scopes.includes(found.scope)) throw unauthorized();
  if (agent !== undefined) requireAgent(found, agent);
  return found;
}

/**
 * The same for a mutation, which also keeps the day on which the token was last used: one more document written on the first call of a
 * day (UTC). A call that is refused afterwards leaves no trace of it, as of anything.
 */
export async function authorizeMutation(
  ctx: MutationCtx,
  token: string | undefined,
  scopes: readonly Scope[],
  agent?: string,
): Promise<Token> {
  const found = await authorize(ctx, token, scopes, agent);
  const now = Date.now();
  const lastUsedAt = now - (now % DAY_MS);
  if (found.lastUsedAt !== lastUsedAt) await ctx.db.patch("heartbeatTokens", found._id, { lastUsedAt });
  return found;
}

/** Refuse, `unauthorized`, what is about an agent that the token's list does not name; a token without a list is for all. */
export function requireAgent({ agents }: Token, agent: string): void {
  if (agents !== undefined && !agents.includes(agent)) throw unauthorized();
}

function unauthorized() {
  return refusal("unauthorized", "No valid token for this call.");
}

/** SHA-256 of the UTF-8 text, as lower-case hex. */
async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
