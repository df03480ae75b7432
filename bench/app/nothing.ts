/** The yardstick app: a mutation that does nothing, so that what is left is the protocol, the engine and one commit. */
import { mutationGeneric } from "convex/server";
import { v } from "convex/values";

export default mutationGeneric({ args: {}, returns: v.null(), handler: () => null });
