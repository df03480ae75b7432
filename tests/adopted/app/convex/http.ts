import { httpRouter } from "convex/server";
import { internal } from "./_generated/api";
import { httpAction } from "./_generated/server";

const http = httpRouter();

http.route({
  path: "/digest",
  method: "GET",
  handler: httpAction(async (ctx) => {
    const digest = await ctx.runQuery(internal.digests.newest);
    return Response.json({ unfinished: digest?.unfinished ?? null });
  }),
});

export default http;
