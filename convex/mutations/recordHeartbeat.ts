import { mutation } from "../_generated/server";
import { authorize } from "../model/access";
import { recordHeartbeat } from "../model/heartbeats";
import * as shapes from "../model/validators";

/** Record a heartbeat; a send token does so for its own agents. */
export default mutation({
  args: { token: shapes.token, heartbeat: shapes.heartbeatArgs },
  returns: shapes.recorded,
  handler: async (ctx, { token, heartbeat }) => {
    await authorize(ctx, token, ["send"], heartbeat.agent);
    return await recordHeartbeat(ctx, heartbeat);
  },
});
