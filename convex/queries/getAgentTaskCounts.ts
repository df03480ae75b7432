import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { agentTaskCounts } from "../model/tasks";
import * as shapes from "../model/validators";

/** Open and stale tasks of one agent, seen from the instant `at`. */
export default query({
  args: { token: shapes.token, request: shapes.agentAtArgs },
  returns: shapes.taskCounts,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["send", "read"], request.agent);
    return await agentTaskCounts(ctx, request);
  },
});
