/**
 * The worker: hands the main thread's messages to the engine, one batch or group of queries at a time, and runs actions and
 * HTTP actions beside them. Started by host.ts.
 */
import { parentPort, workerData } from "node:worker_threads";
import { monotonicMs } from "./clock.ts";
import { Engine } from "./engine.ts";
import { loadApp, type App } from "./functions.ts";
import {
  PROGRESS,
  type ActionCall,
  type Call,
  type FromWorker,
  type HttpAnswer,
  type HttpTask,
  type Outcome,
  type ToWorker,
  type WorkerSettings,
} from "./messages.ts";
import { describeError, installGlobals, invoke, newRun, within, type Run } from "./runtime.ts";
import { makeSyscalls } from "./syscalls.ts";
import { systemFunctions } from "./system.ts";

const port = parentPort as NonNullable<typeof parentPort>;
const settings = workerData as WorkerSettings;
const progress = new Float64Array(settings.progress);
// functions see another Date; the engine keeps the real one
const now = Date.now;
const { stderr } = process;
const exit = process.exit.bind(process);
const cpuUsage = process.threadCpuUsage.bind(process);
const every = setInterval;
/** How often the thread shows that nothing blocks it, ms. */
const ALIVE_EVERY_MS = 100;
for (const fault of ["unhandledRejection", "uncaughtException"]) {
  // what a function started and did not wait for must not take the others along
  process.on(fault, (error: unknown) => stderr.write(`[functions] ${fault}: ${String(error)}\n`));
}

/** Calls of actions that wait for an answer of the main thread. */
const waiting = new Map<number, (outcome: Outcome) => void>();
let lastCall = 0;
/** The message in hand: batches and queries are taken one after another. */
let turn: Promise<void> = Promise.resolve();
let message = 0;

function send(answer: FromWorker): void {
  port.postMessage(answer);
}

function callOut(target: ActionCall): Promise<Outcome> {
  const id = ++lastCall;
  send({ type: "call", id, target });
  return new Promise((resolve) => waiting.set(id, resolve));
}

function showAlive(): void {
  const { user, system } = cpuUsage();
  progress[PROGRESS.cpuAt] = (user + system) / 1000;
  progress[PROGRESS.aliveAt] = monotonicMs();
}

function reportProgress(position: number | null): void {
  if (position === null) {
    progress[PROGRESS.startedAt] = 0;
    return;
  }
  progress[PROGRESS.message] = message;
  progress[PROGRESS.position] = position;
  showAlive();
  progress[PROGRESS.startedAt] = progress[PROGRESS.aliveAt] as number;
}

async function runAction(app: App, id: number, call: Call): Promise<void> {
  const definition = app.functions.get(call.path);
  if (definition?.kind !== "action") {
    const outcome: Outcome = { ok: false, message: `Could not find action '${call.path}'.` };
    send({ type: "action", id, outcome });
    return;
  }
  const run = newRun(definition, call, null);
  let outcome: Outcome;
  try {
    outcome = { ok: true, value: await invoke(definition, run) };
  } catch (error) {
    outcome = describeError(error);
  }
  run.closed = true;
  send({ type: "action", id, outcome });
}

function textAnswer(status: number, type: string, text: string): HttpAnswer {
  return { status, headers: [["content-type", type]], body: new TextEncoder().encode(text) };
}

async function answerHttp(app: App, request: HttpTask): Promise<HttpAnswer> {
  const pathname = URL.parse(request.url)?.pathname ?? "/";
  const match = app.router?.lookup(pathname, request.method) ?? null;
  if (match === null) {
    const text =
      app.router === null
        ? "This Convex deployment does not have HTTP actions enabled."
        : "No matching routes found";
    return textAnswer(404, "text/plain; charset=utf-8", text);
  }
  const [handler, , route] = match;
  const call: Call = { path: `http:${route}`, args: "[]", info: request.info, scheduledId: null };
  const run: Run = {
    ...{ kind: "action", path: call.path, call, tx: null, closed: false, nested: null, random: null },
    streams: new Map(),
    journal: { previous: null, next: null },
  };
  try {
    const { method, headers, body } = request;
    const input = new Request(request.url, { method, headers, body });
    const response = await within(run, () => handler.invokeHttpAction(input));
    if (!(response instanceof Response))
      throw new Error(`The HTTP action for ${route} did not return a Response.`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return { status: response.status, headers: [...response.headers], body: bytes };
  } catch (error) {
    const outcome = describeError(error) as Outcome & { ok: false };
    stderr.write(`[${call.path}] ${outcome.message}\n${outcome.stack ?? ""}\n`);
    const data = outcome.data === undefined ? {} : { data: JSON.parse(outcome.data) as unknown };
    const code = `[Request ID: ${request.info.requestId}] Server Error`;
    return textAnswer(500, "application/json", JSON.stringify({ code, trace: outcome.message, ...data }));
  } finally {
    run.closed = true;
  }
}

function handle(engine: Engine, app: App, request: ToWorker): void {
  const inTurn = (id: number, work: () => Promise<void>): void => {
    turn = turn
      .then(() => {
        message = id;
        return work();
      })
      // the engine itself failed (a damaged file): those who wait must not wait for ever
      .catch((error: unknown) => {
        stderr.write(`heartbeat-backend: the engine failed: ${String(error)}\n`);
        exit(1);
      });
  };
  switch (request.type) {
    case "batch":
      return inTurn(request.id, async () => send(await engine.runBatch(request.id, request.tasks, send)));
    case "queries":
      return inTurn(request.id, async () => {
        const outcomes = await engine.runQueries(request.runs, request.at);
        send({ type: "queries", id: request.id, outcomes, ts: engine.clock.ts });
      });
    case "snapshot":
      return inTurn(request.id, async () =>
        send({ type: "snapshot", id: request.id, ts: engine.keepSnapshot() }),
      );
    case "due":
      return inTurn(request.id, async () => {
        const duties = engine.due(request.running);
        send({ type: "due", id: request.id, duties, nextDue: engine.nextDue() });
      });
    case "action":
      void runAction(app, request.id, request.call);
      return;
    case "http":
      void answerHttp(app, request.request).then((answer) => send({ type: "http", id: request.id, answer }));
      return;
    case "answer":
      waiting.get(request.id)?.(request.outcome);
      waiting.delete(request.id);
      return;
    case "forget":
      // after the run that makes the read set, if that one still waits
      return inTurn(0, async () => engine.forget(request.watch));
    case "observe":
      return engine.clock.observe(request.ts);
    case "rest":
      return inTurn(request.id, async () => send({ type: "rest", id: request.id }));
    case "takeOver":
      return;
    case "stop":
      return inTurn(0, async () => {
        engine.close();
        exit(0);
      });
  }
}

async function main(): Promise<void> {
  const asked = new Promise<ToWorker>((resolve) => port.once("message", resolve));
  const hooks: { app: App; callOut: typeof callOut } = { app: undefined as unknown as App, callOut };
  installGlobals(makeSyscalls(hooks), settings.env, (line) => stderr.write(line));
  let engine: Engine | null = null;
  const app = await loadApp(settings.bundle, (number) => engine?.store.tableNumbered(number)?.name);
  for (const definition of systemFunctions(app, settings.env.CONVEX_CLOUD_URL ?? "")) {
    app.functions.set(definition.path, definition);
  }
  hooks.app = app;
  send({ type: "loaded" });
  const takeOver = (await asked) as ToWorker & { type: "takeOver" };
  const serving = new Engine(settings.file, now, reportProgress);
  engine = serving;
  serving.start(app, takeOver.replaces);
  port.on("message", (request: ToWorker) => handle(serving, app, request));
  const functions = [...app.functions.values()].map(
    ({ path, kind, internal }) =>
      [path, { kind, internal }] as [string, { kind: typeof kind; internal: boolean }],
  );
  showAlive();
  every(() => {
    if (progress[PROGRESS.startedAt] !== 0) return;
    showAlive();
    serving.snapshots.expire(now());
  }, ALIVE_EVERY_MS);
  const { clock, storedTs } = serving;
  send({ type: "ready", ts: clock.ts, storedTs, functions, nextDue: serving.nextDue() });
}

main().catch((error: unknown) =>
  send({ type: "failed", message: (error as Error).message ?? String(error) }),
);
