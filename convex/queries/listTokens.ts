import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { listTokens } from "../heartbeat/model/tokens";
import { tokenList } from "../heartbeat/model/tokenValidators";
import * as shapes from "../heartbeat/model/validators";

/** All access tokens; never a hash. */
export default query({
  args: { token: shapes.token, request: shapes.emptyArgs },
  returns: tokenList,
  handler: async (ctx, { token }) => {
    await authorize(ctx, token, ["read"]);
    return await listTokens(ctx);
  },
});
