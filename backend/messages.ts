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
  /** First of all: open the file and serve. With `replaces`, what the thread before left running is known to the main thread. */
  | { type: "takeOver"; replaces: boolean }
  | { type: "batch"; id: number; tasks: MutationTask[] }
  /** `at`: the snapshot to be read, by its timestamp; null for what is committed now. */
  | { type: "queries"; id: number; runs: QueryTask[]; at: bigint | null }
  /** Asks that what is committed now be kept readable for a while. */
  | { type: "snapshot"; id: number }
  | { type: "action"; id: number; call: Call }
  | { type: "http"; id: number; request: HttpTask }
  | { type: "due"; id: number; running: string[] }
  | { type: "answer"; id: number; outcome: Outcome }
  | { type: "forget"; watch: string }
  | { type: "observe"; ts: bigint }
  /** Asks for an answer once everything before it, actions apart, is answered. */
  | { type: "rest"; id: number }
  | { type: "stop" };

export type FromWorker =
  /** The app's modules are evaluated. */
  | { type: "loaded" }
  | {
      type: "ready";
      ts: bigint;
      /** The last commit in the file: of a lost worker's batch, it tells whether that was committed. */
      storedTs: bigint;
      functions: [string, FunctionSummary][];
      nextDue: number | null;
    }
  | { type: "failed"; message: string }
  /**
   * A batch that is about to be committed: not to be answered before its `batch` message, or, when the worker is lost in
   * between, before the file is found to hold a commit of this timestamp.
   */
  | {
      type: "prepared";
      id: number;
      /** Parallel to the tasks; `ts` of each. */
      outcomes: { outcome: Outcome; ts: bigint }[];
      /** The timestamp that the commit leaves in the file. */
      ts: bigint;
    }
  /** A batch's end: what was prepared is on disk, or, with `failure`, nothing of it is. */
  | {
      type: "batch";
      id: number;
      failure: Outcome | null;
      /** The last commit's timestamp. */
      ts: bigint;
      /** Watches whose read set was touched; they are forgotten by this. */
      touched: string[];
      /** ms since the epoch of the next duty, null when there is none. */
      nextDue: number | null;
    }
  /** `outcomes` is null when the snapshot is not kept any more. */
  | { type: "queries"; id: number; outcomes: Outcome[] | null; ts: bigint }
  | { type: "snapshot"; id: number; ts: bigint }
  | { type: "action"; id: number; outcome: Outcome }
  | { type: "http"; id: number; answer: HttpAnswer }
  | { type: "due"; id: number; duties: DueDuty[]; nextDue: number | null }
  | { type: "rest"; id: number }
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
 * Places in the progress array: when the running query or mutation began (ms of the system's monotonic clock, 0 = none), when
 * the thread last came to anything else (0 = not ready), how much CPU time it had used at the later of the two (ms), in which
 * message the query or mutation came, and which one of it.
 */
export const PROGRESS = { startedAt: 0, aliveAt: 1, cpuAt: 2, message: 3, position: 4, length: 5 } as const;
