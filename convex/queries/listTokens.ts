import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { listTokens } from "../model/tokens";
import { tokenList } from "../model/tokenValidators";
import * as shapes from "../model/validators";

/** All access tokens; never a hash. */
export default query({
  args: { token: shapes.token, request: shapes.emptyArgs },
  returns: tokenList,
  handler: async (ctx, { token }) => {
    await authorize(ctx, token, ["read"]);
    return await listTokens(ctx);
  },
});
