/**
 * Calling functions by name from outside: who may call what, and the sentences for those who may not
 * (crates/udf/src/validation.rs). Used by HTTP, the WebSocket protocol and actions alike.
 */
import { canonicalPath, SYSTEM_PREFIX } from "./functions.ts";
import type { Host } from "./host.ts";
import type { ActionCall, Call, FunctionKind, Outcome, RequestInfo } from "./messages.ts";
import type { Json } from "./values.ts";

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
    return { ok: false, message: missing(canonical, caller) };
  }
  if (kind !== null && known.kind !== kind) {
    const message = `Trying to execute ${canonical} as ${NAMES[kind]}, but it is defined as ${NAMES[known.kind]}.`;
    return { ok: false, message };
  }
  return { kind: known.kind, path: canonical };
}

function missing(path: string, caller: Caller): string {
  if (!caller.admin) return `Could not find public function for '${path}'. Did you forget to deploy it?`;
  if (path.startsWith(SYSTEM_PREFIX)) return `The system query ${path} is not supported by this backend.`;
  // at these words `convex run` lists what there is
  return `Could not find function for '${path}'. Did you forget to run \`npx convex dev\`?`;
}

/** The JSON text of an argument array, from one or from its only element; null when it nests deeper than anything can. */
export function writeArguments(args: Json): string | null {
  try {
    return JSON.stringify(Array.isArray(args) ? args : [args]);
  } catch {
    // the parser has no stack to run out of, the writer has
    return null;
  }
}

/** Runs a resolved call to its end. */
export async function runCall(host: Host, kind: FunctionKind, call: Call): Promise<Outcome> {
  switch (kind) {
    case "query": {
      const [outcome] = await host.queries([{ call, journal: null, watch: null }]);
      return outcome as Outcome;
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

/** Looks queries up and runs them, all on one snapshot. @param asked `args` is JSON text of the argument array. */
export async function runQueries(
  host: Host,
  asked: { path: string; args: string; caller: Caller; info: RequestInfo }[],
): Promise<Outcome[]> {
  const found = asked.map(({ path, caller }) => resolveFunction(host, path, "query", caller));
  const runs = asked.flatMap(({ args, info }, position) => {
    const target = found[position] as (typeof found)[number];
    if ("ok" in target) return [];
    return [{ call: { path: target.path, args, info, scheduledId: null }, journal: null, watch: null }];
  });
  const outcomes = await host.queries(runs);
  return found.map((target) => ("ok" in target ? target : (outcomes.shift() as Outcome)));
}

/** Looks a query up and runs it on a snapshot; null when that is not kept any more. @param args JSON text of the argument array. */
export async function runQueryAt(
  host: Host,
  ts: bigint,
  { path, args, caller, info }: { path: string; args: string; caller: Caller; info: RequestInfo },
): Promise<Outcome | null> {
  const found = resolveFunction(host, path, "query", caller);
  if ("ok" in found) return found;
  const call: Call = { path: found.path, args, info, scheduledId: null };
  return host.queryAt({ call, journal: null, watch: null }, ts);
}

/** What a running action asked for. Actions may call internal functions. */
export async function callFromAction(host: Host, target: ActionCall): Promise<Outcome> {
  if (target.type === "housekeeping") {
    return (await host.mutation({ type: "housekeeping", work: target.work })).outcome;
  }
  const found = resolveFunction(host, target.call.path, target.kind, { admin: true });
  return "ok" in found ? found : runCall(host, found.kind, target.call);
}
