import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { agentRuns } from "../heartbeat/model/heartbeatValidators";
import * as list from "../heartbeat/model/runList";
import * as shapes from "../heartbeat/model/validators";

/** The runs of one agent, start and finish put together, the one that began last first. */
export default query({
  args: { token: shapes.token, request: shapes.historyArgs },
  returns: agentRuns,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await list.agentRuns(ctx, request);
  },
});
