import { mutation } from "../_generated/server";
import { authorize } from "../model/access";
import { revokeToken } from "../model/tokens";
import * as shapes from "../model/validators";

/** End a token. */
export default mutation({
  args: { token: shapes.token, request: shapes.fingerprintArgs },
  returns: shapes.revokedToken,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["admin"]);
    return await revokeToken(ctx, request.fingerprint);
  },
});
