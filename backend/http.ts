/**
 * Convex's HTTP API (facts: crates/local_backend/src/{router,public_api}.rs): routes, bodies, formats, error shapes.
 *
 * Two kinds of failure: a function's own is 200 with `status: "error"`; the transport's is a 4xx/5xx `{code, message}`.
 */
import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { callerOf, checkHost, HttpFailure, urlOf } from "./access.ts";
import { callFunction, type Caller } from "./calls.ts";
import { readTs, writeTs } from "./clock.ts";
import { formatNamed, writeValue, type Format } from "./formats.ts";
import type { Host } from "./host.ts";
import type { FunctionKind, Outcome, RequestInfo } from "./messages.ts";
import { answerSite } from "./site.ts";
import type { Json, JsonObject } from "./values.ts";
import { VERSION } from "./version.ts";

/** Largest body of a call: Convex's cap on arguments, and room for the rest. */
const MAX_BODY_BYTES = 16 * 1024 * 1024 + 2000;
const CORS_MAX_AGE_S = 86_400;
const CORS_METHODS = "GET, POST, OPTIONS, PATCH, DELETE, PUT";

/** What the routes need. */
export type Api = {
  host: Host;
  adminKey: string;
  /** Whether Host headers must name this machine (bound to loopback). */
  loopback: boolean;
};

type Exchange = { api: Api; request: IncomingMessage; response: ServerResponse; url: URL; info: RequestInfo };

const requestPrefix = randomBytes(4).toString("hex");
let requestCount = 0;

/** A number for a request, 16 hex digits, unique while the process lives. */
export function newRequestId(): string {
  requestCount = (requestCount + 1) >>> 0;
  return requestPrefix + requestCount.toString(16).padStart(8, "0");
}

/** What functions may know about the sender of a request. */
export function infoOf(request: IncomingMessage): RequestInfo {
  return {
    ip: request.socket.remoteAddress ?? null,
    userAgent: request.headers["user-agent"] ?? null,
    requestId: newRequestId(),
  };
}

/** A function's error message for a caller: everybody learns what was thrown, stacks are for the admin. */
export function errorMessage(outcome: Outcome & { ok: false }, requestId: string, admin: boolean): string {
  const head = `[Request ID: ${requestId}] Server Error\n${outcome.message}`;
  return admin && outcome.stack ? `${head}\n${outcome.stack}` : head;
}

/** Answers one request of the API port. Never rejects. */
export async function answerApi(api: Api, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    if (api.loopback) checkHost(request);
    await route({ api, request, response, url: urlOf(request), info: infoOf(request) });
  } catch (error) {
    fail(response, error);
  }
}

/** Writes a transport failure; anything unexpected is a 500 that says so. */
export function fail(response: ServerResponse, error: unknown): void {
  const failure =
    error instanceof HttpFailure
      ? error
      : new HttpFailure(500, "InternalServerError", (error as Error).message);
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const text = JSON.stringify({ code: failure.code, message: failure.message });
  response.writeHead(failure.status, { "content-type": "application/json" }).end(text);
}

function sendText(response: ServerResponse, text: string): void {
  response.writeHead(200, { "content-type": "text/plain; charset=utf-8" }).end(text);
}

function sendJson(response: ServerResponse, text: string): void {
  response.writeHead(200, { "content-type": "application/json" }).end(text);
}

async function route(exchange: Exchange): Promise<void> {
  const { request, response, url } = exchange;
  const path = url.pathname;
  if (path === "/http" || path.startsWith("/http/")) {
    return answerSite(exchange.api.host, request, response, path.slice("/http".length) || "/", exchange.info);
  }
  switch (path) {
    case "/":
      return sendText(response, "This Convex deployment is running. See https://docs.convex.dev/.");
    case "/version":
    case "/instance_version":
      return sendText(response, VERSION);
    case "/instance_name":
      return sendText(response, "local");
    case "/echo":
      return sendText(response, (await readBody(request)).toString());
    default:
  }
  if (!path.startsWith("/api/")) throw new HttpFailure(404, "NotFound", `there is no ${path} here`);
  allowOrigin(request, response);
  if (request.method === "OPTIONS") {
    response.writeHead(204).end();
    return;
  }
  checkClient(request);
  await routeApi(exchange, path.slice("/api/".length));
}

function allowOrigin(request: IncomingMessage, response: ServerResponse): void {
  const { origin } = request.headers;
  if (origin === undefined) return;
  response.setHeader("access-control-allow-origin", origin);
  response.setHeader("access-control-allow-credentials", "true");
  response.setHeader("vary", "origin");
  if (request.method !== "OPTIONS") return;
  response.setHeader("access-control-allow-methods", CORS_METHODS);
  response.setHeader("access-control-max-age", CORS_MAX_AGE_S);
  const asked = request.headers["access-control-request-headers"];
  if (asked !== undefined) response.setHeader("access-control-allow-headers", asked);
}

function checkClient(request: IncomingMessage): void {
  const client = request.headers["convex-client"];
  if (typeof client === "string" && !client.includes("-")) {
    throw new HttpFailure(400, "InvalidVersion", `Convex-Client: ${client} is not of the form name-version`);
  }
}

async function routeApi(exchange: Exchange, route: string): Promise<void> {
  const { request, response } = exchange;
  const method = request.method ?? "GET";
  if (route === "query" && method === "GET") return answerGetQuery(exchange);
  if (method !== "POST") {
    throw new HttpFailure(
      405,
      "MethodNotAllowed",
      `${method} /api/${route} is not supported by this backend`,
    );
  }
  switch (route) {
    case "query":
    case "mutation":
    case "action":
      return answerCall(exchange, await readJson(request), route, "json");
    case "function": {
      const caller = callerOf(exchange.api.adminKey, request, exchange.url);
      if (!caller.admin) throw new HttpFailure(403, "BadDeployKey", "/api/function needs the admin key");
      return answerCall(exchange, await readJson(request), null, "json");
    }
    case "query_ts":
      return sendJson(response, JSON.stringify({ ts: writeTs(exchange.api.host.ts) }));
    case "query_at_ts":
      return answerQueryAt(exchange);
    case "query_batch":
      return answerBatch(exchange);
    default:
  }
  if (route.startsWith("run/")) return answerRun(exchange, route.slice("run/".length));
  throw new HttpFailure(404, "NotSupported", `/api/${route} is not supported by this backend`);
}

async function answerRun(exchange: Exchange, identifier: string): Promise<void> {
  const parts = identifier.split("/");
  if (parts.length < 2) {
    throw new HttpFailure(
      400,
      "MissingIdentifier",
      "Path or function name not provided in path, e.g. /api/run/messages/list",
    );
  }
  const name = parts.pop() as string;
  const body = await readJson(exchange.request);
  await answerCall(exchange, { ...body, path: `${parts.join("/")}:${name}` }, null, "json");
}

async function answerGetQuery(exchange: Exchange): Promise<void> {
  const { searchParams } = exchange.url;
  const given = searchParams.get("args") ?? "{}";
  const body: JsonObject = { path: searchParams.get("path"), args: parseJson(given) };
  const format = searchParams.get("format");
  await answerCall(exchange, format === null ? body : { ...body, format }, "query", "json");
}

/** Answers only while nothing has been committed since: this backend keeps no older snapshots. */
async function answerQueryAt(exchange: Exchange): Promise<void> {
  const body = await readJson(exchange.request);
  const ts = readTs(body.ts);
  if (ts === null) throw new HttpFailure(400, "BadTimestamp", "`ts` must be a timestamp of /api/query_ts");
  if (ts !== exchange.api.host.ts) {
    throw new HttpFailure(
      400,
      "SnapshotNotSupported",
      "Something was written since this timestamp, and older snapshots are not supported by this backend: take a new one from /api/query_ts",
    );
  }
  await answerCall(exchange, body, "query", "json");
}

async function answerBatch(exchange: Exchange): Promise<void> {
  const { queries } = await readJson(exchange.request);
  if (!Array.isArray(queries)) throw new HttpFailure(400, "BadJsonBody", "`queries` must be an array");
  const results = await Promise.all(
    queries.map((query) => resultOf(exchange, query as JsonObject, "query", "json")),
  );
  sendJson(exchange.response, `{"results":[${results.join(",")}]}`);
}

async function answerCall(
  exchange: Exchange,
  body: JsonObject,
  kind: FunctionKind | null,
  defaultFormat: Format,
): Promise<void> {
  sendJson(exchange.response, await resultOf(exchange, body, kind, defaultFormat));
}

/** Calls a function and writes the answer's JSON text. */
async function resultOf(
  exchange: Exchange,
  body: JsonObject,
  kind: FunctionKind | null,
  defaultFormat: Format,
): Promise<string> {
  const { api, request, url, info } = exchange;
  const { path, args = {} } = body;
  if (typeof path !== "string") throw new HttpFailure(400, "BadJsonBody", "missing field `path`");
  if (body.componentPath) {
    throw new HttpFailure(400, "ComponentsNotSupported", "components are not supported by this backend");
  }
  const format = typeof body.format === "string" ? formatNamed(body.format) : defaultFormat;
  if (format === null) {
    throw new HttpFailure(
      400,
      "BadFormat",
      `format param must be one of [\`json\`]. Got ${String(body.format)}`,
    );
  }
  const caller: Caller = callerOf(api.adminKey, request, url);
  const list = JSON.stringify(Array.isArray(args) ? args : [args]);
  const outcome = await callFunction(api.host, { path, args: list, kind, caller, info });
  if (outcome.ok) {
    return `{"status":"success","value":${writeValue(JSON.parse(outcome.value) as Json, format)}}`;
  }
  if (outcome.fault === "engine") throw new HttpFailure(500, "InternalServerError", outcome.message);
  const message = JSON.stringify(errorMessage(outcome, info.requestId, caller.admin));
  const data =
    outcome.data === undefined ? "" : `,"errorData":${writeValue(JSON.parse(outcome.data) as Json, format)}`;
  return `{"status":"error","errorMessage":${message}${data}}`;
}

function parseJson(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw new HttpFailure(400, "BadJsonBody", `this is not JSON: ${(error as Error).message}`);
  }
}

async function readJson(request: IncomingMessage): Promise<JsonObject> {
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/([^;]*\+)?json\b/i.test(type)) {
    throw new HttpFailure(400, "BadJsonBody", "Expected request with `Content-Type: application/json`");
  }
  const body = parseJson((await readBody(request)).toString());
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new HttpFailure(400, "BadJsonBody", "the body must be a JSON object");
  }
  return body;
}

/** Reads a body up to the cap. @throws HttpFailure 413 beyond it. */
export async function readBody(request: IncomingMessage, cap = MAX_BODY_BYTES): Promise<Buffer<ArrayBuffer>> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > cap) throw new HttpFailure(413, "RequestTooLarge", `the body is larger than ${cap} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks) as Buffer<ArrayBuffer>;
}
