import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { monitorStatus } from "../heartbeat/model/monitor";
import * as shapes from "../heartbeat/model/validators";

/** The contract's version and the sweep's last run; small, for it changes each minute. */
export default query({
  args: { token: shapes.token, request: shapes.emptyArgs },
  returns: shapes.monitorStatus,
  handler: async (ctx, { token }) => {
    await authorize(ctx, token, ["send", "read"]);
    return await monitorStatus(ctx);
  },
});
