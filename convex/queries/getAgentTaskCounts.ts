import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { agentTaskCounts } from "../heartbeat/model/tasks";
import * as shapes from "../heartbeat/model/validators";

/** Open and stale tasks of one agent, seen from the instant `at`. */
export default query({
  args: { token: shapes.token, request: shapes.agentAtArgs },
  returns: shapes.taskCounts,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["send", "read"], request.agent);
    return await agentTaskCounts(ctx, request);
  },
});
