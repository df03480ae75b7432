/** The first access token of a deployment; callable only with an admin or deploy key, which may do anything anyway. */
import { internalMutation } from "../_generated/server";
import { createToken } from "./model/tokens";
import { firstTokenArgs, storedToken } from "./model/tokenValidators";

/** Store a token's hash; the same again changes nothing. */
export const storeFirstToken = internalMutation({
  args: { request: firstTokenArgs },
  returns: storedToken,
  handler: async (ctx, { request }) => {
    const { fingerprint } = await createToken(ctx, request);
    return { fingerprint };
  },
});
