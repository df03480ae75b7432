import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { agentDashboard } from "../heartbeat/model/views";
import * as shapes from "../heartbeat/model/validators";

/** Every agent that is not retired, worst first. */
export default query({
  args: { token: shapes.token, request: shapes.pageArgs },
  returns: shapes.dashboard,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await agentDashboard(ctx, request);
  },
});
