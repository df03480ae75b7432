import { mutation } from "../_generated/server";
import { authorizeMutation } from "../model/access";
import { createToken } from "../model/tokens";
import * as shapes from "../model/tokenValidators";
import { token } from "../model/validators";

/** Store the hash of a token that the caller made. */
export default mutation({
  args: { token, request: shapes.tokenArgs },
  returns: shapes.createdToken,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await createToken(ctx, request);
  },
});
