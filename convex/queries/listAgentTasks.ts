import { query } from "../_generated/server";
import { authorize } from "../model/access";
import { listTasks } from "../model/tasks";
import * as shapes from "../model/validators";

/** Each task of one agent: whether it counted, and why. */
export default query({
  args: { token: shapes.token, request: shapes.taskListArgs },
  returns: shapes.taskList,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["read"]);
    return await listTasks(ctx, request);
  },
});
