/**
 * The syscalls of npm convex: what `ctx.db`, `ctx.scheduler`, `ctx.run…`, `ctx.auth` and `ctx.meta` ask of the host.
 * README.md lists which are done and which are refused by name.
 */
import { canonicalPath, type App } from "./functions.ts";
import type { ActionCall, Call, FunctionKind, Outcome } from "./messages.ts";
import { readPage, type PageRequest } from "./pages.ts";
import { Stream } from "./query.ts";
import type { SerializedQuery } from "./ranges.ts";
import { checkOpen, describeError, invoke, newRun, type Run, type Syscalls } from "./runtime.ts";
import { cancelJob, scheduleJob } from "./jobs.ts";
import type { Transaction } from "./transaction.ts";
import { encodeInt64, type Json, type JsonObject } from "./values.ts";

/** What syscalls need of the engine. */
export type Engine = {
  /** The loaded app. */
  app: App;
  /** Asks the main thread on behalf of an action. */
  callOut: (target: ActionCall) => Promise<Outcome>;
};

const HANDLE_PREFIX = "function://;";

/** A table, an id or a kind in a syscall's arguments, read as text. */
function text(args: JsonObject, name: string): string {
  return args[name] as string;
}

function optionalText(args: JsonObject, name: string): string | undefined {
  return (args[name] as string | undefined) ?? undefined;
}

/** The path of the function that an address means. */
export function pathOf(address: JsonObject): string {
  if (typeof address.name === "string") return canonicalPath(address.name);
  if (typeof address.functionHandle === "string" && address.functionHandle.startsWith(HANDLE_PREFIX)) {
    return canonicalPath(address.functionHandle.slice(HANDLE_PREFIX.length));
  }
  throw new Error("Components are not supported by this backend: only functions of the app can be called.");
}

function transactionOf(run: Run, operation: string): Transaction {
  if (run.tx === null) throw new Error(`Unknown async operation ${operation}`);
  return run.tx;
}

/** An outcome as the convex package wants it: JSON text, or an error that carries a ConvexError's data. */
function unwrap(outcome: Outcome): string {
  if (outcome.ok) return outcome.value;
  const error = new Error(outcome.message) as Error & { data?: Json };
  if (outcome.data !== undefined) error.data = JSON.parse(outcome.data) as Json;
  throw error;
}

function callOf(run: Run, path: string, args: Json): Call {
  return { path, args: JSON.stringify([args]), info: run.call.info, scheduledId: run.call.scheduledId };
}

/** Makes the syscalls of an engine. */
export function makeSyscalls(engine: Engine): Syscalls {
  const stream = (run: Run, args: JsonObject): Stream | undefined => run.streams.get(args.queryId as number);

  const sync: Record<string, (run: Run, args: JsonObject) => Json> = {
    "1.0/queryStream": (run, args) => {
      const tx = transactionOf(run, "1.0/queryStream");
      const queryId = run.streams.size + 1;
      run.streams.set(queryId, new Stream(tx, args.query as unknown as SerializedQuery));
      return { queryId };
    },
    // the number stays taken, so that no other stream gets it
    "1.0/queryCleanup": (run, args) => {
      stream(run, args)?.close();
      return stream(run, args) !== undefined;
    },
    "1.0/db/normalizeId": (run, args) => ({
      id: transactionOf(run, "1.0/db/normalizeId").normalizeId(text(args, "table"), text(args, "idString")),
    }),
    "1.0/getSnapshotTs": (run) => encodeInt64(transactionOf(run, "1.0/getSnapshotTs").ts),
  };

  const database: Record<string, (tx: Transaction, args: JsonObject, run: Run) => string> = {
    "1.0/get": (tx, args) =>
      tx.get(text(args, "id"), optionalText(args, "table"), args.isSystem === true) ?? "null",
    "1.0/insert": (tx, args) => `{"_id":"${tx.insert(text(args, "table"), args.value as Json)}"}`,
    "1.0/shallowMerge": (tx, args) => {
      tx.patch(text(args, "id"), optionalText(args, "table"), args.value as JsonObject);
      return "null";
    },
    "1.0/replace": (tx, args) => {
      tx.replace(text(args, "id"), optionalText(args, "table"), args.value as Json);
      return "null";
    },
    "1.0/remove": (tx, args) => {
      tx.remove(text(args, "id"), optionalText(args, "table"));
      return "null";
    },
    "1.0/queryStreamNext": (_tx, args, run) => {
      const document = stream(run, args)?.next() ?? null;
      return `{"value":${document ?? "null"},"done":${document === null}}`;
    },
    "1.0/queryPage": (tx, args, run) => readPage(run, tx, args as unknown as PageRequest),
    "1.0/count": (tx, args) => {
      const counter = new Stream(tx, {
        source: { type: "FullTableScan", tableName: text(args, "table"), order: null },
        operators: [],
      });
      let count = 0;
      while (counter.next() !== null) count++;
      return String(count);
    },
    "1.0/getTransactionMetrics": (tx) => JSON.stringify(tx.meter.report()),
    "1.0/schedule": (tx, args) => JSON.stringify(scheduleJob(tx, engine.app, pathOf(args), args)),
    "1.0/cancel_job": (tx, args) => {
      cancelJob(tx, text(args, "id"));
      return "null";
    },
  };

  const nested = (run: Run, tx: Transaction, args: JsonObject): Promise<string> => {
    const kind = args.udfType === "mutation" ? "mutation" : "query";
    const path = pathOf(args);
    const definition = engine.app.functions.get(path);
    if (definition === undefined) throw new Error(`Could not find function for '${path}'.`);
    if (definition.kind !== kind) {
      throw new Error(
        `Trying to execute ${path} as ${name(kind)}, but it is defined as ${name(definition.kind)}.`,
      );
    }
    if (kind === "mutation" && run.kind === "query") {
      throw new Error("Cannot call a Mutation function from a Query function");
    }
    if (args.transactionLimits !== undefined) {
      throw new Error("transactionLimits are not supported by this backend.");
    }
    const inner = newRun(definition, callOf(run, path, args.args as Json), tx);
    inner.caller = run;
    const work = (): Promise<string> =>
      invoke(definition, inner).finally(() => {
        inner.closed = true;
      });
    return subTransaction(tx, kind, work);
  };

  const fromAction = (run: Run, kind: FunctionKind, args: JsonObject): Promise<string> =>
    engine.callOut({ type: "run", kind, call: callOf(run, pathOf(args), args.args as Json) }).then(unwrap);

  const anywhere: Record<string, (run: Run, args: JsonObject) => Promise<string> | string> = {
    // users do not sign in to a development backend
    "1.0/getUserIdentity": () => "null",
    "1.0/getFunctionMetadata": (run) => JSON.stringify({ name: run.path, componentPath: "" }),
    "1.0/getDeploymentMetadata": () => JSON.stringify({ name: "local", region: null, class: "s16" }),
    "1.0/getRequestMetadata": (run) =>
      JSON.stringify({ ...run.call.info, scheduledFunctionId: run.call.scheduledId, authToken: null }),
    "1.0/createFunctionHandle": (_run, args) => JSON.stringify(HANDLE_PREFIX + pathOf(args)),
  };

  const actions: Record<string, (run: Run, args: JsonObject) => Promise<string>> = {
    "1.0/actions/query": (run, args) => fromAction(run, "query", args),
    "1.0/actions/mutation": (run, args) => fromAction(run, "mutation", args),
    "1.0/actions/action": (run, args) => fromAction(run, "action", args),
    "1.0/actions/schedule": (_run, args) =>
      engine
        .callOut({ type: "housekeeping", work: { type: "schedule", args: JSON.stringify(args) } })
        .then(unwrap),
    "1.0/actions/cancel_job": (_run, args) =>
      engine.callOut({ type: "housekeeping", work: { type: "cancel", id: text(args, "id") } }).then(unwrap),
  };

  const perform = (run: Run, operation: string, args: JsonObject): Promise<string> | string => {
    const onDatabase = database[operation];
    if (onDatabase !== undefined) return onDatabase(transactionOf(run, operation), args, run);
    const common = anywhere[operation];
    if (common !== undefined) return common(run, args);
    const fromActions = run.kind === "action" ? actions[operation] : undefined;
    if (fromActions !== undefined) return fromActions(run, args);
    throw new Error(`${operation} is not supported by this backend.`);
  };

  return {
    sync: (run, operation, args) => {
      const handler = sync[operation];
      if (handler === undefined) throw new Error(`${operation} is not supported by this backend.`);
      return handler(run, args as JsonObject);
    },
    async: async (run, operation, args) => {
      // a sub-transaction is alone on the savepoint stack: whoever else calls meanwhile has to wait
      while (run.nested !== null) await run.nested;
      checkOpen(run);
      if (operation !== "1.0/runUdf") return perform(run, operation, args as JsonObject);
      const work = nested(run, transactionOf(run, operation), args as JsonObject);
      run.nested = work
        .catch(() => undefined)
        .then(() => {
          run.nested = null;
        });
      return work.catch((error: unknown) => unwrap(describeError(error)));
    },
  };
}

/** A kind as Convex writes it in sentences. */
export function name(kind: FunctionKind): string {
  return { query: "Query", mutation: "Mutation", action: "Action" }[kind];
}

async function subTransaction(
  tx: Transaction,
  kind: FunctionKind,
  work: () => Promise<string>,
): Promise<string> {
  if (kind === "query") return work();
  const savepoint = tx.savepoint();
  try {
    const result = await work();
    tx.release(savepoint);
    return result;
  } catch (error) {
    tx.rollback(savepoint);
    throw error;
  }
}
