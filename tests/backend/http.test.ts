/** The HTTP API of a real backend process. */
import { request } from "node:http";
import { ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBackend, type Backend } from "./server.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.end());

async function raw(
  path: string,
  init: RequestInit = {},
): Promise<{ status: number; text: string; headers: Headers }> {
  const response = await fetch(backend.url + path, init);
  return { status: response.status, text: await response.text(), headers: response.headers };
}

function post(body: string, headers: Record<string, string> = {}): RequestInit {
  return { method: "POST", body, headers: { "content-type": "application/json", ...headers } };
}

describe("calls", () => {
  test("a whole number is written with a fraction, in every format", async () => {
    for (const format of ["json", "convex_encoded_json", "export_json"]) {
      const body = JSON.stringify({ path: "values:echo", args: { value: 2 }, format });
      expect((await raw("/api/query", post(body))).text).toBe('{"status":"success","value":2.0}');
    }
  });

  test.each([
    ["json", '"-1"', '"AQI="', '"NaN"'],
    ["convex_encoded_json", '{"$integer":"//////////8="}', '{"$bytes":"AQI="}', '{"$float":"AAAAAAAA+H8="}'],
    ["export_json", "-1", '"AQI="', '"NaN"'],
  ])("the format %s writes int64, bytes and NaN its way", async (format, int64, bytes, nan) => {
    const value = [{ $integer: "//////////8=" }, { $bytes: "AQI=" }, { $float: "AAAAAAAA+H8=" }];
    const body = JSON.stringify({ path: "values:echo", args: [{ value }], format });
    expect((await raw("/api/query", post(body))).text).toBe(
      `{"status":"success","value":[${int64},${bytes},${nan}]}`,
    );
  });

  test("a query can be asked by GET, any public function by /api/run and its path", async () => {
    const args = encodeURIComponent('{"value":"x"}');
    expect((await raw(`/api/query?path=values:echo&args=${args}&format=json`)).text).toContain('"value":"x"');
    expect((await raw("/api/run/values/echo", post('{"args":{"value":"y"}}'))).text).toContain('"value":"y"');
    expect((await raw("/api/run/values", post('{"args":{}}'))).text).toContain("MissingIdentifier");
  });

  test("a part of /api/run's path may be percent-encoded, and is refused when it cannot be decoded", async () => {
    const encoded = [..."values"].map((letter) => `%${letter.charCodeAt(0).toString(16)}`).join("");
    const answer = await raw(`/api/run/${encoded}/%65cho`, post('{"args":{"value":"y"}}'));
    expect(answer.text).toBe('{"status":"success","value":"y"}');
    const broken = await raw("/api/run/%E0%A4%A/echo", post('{"args":{}}'));
    expect([broken.status, JSON.parse(broken.text).code]).toEqual([400, "MissingIdentifier"]);
  });

  test("several queries can be asked at once", async () => {
    const queries = [1, 2].map((value) => ({ path: "values:echo", args: { value } }));
    const { text } = await raw("/api/query_batch", post(JSON.stringify({ queries })));
    expect(text).toBe('{"results":[{"status":"success","value":1.0},{"status":"success","value":2.0}]}');
  });

  test("several queries at once fail each for itself, in their order", async () => {
    const queries = ["no:where", "values:echo", "notes:add", "notes:wrongReturn"].map((path) => ({
      path,
      args: path === "values:echo" ? { value: 1 } : {},
    }));
    const { results } = JSON.parse((await raw("/api/query_batch", post(JSON.stringify({ queries })))).text);
    expect(results.map(({ status }: { status: string }) => status)).toEqual([
      ...["error", "success", "error", "error"],
    ]);
  });

  test("several queries at one timestamp see what was there, whatever is written meanwhile", async () => {
    const client = new ConvexHttpClient(backend.url);
    const list = makeFunctionReference<"query", Record<string, never>, unknown[]>("notes:list");
    const before = await client.consistentQuery(list, {});
    for (const text of ["later", "latest"]) await backend.call("mutation", "notes:add", { text });
    expect(await client.consistentQuery(list, {})).toEqual(before);
    expect((await new ConvexHttpClient(backend.url).consistentQuery(list, {})).length).toBe(
      before.length + 2,
    );
    expect((await client.query(list, {})).length).toBe(before.length + 2);
  });

  test("a query at a timestamp that is not kept says so; only so many are", async () => {
    const take = async (): Promise<string> => (await raw("/api/query_ts", { method: "POST" })).text;
    const ask = (ts: string): Promise<{ status: number; text: string }> =>
      raw("/api/query_at_ts", post(JSON.stringify({ path: "notes:list", args: {}, ...JSON.parse(ts) })));
    const first = await take();
    expect(JSON.parse(first).ts).toMatch(/^[A-Za-z0-9+/]{11}=$/);
    expect((await ask(first)).status).toBe(200);
    for (let number = 0; number < 20; number++) {
      await backend.call("mutation", "notes:add", { text: "another" });
      await take();
    }
    for (const ts of [first, '{"ts":"AAAAAAAAAAA="}']) {
      expect(JSON.parse((await ask(ts)).text).code).toBe("SnapshotTooOld");
    }
    expect((await ask(await take())).status).toBe(200);
  });
});

describe("failures of functions are answers", () => {
  test("of arguments that do not fit: Convex's sentence with path, value and validator", async () => {
    const answer = await backend.call("mutation", "notes:add", { text: 5 });
    expect(answer.status).toBe("error");
    expect(answer.errorMessage).toMatch(/^\[Request ID: [0-9a-f]{16}\] Server Error\n/);
    expect(answer.errorMessage).toContain(
      "ArgumentValidationError: Value does not match validator.\nPath: .text\nValue: 5.0\nValidator: v.string()",
    );
  });

  test("of a missing and of an extra field", async () => {
    expect((await backend.call("mutation", "notes:add", {})).errorMessage).toContain(
      "Object is missing the required field `text`. Consider wrapping the field validator in `v.optional(...)`",
    );
    expect((await backend.call("mutation", "notes:add", { text: "a", more: 1 })).errorMessage).toContain(
      'Object contains extra field `more` that is not in the validator.\n\nObject: {more: 1.0, text: "a"}\nValidator: v.object({',
    );
  });

  test("of an id of another table", async () => {
    const person = (await backend.call("mutation", "notes:addPerson", { name: "Ada" })).value as string;
    expect((await backend.call("mutation", "notes:remove", { id: person })).errorMessage).toContain(
      `Found ID "${person}" from table \`people\`, which does not match the table name in validator \`v.id("notes")\`.`,
    );
  });

  test("of a result, and of a document, that do not fit", async () => {
    expect((await backend.call("query", "notes:wrongReturn")).errorMessage).toContain(
      "ReturnsValidationError: ",
    );
    const id = (await backend.call("mutation", "notes:add", { text: "a" })).value;
    expect((await backend.call("mutation", "notes:change", { id, text: 7 })).errorMessage).toContain(
      'Failed to insert or update a document in table "notes" because it does not match the schema: Value does not match validator.\nPath: .text',
    );
  });

  test("carry a ConvexError's data, and what was thrown; nothing of the transaction stays", async () => {
    const before = (await backend.call("query", "notes:list")).value as unknown[];
    const refused = await backend.call("mutation", "notes:refuse");
    expect(refused.errorData).toEqual({ code: "refused", count: 3 });
    const crashed = await backend.call("mutation", "notes:crash");
    expect(crashed.errorMessage).toContain("Uncaught Error: broken on purpose");
    expect(crashed).not.toHaveProperty("errorData");
    expect((await backend.call("query", "notes:list")).value).toEqual(before);
  });

  test("show a stack to the admin only", async () => {
    const admin = { authorization: `Convex ${backend.adminKey}` };
    expect((await backend.call("mutation", "notes:crash")).errorMessage).not.toContain("    at ");
    expect((await backend.call("mutation", "notes:crash", {}, admin)).errorMessage).toContain("    at ");
  });

  test("of unknown, internal and wrongly called functions say so", async () => {
    for (const path of ["nope:nothing", "notes:addInternal"]) {
      expect((await backend.call("mutation", path)).errorMessage).toContain(
        `Could not find public function for '${path}'`,
      );
    }
    expect((await backend.call("query", "notes:add")).errorMessage).toContain(
      "Trying to execute notes:add as Query, but it is defined as Mutation.",
    );
  });
});

describe("the admin key", () => {
  test("opens internal functions and /api/function", async () => {
    const admin = { authorization: `Convex ${backend.adminKey}` };
    expect((await backend.call("function", "notes:addInternal", { text: "x" }, admin)).status).toBe(
      "success",
    );
    expect((await backend.call("function", "values:echo", { value: 1 }, admin)).value).toBe(1);
  });

  test("is needed for /api/function, and checked wherever it is given", async () => {
    expect((await backend.call("function", "values:echo", { value: 1 })).code).toBe("BadDeployKey");
    const wrong = await raw(
      "/api/query",
      post('{"path":"values:echo","args":{}}', { authorization: "Convex 1" }),
    );
    expect([wrong.status, JSON.parse(wrong.text).code]).toEqual([403, "BadDeployKey"]);
    const bearer = await raw(
      "/api/query",
      post('{"path":"values:echo","args":{}}', { authorization: "Bearer a.b.c" }),
    );
    expect([bearer.status, JSON.parse(bearer.text).code]).toEqual([401, "NoAuthProvider"]);
  });
});

describe("the transport", () => {
  test.each([
    ["no JSON", post("{"), 400, "BadJsonBody"],
    ["no path", post("{}"), 400, "BadJsonBody"],
    [
      "no JSON content type",
      { method: "POST", body: "{}", headers: { "content-type": "text/plain" } },
      400,
      "BadJsonBody",
    ],
    ["an unknown format", post('{"path":"values:echo","args":{},"format":"xml"}'), 400, "BadFormat"],
    [
      "a client without version",
      post('{"path":"values:echo"}', { "convex-client": "x" }),
      400,
      "InvalidVersion",
    ],
    ["a call without arguments", post('{"path":"values:echo"}'), 400, "BadJsonBody"],
    ["a path with a blank", post('{"path":"val ues:echo","args":{}}'), 400, "BadConvexFunctionIdentifier"],
    ["an export with a dash", post('{"path":"values:ec-ho","args":{}}'), 400, "BadConvexFunctionIdentifier"],
    [
      "a component's function",
      post('{"path":"values:echo","args":{},"componentPath":"child"}'),
      400,
      "ComponentsNotSupported",
    ],
    [
      "an unknown kind of authorization",
      post('{"path":"values:echo","args":{}}', { authorization: "Basic eDp5" }),
      401,
      "InvalidAuthHeader",
    ],
  ])("refuses %s with Convex's code", async (_name, init, status, code) => {
    const answer = await raw("/api/query", init);
    expect([answer.status, JSON.parse(answer.text).code]).toEqual([status, code]);
  });

  test.each([
    ["/api/query_batch", post('{"queries":[null]}'), "BadJsonBody"],
    ["/api/query_batch", post('{"queries":{}}'), "BadJsonBody"],
    ["/api/query_at_ts", post('{"path":"values:echo","args":{},"ts":5}'), "BadTimestamp"],
    ["/api/query?path=values:echo", {}, "BadQueryArgs"],
    ["/api/query?path=values:echo&args={", {}, "BadJsonBody"],
  ])("refuses what it cannot read: %s, %#", async (path, init, code) => {
    const answer = await raw(path, init);
    expect([answer.status, JSON.parse(answer.text).code]).toEqual([400, code]);
  });

  test.each([
    ["POST", "/api/deploy2/start_push", 403, "NotSupported", "takes no pushes"],
    ["GET", "/api/v1/get_canonical_urls", 403, "NotSupported", "takes no pushes"],
    ["GET", "/api/stream_function_logs?cursor=0", 403, "NotSupported", "stderr"],
    ["POST", "/api/update_environment_variables", 403, "NotSupported", "environment variables"],
    ["POST", "/api/storage/upload", 403, "NotSupported", "no file storage"],
    ["POST", "/api/nowhere", 404, "NotFound", "/api/nowhere"],
    ["PUT", "/api/query", 405, "MethodNotAllowed", "PUT"],
  ])("says what it does not do: %s %s", async (method, path, status, code, words) => {
    const answer = await raw(path, method === "GET" ? {} : { ...post("{}"), method });
    expect([answer.status, JSON.parse(answer.text)]).toEqual([
      status,
      { code, message: expect.stringContaining(words) },
    ]);
  });

  test("answers a page of another origin", async () => {
    const headers = {
      origin: "http://localhost:5173",
      "access-control-request-headers": "content-type,convex-client",
    };
    const answer = await raw("/api/query", { method: "OPTIONS", headers });
    expect(answer.headers.get("access-control-allow-origin")).toBe("http://localhost:5173");
    expect(answer.headers.get("access-control-allow-headers")).toBe("content-type,convex-client");
    expect(answer.headers.get("access-control-max-age")).toBe("86400");
  });

  test.each(["//", "/%", "/api/run/%E0%A4%A/x", "http://", "*"])("survives the address %s", async (path) => {
    await new Promise((resolve) => {
      const { port } = new URL(backend.url);
      request({ port, path, method: "POST" }, (response) => response.resume().once("end", resolve)).end("{}");
    });
    expect((await raw("/version")).status).toBe(200);
  });

  test("does not answer to a name that is not this machine's", async () => {
    const status = await new Promise((resolve) => {
      const { port } = new URL(backend.url);
      request({ port, path: "/version", headers: { host: "evil.example" } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      }).end();
    });
    expect(status).toBe(403);
  });

  test("tells its name and version", async () => {
    expect((await raw("/instance_name")).text).toBe("local");
    expect((await raw("/version")).text).toMatch(/^\d+\.\d+\.\d+$/);
  });
});

describe("HTTP actions", () => {
  test.each(["site", "api"])("answer on the %s port", async (port) => {
    const base = port === "site" ? backend.siteUrl : `${backend.url}/http`;
    const response = await fetch(`${base}/notes?q=1`, { method: "POST", body: "from http" });
    expect([response.status, response.headers.get("x-asked")]).toEqual([201, "1"]);
    expect(await response.text()).toMatch(/^[0-9a-z]{32}$/);
    expect(await (await fetch(`${base}/files/a/b`)).text()).toBe("/files/a/b");
  });

  test.each(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])(
    "get every byte and header of a %s, and give back theirs",
    async (method) => {
      const body = Uint8Array.from({ length: 256 }, (_, byte) => byte);
      const response = await fetch(`${backend.siteUrl}/mirror`, {
        method,
        body,
        headers: { "x-given": "é" },
      });
      expect([response.status, response.headers.get("x-method")]).toEqual([207, method]);
      expect(response.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
      expect(response.headers.get("x-given")).toBe("é");
      expect(new Uint8Array(await response.arrayBuffer())).toEqual(body.reverse());
    },
  );

  test("answer HEAD as GET without its body, may have none, and pass the longest prefix", async () => {
    const head = await fetch(`${backend.siteUrl}/files/a`, { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
    expect((await fetch(`${backend.siteUrl}/empty`)).status).toBe(204);
    expect((await fetch(`${backend.siteUrl}/files/a%20b?c=d`)).status).toBe(200);
    expect((await fetch(`${backend.siteUrl}/files`)).status).toBe(404);
    expect((await fetch(`${backend.siteUrl}/notes`)).status).toBe(404);
  });

  test("do not fail because of a token that nobody here can check", async () => {
    const response = await fetch(`${backend.siteUrl}/files/a`, {
      headers: { authorization: "Bearer x.y.z" },
    });
    expect(response.status).toBe(200);
  });

  test("hand a ConvexError's data on, and write nothing then", async () => {
    const response = await fetch(`${backend.siteUrl}/refuse`);
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({ data: { name: "refused over HTTP" } });
    expect((await backend.call("query", "runtime:count", { name: "refused over HTTP" })).value).toBe(0);
  });

  test("that do not exist are 404, that throw are 500", async () => {
    expect((await fetch(`${backend.siteUrl}/nowhere`)).status).toBe(404);
    const crashed = await fetch(`${backend.siteUrl}/crash`);
    expect(crashed.status).toBe(500);
    expect(await crashed.json()).toMatchObject({ trace: "Uncaught Error: broken on purpose" });
  });
});
