import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { applySchedule } from "../heartbeat/model/schedules";
import * as shapes from "../heartbeat/model/validators";

/** Register the agents of a schedule, or say what that would change. */
export default mutation({
  args: { token: shapes.token, schedule: shapes.scheduleArgs },
  returns: shapes.applied,
  handler: async (ctx, { token, schedule }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await applySchedule(ctx, schedule);
  },
});
