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

const mirror = httpAction(async (_ctx, request) => {
  const headers = new Headers({ "content-type": "application/octet-stream", "x-method": request.method });
  for (const cookie of ["a=1", "b=2"]) headers.append("set-cookie", cookie);
  headers.set("x-given", request.headers.get("x-given") ?? "");
  const bytes = new Uint8Array(await request.arrayBuffer());
  return new Response(bytes.reverse(), { status: 207, headers });
});
for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const) {
  http.route({ path: "/mirror", method, handler: mirror });
}

http.route({
  path: "/refuse",
  method: "GET",
  handler: httpAction(async (ctx) => {
    await ctx.runMutation(references.inner, { name: "refused over HTTP", fail: true });
    return new Response();
  }),
});

http.route({
  path: "/empty",
  method: "GET",
  handler: httpAction(async () => new Response(null, { status: 204 })),
});

export default http;
