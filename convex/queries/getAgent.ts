import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { agentDetail } from "../model/views";
import * as shapes from "../model/validators";

/** One agent with its next expected instants and its latest flips. */
export default query({
  args: { token: shapes.token, request: shapes.agentAtArgs },
  returns: shapes.agentDetail,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await agentDetail(ctx, request);
  },
});
