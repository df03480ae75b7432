import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { recordHeartbeats } from "../heartbeat/model/batch";
import { batchArgs, batchRecorded } from "../heartbeat/model/heartbeatValidators";
import { token } from "../heartbeat/model/validators";

/** Record up to a hundred heartbeats, each with a result of its own; a send token does so for its own agents. */
export default mutation({
  args: { token, batch: batchArgs },
  returns: batchRecorded,
  handler: async (ctx, { token, batch }) => {
    const sender = await authorizeMutation(ctx, token, ["send"]);
    return await recordHeartbeats(ctx, batch, sender);
  },
});
