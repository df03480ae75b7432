/**
 * The queries that the official CLI asks of a deployment (`convex function-spec`, `data`, `env list`), in the shapes of Convex's own
 * (npm-packages/system-udfs/convex/_system/cli). They are internal functions beside the app's: only the admin key opens them.
 */
import { SYSTEM_PREFIX, type App, type Definition } from "./functions.ts";
import { readPage } from "./pages.ts";
import type { Run } from "./runtime.ts";
import type { Transaction } from "./transaction.ts";
import type { Json, JsonObject } from "./values.ts";

/** What one page of `convex data` may read, as on Convex: less than a query may. */
const MAX_PAGE_ROWS = 10_000;
const MAX_PAGE_BYTES = 5_000_000;
const TYPES = { query: "Query", mutation: "Mutation", action: "Action" } as const;

/** One page that is everything, as `paginate` answers it. */
function wholePage(page: Json[]): Json {
  return { page, isDone: true, continueCursor: "end" };
}

/** What the app offers, as `convex function-spec` prints it: its functions by path, then its HTTP routes. */
function describeApp(app: App): Json[] {
  const spec: Json[] = [];
  for (const { path, kind, internal, validators } of app.functions.values()) {
    const [module = "", name = "default"] = path.split(":");
    const visibility = { kind: internal ? "internal" : "public" };
    spec.push({ identifier: `${module}.js:${name}`, functionType: TYPES[kind], visibility, ...validators });
  }
  for (const [path, method] of app.router?.getRoutes() ?? []) {
    spec.push({ functionType: "HttpAction", method, path });
  }
  return spec;
}

function readTable(run: Run, tx: Transaction, args: JsonObject): string {
  const { table, order, paginationOpts } = args as {
    table: string;
    order: "asc" | "desc";
    paginationOpts: { cursor: string | null; numItems: number };
  };
  return readPage(run, tx, {
    query: { source: { type: "FullTableScan", tableName: table, order }, operators: [] },
    cursor: paginationOpts.cursor,
    endCursor: null,
    pageSize: paginationOpts.numItems,
    maximumRowsRead: MAX_PAGE_ROWS,
    maximumBytesRead: MAX_PAGE_BYTES,
  });
}

/** The system queries of an app. @param url where the deployment answers. */
export function systemFunctions(app: App, url: string): Definition[] {
  // taken before these queries join the app's functions: they are not the app's
  const spec = JSON.stringify(describeApp(app));
  const query = (
    name: string,
    answer: (tx: Transaction, args: JsonObject, run: Run) => string,
  ): Definition => ({
    path: `${SYSTEM_PREFIX}cli/${name}`,
    kind: "query",
    internal: true,
    validators: { args: { type: "any" }, returns: { type: "any" } },
    checkArgs: null,
    checkReturns: null,
    invoke: async (args, run) => answer(run.tx as Transaction, (JSON.parse(args) as [JsonObject])[0], run),
  });
  return [
    query("modules:apiSpec", () => spec),
    query("convexUrl:cloudUrl", () => JSON.stringify(url)),
    query("tables", (tx) => {
      const names = [...tx.world.store.tables()].map(({ name }) => name);
      return JSON.stringify(
        wholePage(names.filter((name) => !name.startsWith("_")).map((name) => ({ name }))),
      );
    }),
    query("tableData", (tx, args, run) => readTable(run, tx, args)),
    // nothing can be set: what functions find in process.env is not listed on Convex either
    query("queryEnvironmentVariables", () => "[]"),
    query("queryEnvironmentVariables:get", () => "null"),
  ];
}
