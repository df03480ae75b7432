/** What is measured: each scenario starts what it needs, measures in several short rounds, and returns its rows of the table. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { bundleFolder } from "../backend/bundler.ts";
import { fillHistory, makeOverdue } from "./history.ts";
import { percentile, type Job, type Load } from "./load.ts";
import { Backend, CONVEX, FLEET_PAGE, NOTHING, register, start, temporaryFolder, TOKENS } from "./server.ts";
import type { WatchJob, Watched } from "./watchers.ts";

/** A row of the table: what, as measured, what is to be reached, and whether it is. */
export type Row = { what: string; measured: string; reach?: string; kept?: boolean };

/** What the command line sets. */
export type Options = { rows: number; rounds: number; seconds: number };

const FLEET = 1000;
const LARGE_FLEET = 10_000;
const SUBSCRIBERS = 100;
const HEARTBEATS_PER_S = 200;
const CONNECTIONS = 32;
/** What a measuring process may take besides the seconds that it measures, ms. */
const GRACE_MS = 60_000;
/** How long the sweep may take before the benchmark gives up, ms. */
const SWEEP_WITHIN_MS = 60_000;

const JOB: Omit<Job, "url" | "seconds"> = {
  what: "heartbeat",
  connections: 1,
  perSecond: 0,
  warmUp: 0.5,
  agents: FLEET,
  firstAgent: 0,
};

/** Runs a process of the benchmark, which is ended when it takes much longer than `seconds`. @returns its lines on stdout. */
function run(file: string, job: { seconds: number }): AsyncIterator<string> {
  const child = start([new URL(file, import.meta.url).pathname, JSON.stringify(job)]);
  const ending = setTimeout(() => child.kill("SIGKILL"), job.seconds * 1000 + GRACE_MS);
  child.once("exit", () => clearTimeout(ending));
  if (child.stdout === null) throw new Error("the process has no stdout");
  return createInterface(child.stdout)[Symbol.asyncIterator]();
}

async function next<Answer>(lines: AsyncIterator<string>): Promise<Answer> {
  const { value, done } = await lines.next();
  if (done) throw new Error("a process of the benchmark ended without a report");
  return JSON.parse(value) as Answer;
}

type MeasuredLoad = Load & { cpuUs: number };

async function load(backend: Backend, options: Options, job: Partial<Job>): Promise<MeasuredLoad> {
  const before = backend.cpuMs();
  const lines = run("load.ts", { ...JOB, seconds: options.seconds, url: backend.url, ...job });
  const report = await next<Load>(lines);
  if (report.failed > 0) throw new Error(`${report.failed} of ${report.calls} calls failed`);
  const seconds = (job.seconds ?? options.seconds) + (job.warmUp ?? JOB.warmUp);
  const cpuUs = ((backend.cpuMs() - before) * 1000) / (report.perSecond * seconds);
  return { ...report, cpuUs };
}

function median(values: number[]): number {
  return percentile(
    [...values].sort((left, right) => left - right),
    0.5,
  );
}

/** The medians of several rounds. */
function middle(rounds: MeasuredLoad[]): MeasuredLoad {
  const of = (name: keyof MeasuredLoad): number => median(rounds.map((round) => round[name]));
  const names = Object.keys(rounds[0] as MeasuredLoad) as (keyof MeasuredLoad)[];
  return Object.fromEntries(names.map((name) => [name, of(name)])) as MeasuredLoad;
}

function ms(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}

function rate(value: number): string {
  return `${value.toFixed(0)}/s`;
}

function row(what: string, measured: string, reach?: string, kept?: boolean): Row {
  return reach === undefined ? { what, measured } : { what, measured, reach, kept: kept === true };
}

async function fleet(agents: number): Promise<{ folder: string; backend: Backend }> {
  const folder = temporaryFolder();
  const backend = await Backend.start(folder, CONVEX);
  await register(backend, agents);
  return { folder, backend };
}

/** Bare SQLite on the same disk: one small row a commit, synced. Commits a second. */
function bareCommits(seconds: number): number {
  const folder = temporaryFolder();
  const db = new DatabaseSync(join(folder, "bare.sqlite3"));
  db.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)");
  const insert = db.prepare("INSERT INTO t (b) VALUES (?)");
  const text = "x".repeat(300);
  const until = performance.now() + seconds * 1000;
  let commits = 0;
  for (; performance.now() < until; commits++) insert.run(text);
  db.close();
  return commits / seconds;
}

/** recordHeartbeat on an empty history and beside a long one, and the yardsticks; all in turns. */
export async function heartbeats(options: Options): Promise<Row[]> {
  const empty = await fleet(FLEET);
  const full = await fleet(FLEET);
  await full.backend.stop();
  fillHistory(full.folder, options.rows, FLEET);
  full.backend = await Backend.start(full.folder, CONVEX);
  const nothing = await Backend.start(temporaryFolder(), NOTHING);
  const subjects = {
    empty: { backend: empty.backend, what: "heartbeat" },
    full: { backend: full.backend, what: "heartbeat" },
    nothing: { backend: nothing, what: "nothing" },
  } as const;
  const single = { empty: [], full: [], nothing: [] } as Record<keyof typeof subjects, MeasuredLoad[]>;
  const many = { empty: [], full: [], nothing: [] } as Record<keyof typeof subjects, MeasuredLoad[]>;
  const bare: number[] = [];
  for (let round = 0; round < options.rounds; round++) {
    bare.push(bareCommits(1));
    for (const [name, { backend, what }] of Object.entries(subjects)) {
      const subject = name as keyof typeof subjects;
      single[subject].push(await load(backend, options, { what }));
      many[subject].push(await load(backend, options, { what, connections: CONNECTIONS }));
    }
  }
  const memory = full.backend.memory();
  await Promise.all([empty.backend.stop(), full.backend.stop(), nothing.stop()]);
  const one = { empty: middle(single.empty), full: middle(single.full), nothing: middle(single.nothing) };
  const all = { empty: middle(many.empty), full: middle(many.full), nothing: middle(many.nothing) };
  const slower = { p50: one.full.p50 / one.empty.p50, rate: all.empty.perSecond / all.full.perSecond };
  const long = `${options.rows.toLocaleString("en")} rows of history`;
  const describe = (found: MeasuredLoad): string =>
    `${rate(found.perSecond)}, p50 ${ms(found.p50)}, p99 ${ms(found.p99)}, CPU ${found.cpuUs.toFixed(0)} µs each`;
  return [
    row("bare SQLite, one row a synced commit", rate(median(bare))),
    row(
      "a mutation that does nothing, 1 connection",
      `p50 ${ms(one.nothing.p50)}, p99 ${ms(one.nothing.p99)}`,
    ),
    row(`the same, ${CONNECTIONS} connections`, describe(all.nothing)),
    row(
      "recordHeartbeat, 1 connection",
      `p50 ${ms(one.empty.p50)}, p99 ${ms(one.empty.p99)}, ${(one.empty.p50 / one.nothing.p50).toFixed(2)} times nothing`,
      "p50 2 ms",
      one.empty.p50 <= 2,
    ),
    row(
      `recordHeartbeat, ${CONNECTIONS} connections, ${FLEET} agents`,
      `${describe(all.empty)}, ${(all.nothing.perSecond / all.empty.perSecond).toFixed(2)} times slower than nothing`,
      "1,500/s, p99 50 ms",
      all.empty.perSecond >= 1500 && all.empty.p99 <= 50,
    ),
    row(`  generator's CPU`, `${(all.empty.cpu * 100).toFixed(0)} % of a core`),
    row(`1 connection beside ${long}`, `p50 ${ms(one.full.p50)}, p99 ${ms(one.full.p99)}`),
    row(`${CONNECTIONS} connections beside ${long}`, describe(all.full)),
    row(
      "  slower than without history",
      `p50 ${slower.p50.toFixed(2)}, rate ${slower.rate.toFixed(2)} times`,
      "1.3 times",
      Math.max(slower.p50, slower.rate) <= 1.3,
    ),
    row("  memory under that load, at most", `${memory.peak.toFixed(0)} MB`, "300 MB", memory.peak <= 300),
  ];
}

/** The whole dashboard, of one fleet and of ten. */
export async function dashboard(options: Options): Promise<Row[]> {
  const small = await fleet(FLEET);
  const large = await fleet(LARGE_FLEET);
  const rounds: { small: MeasuredLoad[]; large: MeasuredLoad[] } = { small: [], large: [] };
  for (const [{ backend }, agents] of [
    [small, FLEET],
    [large, LARGE_FLEET],
  ] as const) {
    // rows of agents that have been heard of are longer
    await load(backend, options, { agents, connections: CONNECTIONS, warmUp: 0, seconds: agents / 500 });
  }
  for (let round = 0; round < options.rounds; round++) {
    rounds.small.push(await load(small.backend, options, { what: "dashboard" }));
    rounds.large.push(await load(large.backend, options, { what: "dashboard" }));
  }
  const memory = large.backend.memory();
  await Promise.all([small.backend.stop(), large.backend.stop()]);
  const [one, ten] = [middle(rounds.small), middle(rounds.large)];
  return [
    row(`dashboard, ${FLEET} agents`, `p50 ${ms(one.p50)}, p99 ${ms(one.p99)}`, "40 ms", one.p50 <= 40),
    row(
      `dashboard, ${LARGE_FLEET} agents in pages`,
      `p50 ${ms(ten.p50)}, p99 ${ms(ten.p99)}`,
      "400 ms",
      ten.p50 <= 400,
    ),
    row("  memory, at most", `${memory.peak.toFixed(0)} MB`, "300 MB", memory.peak <= 300),
  ];
}

/** Subscribers of one dashboard while heartbeats come in. */
export async function subscribers(options: Options): Promise<Row[]> {
  const { backend } = await fleet(FLEET);
  await load(backend, options, { connections: CONNECTIONS, warmUp: 0 });
  const paced = { perSecond: HEARTBEATS_PER_S, connections: 8, firstAgent: 1, agents: FLEET - 1 };
  const alone: MeasuredLoad[] = [];
  const watched: MeasuredLoad[] = [];
  const views: Watched[] = [];
  const seconds = options.seconds + 2;
  for (let round = 0; round < options.rounds; round++) {
    alone.push(await load(backend, options, paced));
    const job: WatchJob = { url: backend.url, subscribers: SUBSCRIBERS, seconds };
    const lines = run("watchers.ts", job);
    await lines.next();
    watched.push(await load(backend, options, paced));
    views.push(await next<Watched>(lines));
  }
  const memory = backend.memory();
  await backend.stop();
  const [without, beside] = [middle(alone), middle(watched)];
  const worst = Math.max(...views.map((view) => view.max));
  const slower = { p50: beside.p50 / without.p50, p99: beside.p99 / without.p99 };
  const of = (name: keyof Watched): number => median(views.map((view) => view[name]));
  return [
    row(
      `${SUBSCRIBERS} subscribers, ${HEARTBEATS_PER_S} heartbeats/s: behind`,
      `p50 ${ms(of("p50"))}, p99 ${ms(of("p99"))}, at most ${ms(worst)}`,
      "1 s at most",
      worst <= 1000,
    ),
    row(
      "  each got",
      `${of("pushes").toFixed(1)} answers/s of ${((of("megabytes") * 1000) / of("pushes") / seconds / SUBSCRIBERS).toFixed(0)} kB; the watching process used ${(of("cpu") * 100).toFixed(0)} % of a core`,
    ),
    row("  heartbeats without them", `p50 ${ms(without.p50)}, p99 ${ms(without.p99)}`),
    row("  heartbeats beside them", `p50 ${ms(beside.p50)}, p99 ${ms(beside.p99)}`),
    row(
      "  slower",
      `p50 ${slower.p50.toFixed(2)}, p99 ${slower.p99.toFixed(2)} times`,
      "2 times",
      slower.p50 <= 2,
    ),
    row("  memory, at most", `${memory.peak.toFixed(0)} MB`, "300 MB", memory.peak <= 300),
  ];
}

type Totals = { totals: { degraded: number }; isDone: boolean; continueCursor: string };

async function countDegraded(backend: Backend): Promise<number> {
  let degraded = 0;
  for (let cursor: string | null = null; ;) {
    const args = { token: TOKENS.read, request: { cursor, limit: FLEET_PAGE } };
    const page = (await backend.call("query", "queries/getAgentDashboard", args)) as Totals;
    degraded += page.totals.degraded;
    if (page.isDone) return degraded;
    cursor = page.continueCursor;
  }
}

/** A sweep that finds a fleet overdue, while another one sends heartbeats. */
export async function sweep(options: Options): Promise<Row[]> {
  const { folder, backend: first } = await fleet(LARGE_FLEET + FLEET);
  await first.stop();
  const last = makeOverdue(folder, FLEET, LARGE_FLEET);
  const backend = await Backend.start(folder, CONVEX);
  const paced = { perSecond: HEARTBEATS_PER_S, connections: 8 };
  const alone = await load(backend, options, paced);
  const beside = load(backend, options, { ...paced, warmUp: 0, seconds: 5 });
  const startedAt = performance.now();
  await backend.admin("heartbeat/maintenance:sweep", {});
  for (;;) {
    const args = { token: TOKENS.read, request: { agent: last, at: Date.now() } };
    const { row: found } = (await backend.call("query", "queries/getAgent", args)) as {
      row: { health: string };
    };
    if (found.health === "degraded") break;
    if (performance.now() - startedAt > SWEEP_WITHIN_MS) throw new Error("the sweep did not come to its end");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const sweptMs = performance.now() - startedAt;
  const answered = await beside;
  const degraded = await countDegraded(backend);
  await backend.stop();
  return [
    row(
      `sweep finds ${LARGE_FLEET} overdue`,
      `${degraded} flipped in ${ms(sweptMs)}`,
      "10 s",
      degraded === LARGE_FLEET && sweptMs <= 10_000,
    ),
    row(
      `  ${HEARTBEATS_PER_S} heartbeats/s beside it`,
      `p50 ${ms(answered.p50)}, p99 ${ms(answered.p99)}, at most ${ms(answered.max)} (alone: p50 ${ms(alone.p50)})`,
      "answered",
      answered.failed === 0,
    ),
  ];
}

/** Starting, on an empty folder and beside a long history, from the folder of functions and from a ready bundle. */
export async function starts(options: Options): Promise<Row[]> {
  const { folder, backend } = await fleet(FLEET);
  await backend.stop();
  fillHistory(folder, options.rows, FLEET);
  const ready = join(temporaryFolder(), "functions.mjs");
  writeFileSync(ready, await bundleFolder(CONVEX));
  const times: Record<string, number[]> = { empty: [], bundle: [], folder: [] };
  const memories: number[] = [];
  for (let round = 0; round < options.rounds; round++) {
    const of = async (name: string, data: string, functions: string): Promise<void> => {
      const started = await Backend.start(data, functions);
      times[name]?.push(started.readyMs);
      if (name === "bundle") memories.push(started.memory().peak);
      await started.stop();
    };
    await of("empty", temporaryFolder(), ready);
    await of("bundle", folder, ready);
    await of("folder", folder, CONVEX);
  }
  const time = (name: string): number => median(times[name] ?? []);
  const long = `${options.rows.toLocaleString("en")} rows`;
  return [
    row("start, empty, a ready bundle", ms(time("empty"))),
    row(`start with ${long}, a ready bundle`, ms(time("bundle")), "1 s", time("bundle") <= 1000),
    row(`start with ${long}, a folder to be bundled`, ms(time("folder")), "1 s", time("folder") <= 1000),
    row("  memory then", `${median(memories).toFixed(0)} MB`, "200 MB", median(memories) <= 200),
  ];
}
