/**
 * Who may speak to the server: the admin key, and the check against DNS rebinding (a page of a stranger's site whose
 * name was made to point to this machine sends that name as Host).
 */
import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Caller } from "./calls.ts";

const LOCAL_NAMES = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** A request that is refused before any function runs: status, Convex's code, a sentence. */
export class HttpFailure extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The path and query that a request asks for. @throws HttpFailure 400 when they cannot be read. */
export function urlOf(request: IncomingMessage): URL {
  const url = URL.parse(`http://localhost${request.url ?? "/"}`);
  if (url === null) throw new HttpFailure(400, "BadRequest", "the address of this request cannot be read");
  return url;
}

/** Refuses Host headers that do not name this machine. */
export function checkHost(request: IncomingMessage): void {
  const host = (request.headers.host ?? "").replace(/:\d+$/, "").toLowerCase();
  if (!LOCAL_NAMES.has(host)) {
    throw new HttpFailure(
      403,
      "BadHost",
      `this server listens on this machine only and does not answer to "${host}"`,
    );
  }
}

/** Whether a text is the admin key, in constant time; a deploy key's `name|` in front of it is stripped. */
export function isAdminKey(adminKey: string, given: string): boolean {
  const key = Buffer.from(given.slice(given.indexOf("|") + 1));
  const expected = Buffer.from(adminKey);
  return key.length === expected.length && timingSafeEqual(key, expected);
}

/**
 * Who sends a request.
 *
 * @throws HttpFailure 401 for a user's token or a malformed header, 403 for a wrong key.
 */
export function callerOf(adminKey: string, request: IncomingMessage, url: URL): Caller {
  const header = request.headers.authorization;
  const asked = url.searchParams.get("adminKey");
  if (header === undefined && asked === null) return { admin: false };
  const [scheme, credential] = header === undefined ? ["Convex", asked as string] : split(header);
  if (scheme === "Bearer") {
    throw new HttpFailure(
      401,
      "NoAuthProvider",
      "User tokens are not supported by this backend: no auth provider is configured.",
    );
  }
  if (scheme !== "Convex" || credential === undefined) {
    throw new HttpFailure(401, "InvalidAuthHeader", "The Authorization header must be `Convex <admin key>`.");
  }
  if (credential.slice(credential.indexOf("|") + 1).includes(":")) {
    throw new HttpFailure(403, "BadDeployKey", "Acting as a user is not supported by this backend.");
  }
  if (!isAdminKey(adminKey, credential)) {
    throw new HttpFailure(403, "BadDeployKey", "The provided admin key is not the one of this deployment.");
  }
  return { admin: true };
}

function split(header: string): [string, string | undefined] {
  const [scheme = "", credential] = header.split(" ");
  return [scheme, credential];
}
