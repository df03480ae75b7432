import { mutation } from "../_generated/server";
import { authorizeMutation } from "../model/access";
import { revokeToken } from "../model/tokens";
import * as shapes from "../model/tokenValidators";
import { token } from "../model/validators";

/** End a token. */
export default mutation({
  args: { token, request: shapes.fingerprintArgs },
  returns: shapes.revokedToken,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await revokeToken(ctx, request.fingerprint);
  },
});
