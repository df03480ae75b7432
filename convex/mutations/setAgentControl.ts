import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { setAgentControl } from "../heartbeat/model/agents";
import * as shapes from "../heartbeat/model/validators";

/** Pause, retire or resume an agent. */
export default mutation({
  args: { token: shapes.token, request: shapes.controlArgs },
  returns: shapes.controlled,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await setAgentControl(ctx, request);
  },
});
