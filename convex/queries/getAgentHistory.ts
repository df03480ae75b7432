import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { history } from "../model/heartbeatValidators";
import * as shapes from "../model/validators";
import { agentHistory } from "../model/views";

/** The heartbeats of one agent, newest first. */
export default query({
  args: { token: shapes.token, request: shapes.historyArgs },
  returns: history,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await agentHistory(ctx, request);
  },
});
