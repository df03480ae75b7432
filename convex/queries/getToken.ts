import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { ownToken } from "../heartbeat/model/tokens";
import * as shapes from "../heartbeat/model/tokenValidators";
import { token } from "../heartbeat/model/validators";

/** What the token of the call is, and which others are older. */
export default query({
  args: { token, request: shapes.ownTokenArgs },
  returns: shapes.ownToken,
  handler: async (ctx, { token, request }) => {
    const asking = await authorize(ctx, token, ["send", "read"]);
    return await ownToken(ctx, asking, request);
  },
});
