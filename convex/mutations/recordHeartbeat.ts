import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { recordHeartbeat } from "../heartbeat/model/heartbeats";
import { heartbeatArgs, recorded } from "../heartbeat/model/heartbeatValidators";
import { token } from "../heartbeat/model/validators";

/** Record a heartbeat; a send token does so for its own agents. */
export default mutation({
  args: { token, heartbeat: heartbeatArgs },
  returns: recorded,
  handler: async (ctx, { token, heartbeat }) => {
    await authorizeMutation(ctx, token, ["send"], heartbeat.agent);
    return await recordHeartbeat(ctx, heartbeat);
  },
});
