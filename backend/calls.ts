/**
 * Calling functions by name from outside: who may call what, and the sentences for those who may not
 * (crates/udf/src/validation.rs). Used by HTTP, the WebSocket protocol and actions alike.
 */
import { canonicalPath } from "./functions.ts";
import type { Host } from "./host.ts";
import type { ActionCall, Call, FunctionKind, Outcome, RequestInfo } from "./messages.ts";

/** Who calls. A development backend knows no users: either somebody with the admin key, or anybody. */
export type Caller = { admin: boolean };

const NAMES: Record<FunctionKind, string> = { query: "Query", mutation: "Mutation", action: "Action" };

/**
 * Looks a function up.
 *
 * @param kind what it is to be called as; null for any.
 * @returns its kind and canonical path, or the refusal as an outcome.
 */
export function resolveFunction(
  host: Host,
  path: string,
  kind: FunctionKind | null,
  caller: Caller,
): { kind: FunctionKind; path: string } | Outcome {
  const canonical = canonicalPath(path);
  const known = host.functions.get(canonical);
  if (known === undefined || (known.internal && !caller.admin)) {
    return {
      ok: false,
      message: `Could not find public function for '${canonical}'. Did you forget to deploy it?`,
    };
  }
  if (kind !== null && known.kind !== kind) {
    const message = `Trying to execute ${canonical} as ${NAMES[kind]}, but it is defined as ${NAMES[known.kind]}.`;
    return { ok: false, message };
  }
  return { kind: known.kind, path: canonical };
}

/** Runs a resolved call to its end. */
export async function runCall(host: Host, kind: FunctionKind, call: Call): Promise<Outcome> {
  switch (kind) {
    case "query": {
      const { outcomes } = await host.queries([{ call, journal: null, watch: null }]);
      return outcomes[0] as Outcome;
    }
    case "mutation":
      return (await host.mutation({ type: "mutation", call })).outcome;
    case "action":
      return host.action(call);
  }
}

/** Looks up and runs. @param args JSON text of the argument array. */
export async function callFunction(
  host: Host,
  request: { path: string; args: string; kind: FunctionKind | null; caller: Caller; info: RequestInfo },
): Promise<Outcome> {
  const found = resolveFunction(host, request.path, request.kind, request.caller);
  if ("ok" in found) return found;
  const call: Call = { path: found.path, args: request.args, info: request.info, scheduledId: null };
  return runCall(host, found.kind, call);
}

/** What a running action asked for. Actions may call internal functions. */
export async function callFromAction(host: Host, target: ActionCall): Promise<Outcome> {
  if (target.type === "housekeeping") {
    return (await host.mutation({ type: "housekeeping", work: target.work })).outcome;
  }
  const found = resolveFunction(host, target.call.path, target.kind, { admin: true });
  return "ok" in found ? found : runCall(host, found.kind, target.call);
}
