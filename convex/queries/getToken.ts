import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { ownToken } from "../model/tokens";
import * as shapes from "../model/tokenValidators";
import { token } from "../model/validators";

/** What the token of the call is, and which others are older. */
export default query({
  args: { token, request: shapes.ownTokenArgs },
  returns: shapes.ownToken,
  handler: async (ctx, { token, request }) => {
    const asking = await authorize(ctx, token, ["send", "read"]);
    return await ownToken(ctx, asking, request);
  },
});
