/** The protocol itself, where the official clients hide it. */
import WebSocket from "ws";
import { eventually } from "./server.ts";

export type Message = { type: string; [field: string]: unknown };

/** A bare WebSocket peer that keeps every message. */
export class Peer {
  readonly messages: Message[] = [];
  readonly socket: WebSocket;
  readonly closed: Promise<number>;

  constructor(url: string, path = "/api/1.48.0/sync") {
    this.socket = new WebSocket(url.replace("http", "ws") + path);
    this.socket.on("message", (data) =>
      this.messages.push(JSON.parse((data as Buffer).toString()) as Message),
    );
    this.closed = new Promise((resolve) => this.socket.once("close", resolve));
  }

  static async connect(url: string, sessionId: string): Promise<Peer> {
    const peer = new Peer(url);
    await new Promise((resolve) => peer.socket.once("open", resolve));
    peer.send({ type: "Connect", sessionId, connectionCount: 0, lastCloseReason: null, clientTs: 0 });
    return peer;
  }

  send(message: Message): void {
    this.socket.send(JSON.stringify(message));
  }

  of(type: string): Message[] {
    return this.messages.filter((message) => message.type === type);
  }

  wait(type: string, count = 1): Promise<Message[]> {
    return eventually(
      () => Promise.resolve(this.of(type)),
      (found) => found.length >= count,
    );
  }
}
