import { query } from "../_generated/server";
import { authorize } from "../heartbeat/model/access";
import { exportRecords } from "../heartbeat/model/move";
import { exportArgs, exported } from "../heartbeat/model/moveValidators";
import { token } from "../heartbeat/model/validators";

/** All that is recorded, of one kind, a page at a time, as importRecords takes it. */
export default query({
  args: { token, request: exportArgs },
  returns: exported,
  handler: async (ctx, { token, request }) => {
    await authorize(ctx, token, ["admin"]);
    return await exportRecords(ctx, request);
  },
});
