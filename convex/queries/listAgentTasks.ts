import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { listTasks } from "../heartbeat/model/tasks";
import * as shapes from "../heartbeat/model/validators";

/** Each task of one agent: whether it counted, and why. */
export default query({
  args: { token: shapes.token, request: shapes.taskListArgs },
  returns: shapes.taskList,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await listTasks(ctx, request);
  },
});
