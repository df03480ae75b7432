import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { createToken } from "../heartbeat/model/tokens";
import * as shapes from "../heartbeat/model/tokenValidators";
import { token } from "../heartbeat/model/validators";

/** Store the hash of a token that the caller made. */
export default mutation({
  args: { token, request: shapes.tokenArgs },
  returns: shapes.createdToken,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await createToken(ctx, request);
  },
});
