/**
 * The WebSocket side: takes upgrades on /api/sync and /api/<version>/sync, keeps connections alive, and drops silent ones.
 */
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer, type RawData, type WebSocket } from "ws";
import { HttpFailure, urlOf, type Gate } from "./access.ts";
import { monotonicMs } from "./clock.ts";
import { Connection } from "./connection.ts";
import type { Host } from "./host.ts";
import { Watches } from "./watches.ts";

// not imported, for the reason that listen.ts gives
const { STATUS_CODES } = process.getBuiltinModule("node:http");

const PATH = /^\/api\/([^/]+\/)?sync$/;
/** Largest message of a client: an argument of Convex's largest size, and room for the rest. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024 + 2000;
/** How often sockets are pinged on protocol level, ms: a Python client gives up after 30 s without a frame. */
const FRAME_PING_MS = 5000;
/** An application-level Ping goes out after so much silence of ours, ms: a JS client gives up after 60 s without a message. */
const MESSAGE_PING_MS = 15_000;
/** A client that was silent for so long is gone, ms. */
const SILENCE_MS = 120_000;
const GOING_AWAY = 1001;
/** Frames of one message, and pieces of it that wait to be put together: the largest one arrives in packets of 1 kB, at worst. */
const MAX_PIECES = 17_000;

type Peer = { socket: WebSocket; connection: Connection; heardAt: number };

/** All WebSocket clients. */
export class SyncServer {
  readonly #host: Host;
  readonly #adminKey: string;
  readonly #gate: Gate;
  readonly #watches: Watches;
  readonly #peers = new Set<Peer>();
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    maxFragments: MAX_PIECES,
    maxBufferedChunks: MAX_PIECES,
    perMessageDeflate: false,
  });
  #timer: NodeJS.Timeout | null = null;

  constructor(host: Host, adminKey: string, gate: Gate) {
    this.#host = host;
    this.#adminKey = adminKey;
    this.#gate = gate;
    this.#watches = new Watches(host);
  }

  /** Takes the server's upgrades from now on. */
  attach(server: Server): void {
    server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const refusal = this.#refusalOf(request);
      if (refusal !== null) {
        refuse(socket, refusal);
        return;
      }
      this.#sockets.handleUpgrade(request, socket, head, (client) => this.#welcome(client, request));
    });
    this.#timer = setInterval(() => this.#keepAlive(), FRAME_PING_MS).unref();
  }

  /** A commit is on disk. */
  committed(touched: string[]): void {
    this.#watches.touched(touched);
  }

  /** Another worker is there. */
  readSetsLost(): void {
    this.#watches.allTouched();
  }

  /** Says goodbye to everybody. */
  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    for (const { connection, socket } of this.#peers) {
      connection.close(GOING_AWAY, "ServerStopping");
      socket.terminate();
    }
  }

  #refusalOf(request: IncomingMessage): HttpFailure | null {
    try {
      this.#gate.admit(request);
      if (PATH.test(urlOf(request).pathname)) return null;
      return new HttpFailure(404, "NotFound", "there is no WebSocket here");
    } catch (error) {
      return error as HttpFailure;
    }
  }

  #welcome(socket: WebSocket, request: IncomingMessage): void {
    const connection = new Connection(
      socket,
      { host: this.#host, watches: this.#watches, adminKey: this.#adminKey },
      { ip: request.socket.remoteAddress ?? null, userAgent: request.headers["user-agent"] ?? null },
    );
    const peer: Peer = { socket, connection, heardAt: monotonicMs() };
    this.#peers.add(peer);
    const heard = (): void => {
      peer.heardAt = monotonicMs();
    };
    socket.on("message", (data: RawData) => {
      heard();
      connection.receive((data as Buffer).toString());
    });
    socket.on("pong", heard);
    socket.on("ping", heard);
    // ws reports a frame that breaks the protocol, then closes by itself
    socket.on("error", () => connection.left());
    socket.on("close", () => {
      connection.left();
      this.#peers.delete(peer);
    });
  }

  #keepAlive(): void {
    const now = monotonicMs();
    for (const peer of this.#peers) {
      const { socket, connection, heardAt } = peer;
      // of one that has too much under way, nothing is read
      if (socket.isPaused) peer.heardAt = now;
      connection.checkTaken(now);
      if (now - heardAt > SILENCE_MS) socket.terminate();
      else {
        socket.ping();
        if (now - connection.sentAt > MESSAGE_PING_MS) connection.send('{"type":"Ping"}');
      }
    }
  }
}

/** Answers a handshake that is not taken. */
function refuse(socket: Duplex, { status, code, message }: HttpFailure): void {
  // Node leaves the socket to us: a client that is gone already would end the process
  socket.on("error", () => socket.destroy());
  const body = JSON.stringify({ code, message });
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\nConnection: close\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
