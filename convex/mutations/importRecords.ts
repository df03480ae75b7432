import { mutation } from "../_generated/server";
import { authorizeMutation } from "../heartbeat/model/access";
import { importRecords } from "../heartbeat/model/move";
import { importArgs, imported } from "../heartbeat/model/moveValidators";
import { token } from "../heartbeat/model/validators";

/** Take in what exportRecords of another deployment answered; what is repeated is known. */
export default mutation({
  args: { token, request: importArgs },
  returns: imported,
  handler: async (ctx, { token, request }) => {
    await authorizeMutation(ctx, token, ["admin"]);
    return await importRecords(ctx, request);
  },
});
