import { mutation } from "../_generated/server";
import { authorizeMutation } from "../model/access";
import { addTask } from "../model/tasks";
import * as shapes from "../model/validators";

/** Add a task, where the tasks table is our minimal one. */
export default mutation({
  args: { token: shapes.token, request: shapes.newTaskArgs },
  returns: shapes.taskReference,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await addTask(ctx, request);
  },
});
