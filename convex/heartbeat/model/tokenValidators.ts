/** The shapes of access tokens: stored, made, shown. See validators.ts. */
import { v, type Infer } from "convex/values";
import { optionalNumber, optionalString } from "./validators";

/** What a token is for; see access.ts. */
export const scope = v.union(v.literal("send"), v.literal("read"), v.literal("admin"));
export type Scope = Infer<typeof scope>;

// --- arguments ---

/** A token to be made; `tokenHash` is the SHA-256 of its text, in lower-case hex. */
export const tokenArgs = v.object({
  tokenHash: v.string(),
  name: v.string(),
  scope,
  agents: v.optional(v.array(v.string())),
  hostName: optionalString,
});
export type TokenArgs = Infer<typeof tokenArgs>;
export const firstTokenArgs = tokenArgs.pick("tokenHash", "name", "scope");
export const fingerprintArgs = v.object({ fingerprint: v.string() });
/** What the bearer of a token asks about it: which of `fingerprints` name tokens that were made before it. */
export const ownTokenArgs = v.object({ fingerprints: v.optional(v.array(v.string())) });
export type OwnTokenArgs = Infer<typeof ownTokenArgs>;

// --- answers ---

/** A token as people see it: never its hash. `lastUsedAt`: the day (its start, UTC) of the last mutation called with it. */
const shownToken = v.object({
  fingerprint: v.string(),
  name: v.string(),
  scope,
  agents: v.optional(v.array(v.string())),
  hostName: optionalString,
  createdAt: v.number(),
  lastUsedAt: optionalNumber,
});
/** All access tokens, oldest first. */
export const tokenList = v.object({ tokens: v.array(shownToken.extend({ revokedAt: optionalNumber })) });
/** The token that asked, and of the fingerprints that it named those of tokens made before it. */
export const ownToken = shownToken.extend({ older: v.array(v.string()) });
export type OwnToken = Infer<typeof ownToken>;
/** A token that was made; people name it by its fingerprint. */
export const createdToken = v.object({ fingerprint: v.string(), name: v.string(), scope });
export type CreatedToken = Infer<typeof createdToken>;
export const storedToken = v.object({ fingerprint: v.string() });
export const revokedToken = v.object({ fingerprint: v.string(), revokedAt: v.number() });
