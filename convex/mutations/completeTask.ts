import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { completeTask } from "../heartbeat/model/tasks";
import * as shapes from "../heartbeat/model/validators";

/** Mark a task done, where the tasks table is our minimal one. */
export default mutation({
  args: { token: shapes.token, request: shapes.taskArgs },
  returns: shapes.taskReference,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await completeTask(ctx, request);
  },
});
