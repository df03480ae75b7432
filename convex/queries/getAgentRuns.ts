import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { agentRuns } from "../model/heartbeatValidators";
import * as list from "../model/runList";
import * as shapes from "../model/validators";

/** The runs of one agent, start and finish put together, the one that began last first. */
export default query({
  args: { token: shapes.token, request: shapes.historyArgs },
  returns: agentRuns,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await list.agentRuns(ctx, request);
  },
});
