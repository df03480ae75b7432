import { mutation } from "../_generated/server";
import { authorizeMutation } from "../model/access";
import { setAgentControl } from "../model/agents";
import * as shapes from "../model/validators";

/** Pause, retire or resume an agent. */
export default mutation({
  args: { token: shapes.token, request: shapes.controlArgs },
  returns: shapes.controlled,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await setAgentControl(ctx, request);
  },
});
