/** Making, showing and revoking access tokens. The token itself never comes here, only its SHA-256. */
import type { MutationCtx, QueryCtx } from "../../_generated/server";
import type { Token } from "./access";
import { agentName, filledText, quote, TEXT_LIMITS, text, tokenHash } from "./checks";
import { invalid, refusal } from "./refusal";
import type { CreatedToken, OwnToken, OwnTokenArgs, TokenArgs } from "./tokenValidators";

/** Hex digits of the hash by which people name a token. */
const FINGERPRINT_CHARS = 12;

/** Tokens kept, revoked ones included: a token per agent of a big fleet, and few enough for one answer. */
const MAX_TOKENS = 1_000;

/** Agents of one token. */
const MAX_TOKEN_AGENTS = 200;

/** Fingerprints that one call asks about; a host has had fewer tokens. */
const MAX_FINGERPRINTS = 100;

/** Store a token's hash. The same again is answered alike; the same hash for something else is `conflict`. */
export async function createToken(ctx: MutationCtx, args: TokenArgs): Promise<CreatedToken> {
  const checked = check(args);
  const fingerprint = checked.tokenHash.slice(0, FINGERPRINT_CHARS);
  const known = await byFingerprint(ctx, fingerprint);
  if (known !== null) {
    if (!isSame(known, checked)) {
      throw refusal("conflict", `The token ${fingerprint} exists already, for something else or revoked.`);
    }
  } else {
    const others = await ctx.db.query("heartbeatTokens").take(MAX_TOKENS);
    if (others.length >= MAX_TOKENS) {
      throw invalid("tokenHash", `${MAX_TOKENS} tokens are kept at most; revoked ones go after a year`);
    }
    await ctx.db.insert("heartbeatTokens", { ...checked, fingerprint, createdAt: Date.now() });
  }
  return { fingerprint, name: checked.name, scope: checked.scope };
}

function check(args: TokenArgs): TokenArgs {
  const checked: TokenArgs = {
    tokenHash: tokenHash(args.tokenHash),
    name: filledText(args.name, "name", TEXT_LIMITS.tokenName),
    scope: args.scope,
  };
  if (args.hostName !== undefined) checked.hostName = text(args.hostName, "hostName", TEXT_LIMITS.host);
  if (args.agents !== undefined) {
    if (args.scope !== "send")
      throw invalid("agents", `a ${args.scope} token is for all agents, only a send token takes a list`);
    if (args.agents.length === 0) throw invalid("agents", "empty; leave it out for a token for all agents");
    if (args.agents.length > MAX_TOKEN_AGENTS) {
      throw invalid("agents", `${args.agents.length} agents, at most ${MAX_TOKEN_AGENTS} are taken`);
    }
    checked.agents = [...new Set(args.agents.map((name) => agentName(name, "agents")))].sort();
  }
  return checked;
}

function isSame(known: Token, args: TokenArgs): boolean {
  return (
    known.revokedAt === undefined &&
    known.tokenHash === args.tokenHash &&
    known.name === args.name &&
    known.scope === args.scope &&
    known.hostName === args.hostName &&
    String(known.agents) === String(args.agents)
  );
}

/** All tokens, oldest first; never a hash. */
export async function listTokens(ctx: QueryCtx) {
  const tokens = await ctx.db.query("heartbeatTokens").take(MAX_TOKENS);
  return { tokens: tokens.map((token) => ({ ...shown(token), revokedAt: token.revokedAt })) };
}

/**
 * The token that asks, and of the fingerprints that it names those of tokens made before it, revoked ones too: what was kept on a host for
 * such a token may be sent with this one.
 */
export async function ownToken(
  ctx: QueryCtx,
  token: Token,
  { fingerprints = [] }: OwnTokenArgs,
): Promise<OwnToken> {
  if (fingerprints.length > MAX_FINGERPRINTS) {
    throw invalid("fingerprints", `${fingerprints.length}, at most ${MAX_FINGERPRINTS} are taken`);
  }
  const older: string[] = [];
  for (const fingerprint of new Set(fingerprints)) {
    const known = await byFingerprint(ctx, fingerprint);
    if (known !== null && known.createdAt < token.createdAt) older.push(fingerprint);
  }
  return { ...shown(token), older };
}

function shown({ fingerprint, name, scope, agents, hostName, createdAt, lastUsedAt }: Token) {
  return { fingerprint, name, scope, agents, hostName, createdAt, lastUsedAt };
}

/** End a token, from the next call on. Revoking it again answers when it was revoked. */
export async function revokeToken(ctx: MutationCtx, fingerprint: string) {
  const known = await byFingerprint(ctx, fingerprint);
  if (known === null) throw invalid("fingerprint", `there is no token ${quote(fingerprint)}`);
  if (known.revokedAt !== undefined) return { fingerprint, revokedAt: known.revokedAt };
  const revokedAt = Date.now();
  await ctx.db.patch("heartbeatTokens", known._id, { revokedAt });
  return { fingerprint, revokedAt };
}

async function byFingerprint(ctx: QueryCtx, fingerprint: string) {
  return await ctx.db
    .query("heartbeatTokens")
    .withIndex("by_fingerprint", (q) => q.eq("fingerprint", fingerprint))
    .first();
}
