/**
 * What flows through one WebSocket, bounded both ways. A client that asks faster than it is answered is not read for a while; one
 * that reads slower than things change gets fewer, newer Transitions; one that does not read is cut off.
 */
import type { WebSocket } from "ws";
import { monotonicMs } from "./clock.ts";

/** A client that takes nothing off its socket is cut off at this many waiting bytes: two of the largest results. */
const MAX_BUFFERED_BYTES = 32 * 1024 * 1024;
/** At so many waiting bytes a client gets no Transition until it has taken them: it then gets one for all that happened. */
const FULL_BYTES = 1024 * 1024;
/** A client that takes nothing of what waits for it for so long is gone, ms. */
const STALLED_MS = 60_000;
/**
 * Mutations and actions of one client that are under way; its further messages wait for the end of one. Enough for a client
 * that repeats everything unanswered after an outage, and a share of the queue that leaves room for the others.
 */
export const MAX_OPEN_REQUESTS = 128;
/** The same in characters of arguments, which the last one may pass: two of the largest. */
const MAX_OPEN_LENGTH = 32 * 1024 * 1024;

/** What goes to a client. */
export class Outflow {
  readonly #socket: WebSocket;
  readonly #roomAgain: () => void;
  /** Somebody wants to know when there is room again. */
  #wanted = false;
  /** When the client last took something, or nothing waited for it, on the monotonic clock, ms. */
  #takenAt = monotonicMs();
  /** When something was last sent, on the monotonic clock, ms. */
  sentAt = monotonicMs();

  /** @param roomAgain is called once after each `full` that said yes, when it would say no. */
  constructor(socket: WebSocket, roomAgain: () => void) {
    this.#socket = socket;
    this.#roomAgain = roomAgain;
  }

  /**
   * Sends a message given as JSON text, in pieces that make one text frame each.
   *
   * @returns false when the client has left too much untaken for that: nothing was sent.
   */
  send(pieces: (string | Buffer)[]): boolean {
    const waiting = this.#socket.bufferedAmount;
    if (waiting > MAX_BUFFERED_BYTES) return false;
    this.sentAt = monotonicMs();
    if (waiting === 0) this.#takenAt = this.sentAt;
    pieces.forEach((piece, position) => {
      const fin = position === pieces.length - 1;
      this.#socket.send(piece, { binary: false, fin }, fin ? this.#taken : undefined);
    });
    return true;
  }

  /** Whether more should wait. */
  full(): boolean {
    this.#wanted = this.#socket.bufferedAmount > FULL_BYTES;
    return this.#wanted;
  }

  /** Whether the client has taken nothing for too long. @param now on the monotonic clock, ms. */
  stalled(now: number): boolean {
    return this.#socket.bufferedAmount > 0 && now - this.#takenAt > STALLED_MS;
  }

  readonly #taken = (): void => {
    this.#takenAt = monotonicMs();
    if (!this.#wanted || this.#socket.bufferedAmount > FULL_BYTES) return;
    this.#wanted = false;
    this.#roomAgain();
  };
}

/** What a client asks for. */
export class Inflow {
  readonly #socket: WebSocket;
  readonly #take: (text: string) => void;
  /** Messages that wait: the rest of what was read at once, the next is not read. */
  readonly #backlog: string[] = [];
  #requests = 0;
  #length = 0;

  /** @param take is handed the messages in their order; it may begin requests. Never throws. */
  constructor(socket: WebSocket, take: (text: string) => void) {
    this.#socket = socket;
    this.#take = take;
  }

  /** A message has come. */
  receive(text: string): void {
    this.#backlog.push(text);
    this.#goOn();
  }

  /** A request is under way. @param length characters of its arguments. */
  begin(length: number): void {
    this.#requests++;
    this.#length += length;
  }

  /** It was answered. */
  end(length: number): void {
    this.#requests--;
    this.#length -= length;
    this.#goOn();
  }

  /** Nothing more is taken of what waits. */
  clear(): void {
    this.#backlog.length = 0;
  }

  #goOn(): void {
    while (this.#requests < MAX_OPEN_REQUESTS && this.#length < MAX_OPEN_LENGTH) {
      const text = this.#backlog.shift();
      if (text === undefined) break;
      this.#take(text);
    }
    if (this.#backlog.length > 0) this.#socket.pause();
    else if (this.#socket.isPaused) this.#socket.resume();
  }
}
