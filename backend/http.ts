/**
 * Convex's HTTP API (facts: crates/local_backend/src/{router,public_api}.rs): routes, bodies, formats, error shapes.
 *
 * Two kinds of failure: a function's own is 200 with `status: "error"`; the transport's is a 4xx/5xx `{code, message}`.
 */
import { isUtf8 } from "node:buffer";
import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { callerOf, HttpFailure, urlOf, type Gate } from "./access.ts";
import { readBody } from "./body.ts";
import { callFunction, runQueries, runQueryAt, writeArguments, type Caller } from "./calls.ts";
import { readTs, writeTs } from "./clock.ts";
import { formatNamed, rewrite, type Format } from "./formats.ts";
import type { Host } from "./host.ts";
import type { FunctionKind, Outcome, RequestInfo } from "./messages.ts";
import { answerSite } from "./site.ts";
import { kindOf, type Json, type JsonObject } from "./values.ts";
import { VERSION } from "./version.ts";

/** Largest body of a call: Convex's cap on arguments, and room for the rest. */
const MAX_BODY_BYTES = 16 * 1024 * 1024 + 2000;
/** Queries of one `query_batch`: they run as one turn, in which everybody else waits. No known client sends any. */
const MAX_BATCH_QUERIES = 100;
const CORS_MAX_AGE_S = 86_400;
/** What the official CLI asks of a deployment and this backend does not do, and what to do instead. */
const REFUSED: [RegExp, string][] = [
  [
    /^(deploy2|v1)\/|^(get_config|get_config_hashes|shapes2|run_test_function)$/,
    "This local backend takes no pushes: it runs the folder that --functions named when it was started, and with --watch takes up what is saved there.",
  ],
  [
    /^stream_(function|udf_execution)/,
    "This local backend keeps no logs to be read from afar: the lines that functions log are on its own stderr.",
  ],
  [/^update_environment_variables$/, "This local backend has no environment variables that could be set."],
  [
    /^(storage|export|import|perform_import)\b/,
    "This local backend has no file storage, and no import and export: its data is one SQLite file.",
  ],
];
/** `dir/file:export` (crates/convex/sync_types/src/{path,function_name}.rs). */
const FUNCTION_PATH = /^([\w.]{1,64}\/)*[\w.]{1,64}(:\w{1,64})?$/;
const CORS_METHODS = "GET, POST, OPTIONS, PATCH, DELETE, PUT";

/** What the routes need. */
export type Api = {
  host: Host;
  adminKey: string;
  gate: Gate;
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
    api.gate.admit(request);
    await route({ api, request, response, url: urlOf(request), info: infoOf(request) });
  } catch (error) {
    fail(response, error);
  }
}

/** Writes a transport failure. Anything unexpected is told on stderr: what it says may name files of this machine. */
export function fail(response: ServerResponse, error: unknown): void {
  const failure = error instanceof HttpFailure ? error : unexpected(error as Error);
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const text = JSON.stringify({ code: failure.code, message: failure.message });
  response.writeHead(failure.status, { "content-type": "application/json" }).end(text);
}

function unexpected(error: Error): HttpFailure {
  const requestId = newRequestId();
  process.stderr.write(`heartbeat-backend: [Request ID: ${requestId}] ${error.stack ?? error.message}\n`);
  const sentence = `[Request ID: ${requestId}] The backend could not do this; its log says why.`;
  return new HttpFailure(500, "InternalServerError", sentence);
}

function sendText(response: ServerResponse, text: string): void {
  response.writeHead(200, { "content-type": "text/plain; charset=utf-8" }).end(text);
}

function sendJson(response: ServerResponse, text: string): void {
  // with its length known, head and body leave as one piece
  const length = Buffer.byteLength(text);
  response.writeHead(200, { "content-type": "application/json", "content-length": length }).end(text);
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
      return sendText(response, await readText(exchange));
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
  const { request } = exchange;
  const method = request.method ?? "GET";
  if (route === "query" && method === "GET") return answerGetQuery(exchange);
  const [, refusal] = REFUSED.find(([pattern]) => pattern.test(route)) ?? [];
  // the official CLI shows a 403's sentence and ends; after any other status it tries again, for minutes
  if (refusal !== undefined) throw new HttpFailure(403, "NotSupported", refusal);
  if (method !== "POST") {
    throw new HttpFailure(405, "MethodNotAllowed", `${method} is not for /api/${route}`);
  }
  switch (route) {
    case "query":
    case "mutation":
    case "action":
      return answerCall(exchange, await readJson(exchange), route);
    case "function": {
      const caller = callerOf(exchange.api.adminKey, request, exchange.url);
      if (!caller.admin) throw new HttpFailure(403, "BadDeployKey", "/api/function needs the admin key");
      return answerCall(exchange, await readJson(exchange), null);
    }
    case "query_ts":
      return answerQueryTs(exchange);
    case "query_at_ts":
      return answerQueryAt(exchange);
    case "query_batch":
      return answerBatch(exchange);
    default:
  }
  if (route.startsWith("run/")) return answerRun(exchange, route.slice("run/".length));
  throw new HttpFailure(404, "NotFound", `there is no /api/${route} here`);
}

async function answerRun(exchange: Exchange, identifier: string): Promise<void> {
  const parts = identifier.split("/").map(decodePart);
  if (parts.length < 2) throw missingIdentifier();
  const name = parts.pop() as string;
  const body = await readJson(exchange);
  await answerCall(exchange, { ...body, path: `${parts.join("/")}:${name}` }, null);
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw missingIdentifier();
  }
}

function missingIdentifier(): HttpFailure {
  const sentence = "Path or function name not provided in path, e.g. /api/run/messages/list";
  return new HttpFailure(400, "MissingIdentifier", sentence);
}

async function answerGetQuery(exchange: Exchange): Promise<void> {
  const { searchParams } = exchange.url;
  const asked = Object.fromEntries(searchParams) as JsonObject;
  const missing = ["path", "args"].find((name) => !(name in asked));
  if (missing !== undefined) throw new HttpFailure(400, "BadQueryArgs", `missing field \`${missing}\``);
  await answerCall(exchange, { ...asked, args: parseJson(asked.args as string) }, "query");
}

async function answerQueryTs({ api, response }: Exchange): Promise<void> {
  const ts = await api.host.snapshot();
  if (ts === null) throw new HttpFailure(503, "Overloaded", "the worker was replaced meanwhile: ask again");
  sendJson(response, JSON.stringify({ ts: writeTs(ts) }));
}

async function answerQueryAt(exchange: Exchange): Promise<void> {
  const { api, request, response, url, info } = exchange;
  const body = await readJson(exchange);
  const ts = readTs(body.ts);
  if (ts === null) throw new HttpFailure(400, "BadTimestamp", "`ts` must be a timestamp of /api/query_ts");
  const { path, args, format } = readAsked(body);
  const caller = callerOf(api.adminKey, request, url);
  const outcome = await runQueryAt(api.host, ts, { path, args, caller, info });
  if (outcome === null) {
    const sentence =
      "What was there at this timestamp is not kept any more: take a new one from /api/query_ts.";
    throw new HttpFailure(400, "SnapshotTooOld", sentence);
  }
  sendJson(response, writeOutcome(outcome, format, caller, info));
}

/** Several queries, all on one snapshot. */
async function answerBatch(exchange: Exchange): Promise<void> {
  const { queries } = await readJson(exchange);
  if (!Array.isArray(queries) || queries.length > MAX_BATCH_QUERIES) {
    const sentence = `\`queries\` must be an array of at most ${MAX_BATCH_QUERIES}`;
    throw new HttpFailure(400, "BadJsonBody", sentence);
  }
  const { api, request, url, info } = exchange;
  const asked = queries.map(readAsked);
  const caller = callerOf(api.adminKey, request, url);
  const outcomes = await runQueries(
    api.host,
    asked.map(({ path, args }) => ({ path, args, caller, info })),
  );
  const results = outcomes.map((outcome, position) =>
    writeOutcome(outcome, (asked[position] as Asked).format, caller, info),
  );
  sendJson(exchange.response, `{"results":[${results.join(",")}]}`);
}

async function answerCall(exchange: Exchange, body: JsonObject, kind: FunctionKind | null): Promise<void> {
  const { api, request, response, url, info } = exchange;
  const { path, args, format } = readAsked(body);
  const caller = callerOf(api.adminKey, request, url);
  const outcome = await callFunction(api.host, { path, args, kind, caller, info });
  sendJson(response, writeOutcome(outcome, format, caller, info));
}

/** A call that a body asks for; `args` is the JSON text of the argument array. */
type Asked = { path: string; args: string; format: Format };

function readAsked(body: Json): Asked {
  if (kindOf(body) !== "object") throw new HttpFailure(400, "BadJsonBody", "a call must be a JSON object");
  const { path, args, format = "json", componentPath } = body as JsonObject;
  if (typeof path !== "string") throw new HttpFailure(400, "BadJsonBody", "missing field `path`");
  if (args === undefined) throw new HttpFailure(400, "BadJsonBody", "missing field `args`");
  if (!FUNCTION_PATH.test(path)) {
    const sentence = `${path} is not a valid path to a Convex function.`;
    throw new HttpFailure(400, "BadConvexFunctionIdentifier", sentence);
  }
  if (componentPath) {
    throw new HttpFailure(400, "ComponentsNotSupported", "components are not supported by this backend");
  }
  const known = typeof format === "string" ? formatNamed(format) : null;
  if (known === null) {
    const sentence = `format param must be one of [\`json\`]. Got ${kindOf(format) === "string" ? (format as string) : kindOf(format)}`;
    throw new HttpFailure(400, "BadFormat", sentence);
  }
  const text = writeArguments(args);
  if (text === null) throw new HttpFailure(400, "BadJsonBody", "`args` is too nested");
  return { path, args: text, format: known };
}

/** A call's end as the answer's JSON text. @throws HttpFailure when it failed because of us. */
function writeOutcome(outcome: Outcome, format: Format, caller: Caller, info: RequestInfo): string {
  if (outcome.ok) {
    return `{"status":"success","value":${rewrite(outcome.value, format)}}`;
  }
  if (outcome.fault === "engine") throw new HttpFailure(500, "InternalServerError", outcome.message);
  const message = JSON.stringify(errorMessage(outcome, info.requestId, caller.admin));
  const data = outcome.data === undefined ? "" : `,"errorData":${rewrite(outcome.data, format)}`;
  return `{"status":"error","errorMessage":${message}${data}}`;
}

function parseJson(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw new HttpFailure(400, "BadJsonBody", `this is not JSON: ${(error as Error).message}`);
  }
}

async function readJson(exchange: Exchange): Promise<JsonObject> {
  const type = exchange.request.headers["content-type"] ?? "";
  if (!/^application\/([^;]*\+)?json\b/i.test(type)) {
    throw new HttpFailure(400, "BadJsonBody", "Expected request with `Content-Type: application/json`");
  }
  const body = parseJson(await readText(exchange));
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new HttpFailure(400, "BadJsonBody", "the body must be a JSON object");
  }
  return body;
}

async function readText({ request, response }: Exchange): Promise<string> {
  const body = await readBody(request, response, MAX_BODY_BYTES);
  if (body === null)
    throw new HttpFailure(400, "BadJsonBody", `the body is larger than ${MAX_BODY_BYTES} bytes`);
  // what is no text must not be stored as another one
  if (!isUtf8(body)) throw new HttpFailure(400, "BadJsonBody", "the body is not UTF-8");
  return body.toString();
}
