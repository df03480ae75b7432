import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { addTask } from "../heartbeat/model/tasks";
import * as shapes from "../heartbeat/model/validators";

/** Add a task, where the tasks table is our minimal one. */
export default mutation({
  args: { token: shapes.token, request: shapes.newTaskArgs },
  returns: shapes.taskReference,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await addTask(ctx, request);
  },
});
