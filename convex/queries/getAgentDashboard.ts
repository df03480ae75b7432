import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { agentDashboard } from "../model/views";
import * as shapes from "../model/validators";

/** Every agent that is not retired, worst first. */
export default query({
  args: { token: shapes.token, request: shapes.pageArgs },
  returns: shapes.dashboard,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await agentDashboard(ctx, request);
  },
});
