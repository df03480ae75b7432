/**
 * The world inside a function: `globalThis.Convex`, and globals that behave as in Convex's runtime. In queries and mutations
 * the clock stands still, `Math.random` is seeded, every promise of the host settles at once, and timers and `fetch` are
 * refused. Actions have the real things. The engine's own code keeps what it captured at import.
 */
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import { createHash, randomBytes } from "node:crypto";
import { inspect } from "node:util";
import type { Definition } from "./functions.ts";
import { MAX_ARGUMENTS_BYTES, MAX_RETURN_BYTES, showBytes } from "./limits.ts";
import type { Call, FunctionKind, Outcome } from "./messages.ts";
import type { Stream } from "./query.ts";
import type { Transaction } from "./transaction.ts";
import { kindOf, problemOf, sizeOf, type Json } from "./values.ts";

/** One running function. */
export type Run = {
  kind: FunctionKind;
  path: string;
  call: Call;
  /** null in actions. */
  tx: Transaction | null;
  /** Set when the function has answered: what it, or what it called, still does has no effect. */
  closed: boolean;
  /** The run that it is a sub-transaction of. */
  caller?: Run;
  /** Streams that are being read, by number. */
  streams: Map<number, Stream>;
  /** The sub-transaction that is running: other calls of this function wait for it. */
  nested: Promise<unknown> | null;
  /** Where the page of a paginated query ended in its last run, and in this one. */
  journal: { previous: string | null; next: string | null };
  random: (() => number) | null;
};

/** What a function may ask of the engine; implemented in syscalls.ts. */
export type Syscalls = {
  sync: (run: Run, operation: string, args: Json) => Json;
  async: (run: Run, operation: string, args: Json) => Promise<string>;
};

/** A value's size is at most this many bytes for each character of its JSON text: `1,` counts 9. */
const MAX_BYTES_PER_CHARACTER = 5;
const current = new AsyncLocalStorage<Run>();
const RealDate = Date;
const realRandom = Math.random;
const realSetImmediate = setImmediate;
const realClearImmediate = clearImmediate;
/** When the app's modules were loaded: their clock, outside of any function. */
let loadedAt = 0;

/** A failure that a caller is told as it stands, without "Uncaught Error". */
export class Refusal extends Error {}

/** Makes the run of a call. */
export function newRun(
  definition: Definition,
  call: Call,
  tx: Transaction | null,
  journal: string | null = null,
): Run {
  return {
    kind: definition.kind,
    path: definition.path,
    call,
    tx,
    closed: false,
    streams: new Map(),
    nested: null,
    journal: { previous: journal, next: null },
    random: null,
  };
}

/** Runs code as a part of a run: what it calls finds the run's clock and database. */
export function within<Result>(run: Run, work: () => Result): Result {
  return current.run(run, work);
}

/**
 * Calls a function: checks its arguments, runs it, checks what it returns.
 *
 * @returns the JSON text of the encoded result.
 * @throws Refusal with Convex's sentence for arguments or results that do not fit; else what the function threw.
 */
export async function invoke(definition: Definition, run: Run): Promise<string> {
  const { args } = run.call;
  checkSize(`Arguments for ${run.path} are`, args, MAX_ARGUMENTS_BYTES);
  const [value = {}] = JSON.parse(args) as Json[];
  if (kindOf(value) !== "object") throw new Refusal(`Invalid arguments for ${run.path}: expected an object`);
  const problem = problemOf(value);
  if (problem !== null) throw new Refusal(`Invalid arguments for ${run.path}: ${problem}`);
  const refusal = definition.checkArgs?.(value) ?? null;
  if (refusal !== null) throw new Refusal(`ArgumentValidationError: ${refusal}`);
  const result = await current.run(run, definition.invoke, args, run);
  checkSize(`Function ${run.path} return value is`, result, MAX_RETURN_BYTES);
  const misfit = definition.checkReturns?.(JSON.parse(result) as Json) ?? null;
  if (misfit !== null) throw new Refusal(`ReturnsValidationError: ${misfit}`);
  return result;
}

/** @param text the JSON text of an encoded value. @throws Refusal when the value is larger than the limit. */
function checkSize(what: string, text: string, limit: number): void {
  if (text.length * MAX_BYTES_PER_CHARACTER <= limit) return;
  const size = sizeOf(JSON.parse(text) as Json);
  if (size <= limit) return;
  throw new Refusal(`${what} too large (actual: ${showBytes(size)}, limit: ${showBytes(limit)})`);
}

/**
 * Runs a query or mutation to its end. It can only wait for promises that settle without the event loop: one that is
 * still pending once all microtasks have run waits for something that will never come, and fails.
 */
export function settle(run: Run, work: () => Promise<string>): Promise<Outcome> {
  return new Promise((resolve) => {
    const finish = (outcome: Outcome): void => {
      realClearImmediate(watch);
      run.closed = true;
      resolve(outcome);
    };
    const watch = realSetImmediate(() =>
      finish({
        ok: false,
        message:
          `Uncaught Error: ${run.path} waits for a promise that nothing in it can settle. ` +
          "Queries and mutations cannot wait for timers, fetch or other outside events: use an action.",
      }),
    );
    work().then(
      (value) => finish({ ok: true, value, journal: run.journal.next }),
      (error: unknown) => finish(describeError(error)),
    );
  });
}

/** What a caller is told about a thrown value; stacks name only the app's own code. */
export function describeError(error: unknown): Outcome {
  if (error instanceof Refusal) return { ok: false, message: error.message };
  if (!(error instanceof Error)) return { ok: false, message: `Uncaught ${textOf(error)}` };
  const head = [error.name, error.message].filter((part) => part !== "").join(": ");
  const stack = (error.stack ?? "")
    .split("\n")
    .filter((line) => line.includes("functions:bundle"))
    .join("\n");
  const outcome: Outcome = { ok: false, message: `Uncaught ${head}`, stack };
  const { data } = error as { data?: unknown };
  // the convex package marks a ConvexError that it has serialised
  if ("ConvexErrorSymbol" in error && typeof data === "string") outcome.data = data;
  return outcome;
}

/** Anything can be thrown, also what cannot be made a text of. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return "an object without a text";
  }
}

/** Refuses a run that has answered, or whose caller has. */
export function checkOpen(run: Run): void {
  for (let at: Run | undefined = run; at !== undefined; at = at.caller) {
    if (at.closed) throw new Error(`${at.path} has already answered: await every call before returning.`);
  }
}

/** The run that the calling code belongs to; undefined outside of functions. */
function deterministicRun(): Run | undefined {
  const run = current.getStore();
  return run !== undefined && run.kind !== "action" ? run : undefined;
}

function refuseOutsideActions(name: string): void {
  const run = current.getStore();
  if (run?.kind === "action") return;
  throw new Error(
    run === undefined
      ? `Can't use ${name} at import time. Use it inside an action.`
      : `Can't use ${name} in queries and mutations. Please consider using an action. See https://docs.convex.dev/functions/actions for more details.`,
  );
}

function frozenNow(): number {
  const run = current.getStore();
  if (run === undefined) return loadedAt;
  return run.tx === null ? RealDate.now() : run.tx.now;
}

/** xoshiro128**: small, fast, good enough for what `Math.random` promises. */
function seededRandom(): () => number {
  const seed = randomBytes(16);
  const state = [0, 4, 8, 12].map((at) => seed.readUInt32LE(at)) as [number, number, number, number];
  const next = (): number => {
    const result = Math.imul(rotate(Math.imul(state[1], 5), 7), 9) >>> 0;
    const shifted = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 11);
    return result;
  };
  return () => (next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53;
}

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

function setGlobal(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}

/** `Date` whose "now" is the run's. Dates made with it are ordinary dates. */
function frozenDate(): DateConstructor {
  const Frozen = function (this: unknown, ...args: unknown[]): Date | string {
    if (new.target === undefined) return new RealDate(frozenNow()).toString();
    const given = args.length === 0 ? [frozenNow()] : args;
    return Reflect.construct(RealDate, given, new.target) as Date;
  } as unknown as DateConstructor;
  Object.setPrototypeOf(Frozen, RealDate);
  Object.defineProperty(Frozen, "prototype", { value: RealDate.prototype });
  Frozen.now = frozenNow;
  Frozen.prototype.constructor = Frozen;
  return Frozen;
}

/** `crypto.subtle` of queries and mutations: only what can answer at once. */
function settledSubtle(real: typeof crypto.subtle): typeof crypto.subtle {
  return new Proxy(real, {
    get(target, name) {
      const method = Reflect.get(target, name) as unknown;
      if (typeof method !== "function") return method;
      if (deterministicRun() === undefined) return method.bind(target) as unknown;
      if (name === "digest") return digest;
      return () =>
        Promise.reject(
          new Error(
            `crypto.subtle.${String(name)} is not supported in queries and mutations by this backend.`,
          ),
        );
    },
  });
}

const DIGESTS: Record<string, string> = {
  "SHA-1": "sha1",
  "SHA-256": "sha256",
  "SHA-384": "sha384",
  "SHA-512": "sha512",
};

function digest(
  algorithm: string | { name: string },
  data: ArrayBuffer | ArrayBufferView,
): Promise<ArrayBuffer> {
  const name = (typeof algorithm === "string" ? algorithm : algorithm.name).toUpperCase();
  const hash = DIGESTS[name];
  if (hash === undefined)
    return Promise.reject(new DOMException(`Unrecognized algorithm name ${name}`, "NotSupportedError"));
  const bytes = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
  const result = createHash(hash).update(bytes).digest();
  return Promise.resolve(new Uint8Array(result).buffer);
}

/** console.* of functions: one line on stderr each, never to clients (a Python client would print it on stdout). */
function functionConsole(write: (line: string) => void): Partial<Console> {
  const line =
    (level: string) =>
    (...values: unknown[]): void => {
      const text = values.map((value) => (typeof value === "string" ? value : inspect(value))).join(" ");
      write(`[${current.getStore()?.path ?? "import"}] [${level}] ${text}\n`);
    };
  const levels = { log: "LOG", info: "INFO", warn: "WARN", error: "ERROR", debug: "DEBUG", trace: "TRACE" };
  return Object.fromEntries(Object.entries(levels).map(([name, level]) => [name, line(level)]));
}

/** Installs the globals. Call once, before the app is loaded; not undone. */
export function installGlobals(
  syscalls: Syscalls,
  env: Record<string, string>,
  log: (line: string) => void,
): void {
  loadedAt = RealDate.now();
  const runOf = (): Run => {
    const run = current.getStore();
    if (run === undefined) throw new Error("Convex's database and functions cannot be used at import time.");
    checkOpen(run);
    return run;
  };
  setGlobal("Convex", {
    syscall: (operation: string, args: string) =>
      JSON.stringify(syscalls.sync(runOf(), operation, JSON.parse(args) as Json)),
    asyncSyscall: async (operation: string, args: string) =>
      syscalls.async(runOf(), operation, JSON.parse(args) as Json),
    jsSyscall: (operation: string) => {
      throw new Error(`${operation} is not supported by this backend.`);
    },
  });
  setGlobal("Date", frozenDate());
  const { timeOrigin } = performance;
  const realPerformanceNow = performance.now.bind(performance);
  // of a query it stands still too; mutations may measure
  performance.now = () => {
    const run = current.getStore();
    return run?.kind === "query" && run.tx !== null ? run.tx.now - timeOrigin : realPerformanceNow();
  };
  Math.random = () => {
    const run = deterministicRun();
    if (run === undefined) return realRandom();
    run.random ??= seededRandom();
    return run.random();
  };
  const subtle = settledSubtle(crypto.subtle);
  Object.defineProperty(crypto, "subtle", { get: () => subtle, configurable: true });
  for (const name of ["fetch", "setTimeout", "setInterval", "setImmediate"] as const) {
    const real = globalThis[name] as (...args: unknown[]) => unknown;
    setGlobal(name, (...args: unknown[]) => {
      refuseOutsideActions(name);
      return real(...args);
    });
  }
  const console = functionConsole(log);
  Object.assign(globalThis.console, console);
  setGlobal("AsyncLocalStorage", AsyncLocalStorage);
  setGlobal("AsyncResource", AsyncResource);
  setGlobal("process", { env });
}
