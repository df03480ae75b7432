import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { agentDetail } from "../heartbeat/model/views";
import * as shapes from "../heartbeat/model/validators";

/** One agent with its next expected instants and its latest flips. */
export default query({
  args: { token: shapes.token, request: shapes.agentAtArgs },
  returns: shapes.agentDetail,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await agentDetail(ctx, request);
  },
});
