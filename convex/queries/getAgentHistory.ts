import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { history } from "../heartbeat/model/heartbeatValidators";
import * as shapes from "../heartbeat/model/validators";
import { agentHistory } from "../heartbeat/model/views";

/** The heartbeats of one agent, newest first. */
export default query({
  args: { token: shapes.token, request: shapes.historyArgs },
  returns: history,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await agentHistory(ctx, request);
  },
});
