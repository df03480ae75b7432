/**
 * The HTTP servers of both ports, with what a client may take of them: size of a request's head, time for each step, connections.
 * Whoever is too slow is cut off: its connection is wanted by others.
 *
 *   connected ──> head arrives ──> body arrives ──> (the function runs, as long as it may) ──> answer is taken ──> idle
 *      └── headersMs ──┘── requestMs, from the first ──┘                                        stalledMs ┘     keepAliveMs
 */
import type { RequestListener, Server } from "node:http";

// an import would read each of the module's exports, and so load Node's HTTP client too: a tenth of what a start takes
const { createServer } = process.getBuiltinModule("node:http");

/** What one server allows. */
export type ListenLimits = {
  /** Bytes of a request's head: path, query, names and values of headers. Twice what nginx and Apache take. */
  headerBytes: number;
  /** Connections at once. Each costs some 20 kB, and one file handle; a fleet's senders and viewers are a few hundred. */
  connections: number;
  /** Requests of one connection that were sent without waiting for an answer. None of the known clients does that. */
  pipelined: number;
  /** Time for a request's head, from the connection's beginning or its first byte, ms: it is one packet or two. */
  headersMs: number;
  /** Time for the whole request, ms: 16 MiB at 140 kB/s. */
  requestMs: number;
  /** An answer of which the client takes nothing for so long is not wanted, ms. */
  stalledMs: number;
  /** Kept-alive connections without a request are closed after this, ms: longer than any client's pause between calls. */
  keepAliveMs: number;
  /** How often the first two times are looked at, ms. */
  checkEveryMs: number;
};

export const LISTEN_LIMITS: ListenLimits = {
  headerBytes: 32 * 1024,
  connections: 2000,
  pipelined: 16,
  headersMs: 10_000,
  requestMs: 120_000,
  stalledMs: 60_000,
  keepAliveMs: 75_000,
  checkEveryMs: 1000,
};

/**
 * Listens.
 *
 * @param webSockets whether handshakes go to the server's "upgrade" listener; else they are requests like others.
 * @throws Error with the reason when the port cannot be had.
 */
export function listen(
  port: number,
  host: string,
  webSockets: boolean,
  listener: RequestListener,
  limits: ListenLimits = LISTEN_LIMITS,
): Promise<Server> {
  const open = new WeakMap<object, number>();
  const server = createServer(
    {
      noDelay: true,
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.keepAliveMs,
      connectionsCheckingInterval: limits.checkEveryMs,
      // other upgrades (h2c) are offers that a server may leave
      shouldUpgradeCallback: ({ headers }) => webSockets && headers.upgrade?.toLowerCase() === "websocket",
    },
    (request, response) => {
      const { socket } = request;
      const waiting = (open.get(socket) ?? 0) + 1;
      if (waiting > limits.pipelined) {
        socket.destroy();
        return;
      }
      open.set(socket, waiting);
      response.once("close", () => open.set(socket, (open.get(socket) as number) - 1));
      // the wait for the next request is Node's: it begins when this answer was taken
      response.once("prefinish", () => socket.setTimeout(limits.stalledMs));
      listener(request, response);
    },
  );
  // Node drops what is more without a word; the gate counts, and says so
  server.maxHeadersCount = 0;
  server.maxConnections = limits.connections;
  return new Promise((done, failed) => {
    // stays: a connection that cannot be accepted (no more file handles) must not end the process
    server.on("error", (error: NodeJS.ErrnoException) => {
      const reason = error.code === "EADDRINUSE" ? "is taken" : `cannot be used (${error.message})`;
      failed(new Error(`port ${port} on ${host} ${reason}`));
    });
    server.listen(port, host, () => done(server));
  });
}
