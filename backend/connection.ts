/**
 * One client on the WebSocket protocol (npm convex, src/browser/sync/protocol.ts). The version a client knows is
 * {querySet, identity, ts}; every Transition starts where the last one ended, and always goes to the latest timestamp.
 *
 * After every answer to a mutation or action a Transition follows, changed or not: clients hold results back until it
 * comes. It may never be older than the answer, which holds because timestamps here only grow.
 */
import type { WebSocket } from "ws";
import { isAdminKey } from "./access.ts";
import { runCall, resolveFunction, type Caller } from "./calls.ts";
import { monotonicMs, writeTs } from "./clock.ts";
import type { Host } from "./host.ts";
import { Inflow, Outflow } from "./flow.ts";
import { errorMessage, newRequestId } from "./http.ts";
import type { Call, FunctionKind, Outcome, RequestInfo } from "./messages.ts";
import { ProtocolFault, readMessage, type ClientMessage, type Modification } from "./protocol.ts";
import { RERUN_EVERY_MS, type Watch, type Watches } from "./watches.ts";

/** Queries that one client may subscribe to: a page that shows each of a fleet's agents has a few hundred. */
const MAX_SUBSCRIPTIONS = 1000;
/** The same in characters of paths, arguments and journals: one argument of the largest size. */
const MAX_SUBSCRIBED_LENGTH = 16 * 1024 * 1024;
/** How far ahead of our clock a client's last timestamp may be, ns (a day): clocks are set back by hours, not by years. */
const MAX_AHEAD_NS = 86_400_000_000_000n;
const NS_PER_MS = 1_000_000n;
/** A result of this length is encoded once for all who get it; of a shorter one, a copy each is cheaper than a frame. */
const MIN_SHARED_LENGTH = 16_384;
/** Rounds of an update in which only stale queries run. */
const MAX_SINGLE_ROUNDS = 2;
const PROTOCOL_ERROR = 1002;

type Subscription = { watch: Watch; sent: number; length: number };

/** What a connection needs of the server. */
export type Shared = { host: Host; watches: Watches; adminKey: string };

/** A connection; the server hands it every message of its socket. */
export class Connection {
  readonly #socket: WebSocket;
  readonly #shared: Shared;
  readonly #info: Omit<RequestInfo, "requestId">;
  readonly #subscriptions = new Map<number, Subscription>();
  #session: string | null = null;
  #caller: Caller = { admin: false };
  /** What the client knows, and what it is to know next. */
  #known = { querySet: 0, identity: 0, ts: 0n };
  #next = { querySet: 0, identity: 0 };
  #removed: number[] = [];
  /** A Transition is owed even when nothing changed. */
  #owed = false;
  /** Somebody waits for it: it does not wait for `RERUN_EVERY_MS`. */
  #urgent = false;
  #updating = false;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;
  readonly #inflow: Inflow;
  readonly #outflow: Outflow;
  /** Characters of all subscriptions. */
  #subscribedLength = 0;

  constructor(socket: WebSocket, shared: Shared, info: Omit<RequestInfo, "requestId">) {
    this.#socket = socket;
    this.#shared = shared;
    this.#info = info;
    this.#inflow = new Inflow(socket, (text) => this.#take(text));
    this.#outflow = new Outflow(socket, () => this.#schedule());
  }

  /** When something was last sent, on the monotonic clock, ms. */
  get sentAt(): number {
    return this.#outflow.sentAt;
  }

  /** Sends a message given as JSON text, in pieces that make one text frame each. */
  send(...pieces: (string | Buffer)[]): void {
    if (!this.#closed && !this.#outflow.send(pieces)) this.#cut();
  }

  /** Closes the socket, and leaves all subscriptions. */
  close(code: number, reason: string): void {
    this.left();
    this.#socket.close(code, reason);
  }

  /** The socket is gone. */
  left(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#inflow.clear();
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const { watch } of this.#subscriptions.values()) this.#shared.watches.unsubscribe(watch, this);
    this.#subscriptions.clear();
  }

  /** A watched query's result may have changed. */
  stale(): void {
    this.#schedule();
  }

  /** Cuts the client off when it has not taken what was sent for too long. @param now on the monotonic clock, ms. */
  checkTaken(now: number): void {
    if (this.#outflow.stalled(now)) this.#cut();
  }

  /** Takes one message of the client. */
  receive(text: string): void {
    if (!this.#closed) this.#inflow.receive(text);
  }

  #take(text: string): void {
    try {
      this.#dispatch(readMessage(text));
    } catch (error) {
      // whatever a message breaks, it is that message's fault: other clients must not notice
      const reason = error instanceof ProtocolFault ? error.message : "Received an invalid message.";
      this.send(JSON.stringify({ type: "FatalError", error: reason }));
      this.close(PROTOCOL_ERROR, "FatalError");
    }
  }

  /** Ends the connection of a client that reads nothing, a goodbye neither. */
  #cut(): void {
    this.left();
    this.#socket.terminate();
  }

  #dispatch(message: ClientMessage): void {
    if (message.type === "Connect") {
      this.#connect(message);
      return;
    }
    if (this.#session === null) throw new ProtocolFault("The first message must be Connect.");
    switch (message.type) {
      case "ModifyQuerySet":
        return this.#modify(message);
      case "Mutation":
        return this.#mutate(message);
      case "Action":
        return this.#act(message);
      case "Authenticate":
        return this.#authenticate(message);
      case "Event":
    }
  }

  #connect({ session, observed }: ClientMessage & { type: "Connect" }): void {
    this.#session = session;
    if (observed !== null && observed - BigInt(Date.now()) * NS_PER_MS > MAX_AHEAD_NS) {
      throw new ProtocolFault("The client has seen a timestamp that lies far in the future.");
    }
    if (observed !== null) this.#shared.host.observe(observed);
    // an answer at once makes the operating system send what else the client has, without waiting for more
    this.send('{"type":"Ping"}');
  }

  #modify({ base, next, modifications }: ClientMessage & { type: "ModifyQuerySet" }): void {
    if (base !== this.#next.querySet) {
      throw new ProtocolFault(`Base version ${base} passed up doesn't match the current version`);
    }
    this.#next.querySet = next;
    for (const modification of modifications) {
      if (modification.type === "Add") this.#add(modification);
      else this.#remove(modification.queryId);
    }
    this.#owe();
  }

  #add({ queryId, path, args, journal }: Modification & { type: "Add" }): void {
    if (this.#subscriptions.has(queryId)) throw new ProtocolFault(`Query ${queryId} was added twice.`);
    const length = path.length + args.length + (journal?.length ?? 0);
    if (this.#subscriptions.size >= MAX_SUBSCRIPTIONS) {
      throw new ProtocolFault(`One client subscribes to at most ${MAX_SUBSCRIPTIONS} queries.`);
    }
    if (this.#subscribedLength + length > MAX_SUBSCRIBED_LENGTH) {
      throw new ProtocolFault(`All queries of one client have at most ${MAX_SUBSCRIBED_LENGTH} characters.`);
    }
    this.#subscribedLength += length;
    const watch = this.#shared.watches.subscribe(this, path, args, journal, this.#caller);
    this.#subscriptions.set(queryId, { watch, sent: 0, length });
  }

  #remove(queryId: number): void {
    const subscription = this.#subscriptions.get(queryId);
    if (subscription === undefined)
      throw new ProtocolFault(`Query ${queryId} was removed without being there.`);
    this.#subscriptions.delete(queryId);
    this.#subscribedLength -= subscription.length;
    if (![...this.#subscriptions.values()].some(({ watch }) => watch === subscription.watch)) {
      this.#shared.watches.unsubscribe(subscription.watch, this);
    }
    this.#removed.push(queryId);
  }

  /** The call of a message, or the refusal. */
  #callOf(
    { path, args, component }: ClientMessage & { type: "Mutation" | "Action" },
    kind: FunctionKind,
  ): Call | (Outcome & { ok: false }) {
    if (component) return { ok: false, message: "Components are not supported by this backend." };
    const found = resolveFunction(this.#shared.host, path, kind, this.#caller);
    if ("ok" in found) return found as Outcome & { ok: false };
    const info = { ...this.#info, requestId: newRequestId() };
    return { path: found.path, args, info, scheduledId: null };
  }

  #mutate(message: ClientMessage & { type: "Mutation" | "Action" }): void {
    const { request } = message;
    const call = this.#callOf(message, "mutation");
    if ("ok" in call) {
      this.#answer("MutationResponse", request, call, null);
      return;
    }
    const session = { id: this.#session as string, request };
    this.#await(call, this.#shared.host.mutation({ type: "mutation", call, session }), ({ outcome, ts }) =>
      this.#answer("MutationResponse", request, outcome, ts),
    );
  }

  #act(message: ClientMessage & { type: "Mutation" | "Action" }): void {
    const { request } = message;
    const call = this.#callOf(message, "action");
    if ("ok" in call) this.#answer("ActionResponse", request, call, null);
    else {
      this.#await(call, runCall(this.#shared.host, "action", call), (outcome) =>
        this.#answer("ActionResponse", request, outcome, null),
      );
    }
  }

  /** Counts a call as open until it is answered. */
  #await<Answer>({ args }: Call, answer: Promise<Answer>, then: (answer: Answer) => void): void {
    this.#inflow.begin(args.length);
    void answer.then((found) => {
      then(found);
      this.#inflow.end(args.length);
    });
  }

  #answer(type: string, requestId: number, outcome: Outcome, ts: bigint | null): void {
    const head = `{"type":"${type}","requestId":${requestId},"success":${outcome.ok},"logLines":[]`;
    if (outcome.ok) {
      const stamp = ts === null ? "" : `,"ts":"${writeTs(ts)}"`;
      this.send(`${head}${stamp},"result":${outcome.value}}`);
    } else {
      const text = JSON.stringify(errorMessage(outcome, newRequestId(), this.#caller.admin));
      const data = outcome.data === undefined ? "" : `,"errorData":${outcome.data}`;
      this.send(`${head},"result":${text}${data}}`);
    }
    this.#owe();
  }

  #authenticate(message: ClientMessage & { type: "Authenticate" }): void {
    if (message.base !== this.#next.identity) {
      throw new ProtocolFault(`Identity base version ${message.base} doesn't match the current version`);
    }
    const refusal = this.#refusalOf(message);
    if (refusal !== null) {
      const { identity } = this.#next;
      this.send(
        JSON.stringify({
          type: "AuthError",
          error: refusal,
          baseVersion: identity,
          authUpdateAttempted: true,
        }),
      );
      this.close(PROTOCOL_ERROR, "AuthError");
      return;
    }
    this.#next.identity++;
    this.#caller = { admin: message.tokenType === "Admin" };
    // what somebody may see depends on who asks: every query is another one now
    for (const [queryId, { watch, length }] of [...this.#subscriptions]) {
      const { path, args } = watch.call;
      const next = this.#shared.watches.subscribe(this, path, args, watch.journal, this.#caller);
      this.#subscriptions.set(queryId, { watch: next, sent: 0, length });
      if (next !== watch) this.#shared.watches.unsubscribe(watch, this);
    }
    this.#owe();
  }

  #refusalOf(message: ClientMessage & { type: "Authenticate" }): string | null {
    if (message.tokenType === "None") return null;
    if (message.tokenType !== "Admin") return "User tokens are not supported by this backend.";
    if (message.impersonating) return "Acting as a user is not supported by this backend.";
    return isAdminKey(this.#shared.adminKey, message.value) ? null : "The provided admin key is wrong.";
  }

  #owe(): void {
    this.#owed = true;
    this.#urgent = true;
    this.#schedule();
  }

  /** Sees to it that an update runs: at once for somebody who waits, else when the queries may run again. */
  #schedule(): void {
    if (this.#closed || this.#updating || this.#outflow.full()) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const wait = this.#urgent ? 0 : this.#earliest() - monotonicMs();
    if (wait <= 0) void this.#update();
    else this.#timer = setTimeout(() => void this.#update(), wait);
  }

  /** When the stale queries may run again, on the monotonic clock, ms. */
  #earliest(): number {
    let latest = 0;
    for (const { watch } of this.#subscriptions.values()) {
      if (watch.dirty) latest = Math.max(latest, watch.ranAt);
    }
    return latest + RERUN_EVERY_MS;
  }

  async #update(): Promise<void> {
    if (this.#updating) return;
    this.#updating = true;
    // what arrives in this turn of the loop belongs into the same Transition
    await Promise.resolve();
    this.#urgent = false;
    const touched = new Set<Watch>();
    for (let round = 0, stale = this.#stale(); stale.length > 0; round++, stale = this.#stale()) {
      for (const watch of stale) touched.add(watch);
      // under many writes one is touched while another runs, again and again: run together, they are fresh together
      await this.#shared.watches.refresh(round < MAX_SINGLE_ROUNDS ? stale : [...touched]);
      if (this.#closed) return;
    }
    this.#updating = false;
    this.#transition();
    if (this.#urgent || this.#stale().length > 0) this.#schedule();
  }

  #stale(): Watch[] {
    return [...this.#subscriptions.values()].map(({ watch }) => watch).filter((watch) => watch.dirty);
  }

  /** Sends the Transition to the latest timestamp, unless there is nothing to tell. All queries are fresh. */
  #transition(): void {
    const changed = [...this.#subscriptions].filter(([, { watch, sent }]) => sent !== watch.version);
    if (!this.#owed && changed.length === 0 && this.#removed.length === 0) return;
    const start = versionText(this.#known);
    const { ts } = this.#shared.host;
    this.#known = { ...this.#next, ts: ts > this.#known.ts ? ts : this.#known.ts };
    const end = versionText(this.#known);
    const pieces: (string | Buffer)[] = [];
    const removals = this.#removed.map((queryId) => `{"type":"QueryRemoved","queryId":${queryId}}`);
    let text = `{"type":"Transition","startVersion":${start},"endVersion":${end},"modifications":[${removals.join(",")}`;
    let comma = removals.length > 0 ? "," : "";
    for (const [queryId, subscription] of changed) {
      const { watch } = subscription;
      subscription.sent = watch.version;
      text += `${comma}{"type":"${watch.type}","queryId":${queryId},`;
      comma = ",";
      if (watch.text.length < MIN_SHARED_LENGTH) {
        text += watch.text;
      } else {
        watch.bytes ??= Buffer.from(watch.text);
        pieces.push(text, watch.bytes);
        text = "";
      }
    }
    this.#owed = false;
    this.#removed = [];
    this.send(...pieces, `${text}]}`);
  }
}

function versionText(version: { querySet: number; identity: number; ts: bigint }): string {
  return `{"querySet":${version.querySet},"identity":${version.identity},"ts":"${writeTs(version.ts)}"}`;
}
