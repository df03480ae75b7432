import { httpActionGeneric as httpAction, httpRouter } from "convex/server";
import { references } from "./references";

const http = httpRouter();

http.route({
  path: "/notes",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const id = await ctx.runMutation(references.addNote, { text: await request.text() });
    return new Response(id, {
      status: 201,
      headers: { "x-asked": new URL(request.url).searchParams.get("q") ?? "" },
    });
  }),
});

http.route({
  pathPrefix: "/files/",
  method: "GET",
  handler: httpAction(async (_ctx, request) => new Response(new URL(request.url).pathname)),
});

http.route({
  path: "/crash",
  method: "GET",
  handler: httpAction(async () => {
    throw new Error("broken on purpose");
  }),
});

export default http;
