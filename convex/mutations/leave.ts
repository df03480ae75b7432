import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { leave, leaveArgs, left } from "../heartbeat/model/leave";
import { token } from "../heartbeat/model/validators";

/** Take a step of leaving this deployment: what the functions wrote into it goes again. */
export default mutation({
  args: { token, request: leaveArgs },
  returns: left,
  handler: async (ctx, { token, request }) => {
    const own = await authorizeMutation(ctx, token, ["admin"]);
    return await leave(ctx, own, request);
  },
});
