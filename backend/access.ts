/**
 * Who may speak to the server: the names it answers to, the pages that may call it, the size of a request's head, the admin key.
 *
 * A name is checked because of DNS rebinding: a page of a stranger's site whose name was made to point to this machine sends that
 * name as Host. An origin is checked because a page of any site can also call an address of this machine outright: CORS would let
 * it read the answers (Convex mirrors every origin), and does not apply to WebSockets at all. It would not hold the admin key, nor a
 * token, but could call whatever needs neither. Clients that are no browsers send no Origin.
 */
import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { hostname } from "node:os";
import type { Caller } from "./calls.ts";

/** Most header lines of a request: the limit of Convex's own HTTP library; clients send about ten. */
export const MAX_HEADERS = 100;
/** Longest path and query of a request, bytes: half of what a head may have; only `GET /api/query` has long ones. */
export const MAX_URL_BYTES = 16 * 1024;
/** Names that mean this machine wherever they are looked up. */
const LOCAL_NAME = /^(?:(?:[^:]+\.)?localhost|127(?:\.\d{1,3}){3}|\[::1\])$/;
const HOST = /^(\[[^\]]*\]|[^:]*)(?::\d*)?$/;
/** Lets the pages of every site in, as Convex does. */
const ANY_ORIGIN = "*";

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

/** Whether only this machine can reach a server that listens there. */
export function isLoopback(address: string): boolean {
  return address === "localhost" || address === "::1" || (isIP(address) === 4 && address.startsWith("127."));
}

function inUrl(address: string): string {
  return address.includes(":") ? `[${address}]` : address.toLowerCase();
}

/** Decides which requests are looked at. */
export class Gate {
  /** Names of this machine besides the local ones. */
  readonly #names: ReadonlySet<string>;
  readonly #origins: ReadonlySet<string>;

  /**
   * @param address the one to listen on, a name or an IP address.
   * @param origins of the pages of other machines that may call, such as `https://team.example`; `*` for all.
   */
  constructor(address: string, origins: readonly string[]) {
    this.#names = new Set([inUrl(address), ...(isLoopback(address) ? [] : [hostname().toLowerCase()])]);
    this.#origins = new Set(origins.map((origin) => origin.toLowerCase().replace(/\/$/, "")));
  }

  /** @throws HttpFailure 431 or 414 for a head that is too large, 403 for a name or a page that is not welcome. */
  admit(request: IncomingMessage): void {
    const { rawHeaders, headers, url = "/" } = request;
    if (rawHeaders.length > MAX_HEADERS * 2) {
      throw new HttpFailure(431, "TooManyHeaders", `a request has at most ${MAX_HEADERS} headers`);
    }
    if (url.length > MAX_URL_BYTES) {
      throw new HttpFailure(414, "UrlTooLong", `an address has at most ${MAX_URL_BYTES} bytes`);
    }
    if (!this.#isOurs(HOST.exec(headers.host ?? "")?.[1], request)) {
      const sentence =
        "This backend answers to the names of its own machine only, such as localhost, and to the address that --host gave it.";
      throw new HttpFailure(403, "BadHost", sentence);
    }
    if (headers.origin !== undefined && !this.#mayCall(headers.origin.toLowerCase(), request)) {
      const sentence =
        "Pages of other machines may not call this backend: --origin ORIGIN at its start lets those of one in.";
      throw new HttpFailure(403, "BadOrigin", sentence);
    }
  }

  #mayCall(origin: string, request: IncomingMessage): boolean {
    if (this.#origins.has(origin) || this.#origins.has(ANY_ORIGIN)) return true;
    // "null", which any page can send from a frame, has no host name
    return this.#isOurs(URL.parse(origin)?.hostname, request);
  }

  #isOurs(written: string | undefined, request: IncomingMessage): boolean {
    const name = written?.toLowerCase().replace(/\.$/, "") ?? "";
    if (LOCAL_NAME.test(name) || this.#names.has(name)) return true;
    // an address is no name: nobody else can have it point here
    const arrived = request.socket.localAddress;
    return arrived !== undefined && name === inUrl(arrived.replace(/^::ffff:/, ""));
  }
}

/** The path and query that a request asks for. @throws HttpFailure 400 when they cannot be read. */
export function urlOf(request: IncomingMessage): URL {
  const url = URL.parse(`http://localhost${request.url ?? "/"}`);
  if (url === null) throw new HttpFailure(400, "BadRequest", "the address of this request cannot be read");
  return url;
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
