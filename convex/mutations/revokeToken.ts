import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { revokeToken } from "../heartbeat/model/tokens";
import * as shapes from "../heartbeat/model/tokenValidators";
import { token } from "../heartbeat/model/validators";

/** End a token. */
export default mutation({
  args: { token, request: shapes.fingerprintArgs },
  returns: shapes.revokedToken,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await revokeToken(ctx, request.fingerprint);
  },
});
