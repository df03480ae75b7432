/**
 * HTTP actions: on the site port, and under /http/ of the API port. The app's router decides; bodies are read whole in both
 * directions.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { HttpFailure, urlOf } from "./access.ts";
import { readBody } from "./body.ts";
import { fail } from "./http.ts";
import type { Host } from "./host.ts";
import type { RequestInfo } from "./messages.ts";

/** Largest body of a request to an HTTP action, as on Convex. */
const MAX_SITE_BODY_BYTES = 20 * 1024 * 1024;

function headersOf(request: IncomingMessage): [string, string][] {
  const headers: [string, string][] = [];
  for (let at = 0; at + 1 < request.rawHeaders.length; at += 2) {
    headers.push([request.rawHeaders[at] as string, request.rawHeaders[at + 1] as string]);
  }
  return headers;
}

/** Answers with what the app's router says to `path` (with the request's query string). Never rejects. */
export async function answerSite(
  host: Host,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  info: RequestInfo,
): Promise<void> {
  try {
    const { search } = urlOf(request);
    const method = request.method ?? "GET";
    const bodyless = method === "GET" || method === "HEAD";
    const body = bodyless ? null : await readBody(request, response, MAX_SITE_BODY_BYTES);
    if (body === null && !bodyless) {
      throw new HttpFailure(413, "RequestTooLarge", `the body is larger than ${MAX_SITE_BODY_BYTES} bytes`);
    }
    const url = `http://${request.headers.host ?? "localhost"}${path}${search}`;
    const answer = await host.http({ method, url, headers: headersOf(request), body, info });
    if (answer === null)
      throw new HttpFailure(500, "InternalServerError", "the HTTP action's worker was replaced");
    response.writeHead(answer.status, answer.headers.flat());
    response.end(method === "HEAD" ? undefined : answer.body);
  } catch (error) {
    fail(response, error);
  }
}
