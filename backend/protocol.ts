/**
 * What a client says on the WebSocket protocol (npm convex, src/browser/sync/protocol.ts), read and checked once: behind this file
 * every number is one, and every text a text of bounded length.
 */
import { writeArguments } from "./calls.ts";
import { readTs } from "./clock.ts";
import type { Json, JsonObject } from "./values.ts";

/** Counters of the protocol are unsigned 32-bit numbers. */
const MAX_COUNTER = 2 ** 32 - 1;
/** Longest session id, characters: it is stored with each answer, and the clients send UUIDs. */
const MAX_SESSION_LENGTH = 64;

/** A change of what a client subscribes to; `args` is JSON text of the argument array. */
export type Modification =
  | { type: "Add"; queryId: number; path: string; args: string; journal: string | null }
  | { type: "Remove"; queryId: number };

/** One message of a client. */
export type ClientMessage =
  | { type: "Connect"; session: string; observed: bigint | null }
  | { type: "ModifyQuerySet"; base: number; next: number; modifications: Modification[] }
  | { type: "Mutation" | "Action"; request: number; path: string; args: string; component: boolean }
  | { type: "Authenticate"; base: number; tokenType: string; value: string; impersonating: boolean }
  | { type: "Event" };

/** A message that breaks the protocol; the sentence goes to the client as a FatalError. */
export class ProtocolFault extends Error {}

function counter(message: JsonObject, name: string): number {
  const value = message[name];
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= MAX_COUNTER)
    return value;
  throw new ProtocolFault(
    `Received an invalid message: \`${name}\` must be a number from 0 to ${MAX_COUNTER}.`,
  );
}

function text(message: JsonObject, name: string): string {
  const value = message[name];
  if (typeof value === "string") return value;
  throw new ProtocolFault(`Received an invalid message: \`${name}\` must be a text.`);
}

function argumentsOf(message: JsonObject): string {
  const args = writeArguments(message.args ?? {});
  if (args === null) throw new ProtocolFault("Received an invalid message: its arguments are too nested.");
  return args;
}

function modificationOf(value: Json): Modification {
  const modification = objectOf(value);
  const queryId = counter(modification, "queryId");
  switch (modification.type) {
    case "Add": {
      const journal = (modification.journal ?? null) === null ? null : text(modification, "journal");
      const path = text(modification, "udfPath");
      return { type: "Add", queryId, path, args: argumentsOf(modification), journal };
    }
    case "Remove":
      return { type: "Remove", queryId };
    default:
      throw new ProtocolFault("Received an invalid message: a modification must be an Add or a Remove.");
  }
}

function objectOf(value: Json | undefined): JsonObject {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new ProtocolFault("Received an invalid message: this must be an object.");
}

function parse(source: string): JsonObject {
  try {
    return objectOf(JSON.parse(source) as Json);
  } catch (error) {
    if (error instanceof ProtocolFault) throw error;
    throw new ProtocolFault(`Received an invalid message: this is not JSON: ${(error as Error).message}`);
  }
}

/** Reads a message. @throws ProtocolFault for one that no client sends, or that this backend does not support. */
export function readMessage(source: string): ClientMessage {
  const message = parse(source);
  switch (message.type) {
    case "Connect": {
      const session = message.sessionId;
      if (typeof session !== "string" || session.length > MAX_SESSION_LENGTH) {
        throw new ProtocolFault("Connect without a sessionId.");
      }
      return { type: "Connect", session, observed: readTs(message.maxObservedTimestamp) };
    }
    case "ModifyQuerySet": {
      const { modifications } = message;
      if (!Array.isArray(modifications)) {
        throw new ProtocolFault("Received an invalid message: `modifications` must be an array.");
      }
      const [base, next] = [counter(message, "baseVersion"), counter(message, "newVersion")];
      return { type: "ModifyQuerySet", base, next, modifications: modifications.map(modificationOf) };
    }
    case "Mutation":
    case "Action": {
      const [request, path] = [counter(message, "requestId"), text(message, "udfPath")];
      const component = Boolean(message.componentPath);
      return { type: message.type, request, path, args: argumentsOf(message), component };
    }
    case "Authenticate": {
      const { impersonating } = message;
      const tokenType = text(message, "tokenType");
      const value = tokenType === "Admin" ? text(message, "value") : "";
      const base = counter(message, "baseVersion");
      return { type: "Authenticate", base, tokenType, value, impersonating: Boolean(impersonating) };
    }
    case "Event":
      return { type: "Event" };
    default:
      throw new ProtocolFault("Messages of this type are not supported by this backend.");
  }
}
