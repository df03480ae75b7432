/**
 * What the two threads say to each other. The main thread owns the sockets and the queues (host.ts), the worker the
 * database and the functions (worker.ts). Values travel as JSON text in encoded form, so that neither side parses what it only
 * passes on.
 */

/** Which kind a function was registered as. */
export type FunctionKind = "query" | "mutation" | "action";

/** A function of the app, as the main thread needs to know it. */
export type FunctionSummary = { kind: FunctionKind; internal: boolean };

/**
 * Why a call failed when the function did not fail by itself: it was cut off because it ran too long, or it is our
 * failure (disk, lost worker), and may work when tried again.
 */
export type Fault = "cut" | "engine";

/** How a call ended. `data` is the JSON text of a ConvexError's data. */
export type Outcome =
  | { ok: true; value: string; journal?: string | null }
  | { ok: false; message: string; data?: string; stack?: string; fault?: Fault };

/** Where a call came from: `ctx.meta.getRequestMetadata()`. Calls of ours (scheduler, crons) have nulls. */
export type RequestInfo = { ip: string | null; userAgent: string | null; requestId: string };

/** A call of a function; `args` is the JSON text of an array with the one argument object. */
export type Call = {
  path: string;
  args: string;
  info: RequestInfo;
  /** The scheduled function that this call belongs to, passed down the call tree. */
  scheduledId: string | null;
};

/** Which stored duty a mutation fulfils; its completion is written in the mutation's own transaction. */
export type Duty = { type: "job"; id: string } | { type: "cron"; name: string };

/** A mutation with what else belongs into its transaction. */
export type MutationTask =
  | {
      type: "mutation";
      call: Call;
      session?: { id: string; request: number } | undefined;
      duty?: Duty | undefined;
    }
  | { type: "housekeeping"; work: Housekeeping };

/** Writes of our own, run between mutations as one of them. */
export type Housekeeping =
  | { type: "claim"; duty: Duty }
  | { type: "finish"; duty: Duty; error: string | null }
  | { type: "schedule"; args: string }
  | { type: "cancel"; id: string }
  | { type: "prune" };

/** A query to run; with `watch`, its read set is kept under that name until a commit touches it. */
export type QueryTask = { call: Call; journal: string | null; watch: string | null };

/** An HTTP request for the app's router. */
export type HttpTask = {
  method: string;
  url: string;
  headers: [string, string][];
  body: Uint8Array<ArrayBuffer> | null;
  info: RequestInfo;
};

/** What the router's function answered. */
export type HttpAnswer = { status: number; headers: [string, string][]; body: Uint8Array<ArrayBuffer> };

/** A scheduled function or cron whose time has come. */
export type DueDuty = { duty: Duty; kind: FunctionKind; path: string; args: string };

export type ToWorker =
  | { type: "batch"; id: number; tasks: MutationTask[] }
  | { type: "queries"; id: number; runs: QueryTask[] }
  | { type: "action"; id: number; call: Call }
  | { type: "http"; id: number; request: HttpTask }
  | { type: "due"; id: number; running: string[] }
  | { type: "answer"; id: number; outcome: Outcome }
  | { type: "forget"; watch: string }
  | { type: "observe"; ts: bigint }
  | { type: "stop" };

export type FromWorker =
  | { type: "ready"; ts: bigint; functions: [string, FunctionSummary][]; nextDue: number | null }
  | { type: "failed"; message: string }
  | {
      type: "batch";
      id: number;
      /** Parallel to the tasks; `ts` of each that committed. */
      outcomes: { outcome: Outcome; ts: bigint }[];
      /** The last commit's timestamp. */
      ts: bigint;
      /** Watches whose read set was touched; they are forgotten by this. */
      touched: string[];
      /** ms since the epoch of the next duty, null when there is none. */
      nextDue: number | null;
    }
  | { type: "queries"; id: number; outcomes: Outcome[]; ts: bigint }
  | { type: "action"; id: number; outcome: Outcome }
  | { type: "http"; id: number; answer: HttpAnswer }
  | { type: "due"; id: number; duties: DueDuty[]; nextDue: number | null }
  /** A running action calls another function, or schedules one. */
  | { type: "call"; id: number; target: ActionCall };

/** What an action may ask of the main thread. */
export type ActionCall =
  { type: "run"; kind: FunctionKind; call: Call } | { type: "housekeeping"; work: Housekeeping };

/** What the worker is started with. */
export type WorkerSettings = {
  /** The bundled functions: source of one ES module. */
  bundle: string;
  /** The SQLite file. */
  file: string;
  /** `process.env` of the functions. */
  env: Record<string, string>;
  /** Float64Array of PROGRESS: what runs now, for the watchdog of the main thread. */
  progress: SharedArrayBuffer;
};

/**
 * Places in the progress array: when the running query or mutation began (ms of the system's monotonic clock, 0 = none), how
 * much CPU time its thread had used by then (ms), in which message it came, and which one of it.
 */
export const PROGRESS = { startedAt: 0, cpuAt: 1, message: 2, position: 3, length: 4 } as const;
