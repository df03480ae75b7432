/**
 * Loads the bundled app: which functions it has (paths, kinds, validators), its schema, crons and HTTP routes.
 * The bundle is one ES module that exports `modules` (by path without ending), `schema`, and nothing else (bundle.ts).
 */
import { registerHooks } from "node:module";
import type { FunctionKind, FunctionSummary } from "./messages.ts";
import { compileValidator, type Check, type TableNames, type ValidatorJson } from "./validate.ts";
import type { Run } from "./runtime.ts";
import type { Json } from "./values.ts";

const BUNDLE_URL = "functions:bundle";
/** Paths that begin so are Convex's own (system.ts). */
export const SYSTEM_PREFIX = "_system/";

/** A function as npm convex registers it. */
type Registered = {
  isQuery?: boolean;
  isMutation?: boolean;
  isAction?: boolean;
  isInternal?: boolean;
  invokeQuery?: (args: string) => Promise<string>;
  invokeMutation?: (args: string) => Promise<string>;
  invokeAction?: (requestId: string, args: string) => Promise<string>;
  exportArgs: () => string;
  exportReturns: () => string;
};

/** An HTTP action. */
export type HttpHandler = { invokeHttpAction: (request: Request) => Promise<Response> };

/** The default export of http.ts. */
export type Router = {
  isRouter: true;
  lookup: (path: string, method: string) => readonly [HttpHandler, string, string] | null;
  /** Paths (of a prefix, with a `*` at its end), methods, handlers. */
  getRoutes: () => (readonly [string, string, HttpHandler])[];
};

/** One cron of crons.ts, as `export()` writes it. */
export type CronSpec = { name: string; args: Json[]; schedule: Record<string, Json> & { type: string } };

/** The schema as `export()` writes it; staged indexes are not built here. */
export type SchemaJson = {
  tables: {
    tableName: string;
    indexes: { indexDescriptor: string; fields: string[] }[];
    documentType: ValidatorJson | null;
  }[];
  schemaValidation: boolean;
};

/** A function, ready to be called with the JSON text of its argument array. */
export type Definition = FunctionSummary & {
  path: string;
  /** As exported; `any` where there is none. */
  validators: { args: ValidatorJson; returns: ValidatorJson };
  /** null when any arguments are welcome. */
  checkArgs: Check | null;
  checkReturns: Check | null;
  invoke: (args: string, run: Run) => Promise<string>;
};

/** The loaded app. */
export type App = {
  functions: Map<string, Definition>;
  schema: SchemaJson | null;
  crons: Record<string, CronSpec>;
  router: Router | null;
};

type BundleExports = {
  modules: Record<string, Record<string, unknown>>;
  schema?: { export: () => string };
};

/**
 * Evaluates the bundle. Call once per thread.
 *
 * @param tableNames names of tables by number, asked when an id is validated.
 * @throws whatever the app's modules throw, and Error for a bundle that is none.
 */
export async function loadApp(bundle: string, tableNames: TableNames): Promise<App> {
  registerHooks({
    resolve: (specifier, context, next) =>
      specifier === BUNDLE_URL
        ? { url: BUNDLE_URL, format: "module", shortCircuit: true }
        : next(specifier, context),
    load: (url, context, next) =>
      url === BUNDLE_URL ? { format: "module", source: bundle, shortCircuit: true } : next(url, context),
  });
  const loaded = (await import(BUNDLE_URL)) as Partial<BundleExports>;
  if (loaded.modules === undefined) {
    throw new Error("this is no bundle of functions: make one with bundle.ts");
  }
  const functions = new Map<string, Definition>();
  for (const [module, exports] of Object.entries(loaded.modules)) {
    for (const [name, value] of Object.entries(exports)) {
      const definition = define(canonicalPath(`${module}:${name}`), value, tableNames);
      if (definition !== null) functions.set(definition.path, definition);
    }
  }
  const crons = loaded.modules.crons?.default as { isCrons?: boolean; export: () => string } | undefined;
  const router = loaded.modules.http?.default as Router | undefined;
  return {
    functions,
    schema: loaded.schema === undefined ? null : (JSON.parse(loaded.schema.export()) as SchemaJson),
    crons: crons?.isCrons ? (JSON.parse(crons.export()) as Record<string, CronSpec>) : {},
    router: router?.isRouter ? router : null,
  };
}

/** One spelling for a function's path: no `.js`, no `:default`. */
export function canonicalPath(path: string): string {
  const [module = "", name = "default"] = path.split(":");
  const stem = module.replace(/\.js$/, "");
  return name === "default" ? stem : `${stem}:${name}`;
}

function define(path: string, value: unknown, tableNames: TableNames): Definition | null {
  if (typeof value !== "function") return null;
  const registered = value as unknown as Registered;
  const kind: FunctionKind | null = registered.isQuery
    ? "query"
    : registered.isMutation
      ? "mutation"
      : registered.isAction
        ? "action"
        : null;
  if (kind === null) return null;
  const validatorOf = (text: string): ValidatorJson =>
    (JSON.parse(text) as ValidatorJson | null) ?? { type: "any" };
  const compileUnlessAny = (validator: ValidatorJson): Check | null =>
    validator.type === "any" ? null : compileValidator(validator, tableNames);
  const args = validatorOf(registered.exportArgs());
  const returns = validatorOf(registered.exportReturns());
  return {
    path,
    kind,
    internal: registered.isInternal === true,
    validators: { args, returns },
    checkArgs: compileUnlessAny(args),
    checkReturns: compileUnlessAny(returns),
    invoke: (args) => {
      if (registered.invokeQuery) return registered.invokeQuery(args);
      if (registered.invokeMutation) return registered.invokeMutation(args);
      return (registered.invokeAction as NonNullable<Registered["invokeAction"]>)("", args);
    },
  };
}
