/**
 * What a month of monitoring takes of a Convex plan, from what single runs of the functions cost (cost.ts measures them). Pure.
 *
 * What Convex counts, and the plans, from the source of its documentation (get-convex/convex-backend at 94a42c3, August 2026,
 * npm-packages/docs/docs/production/state/limits.mdx) and, where that says nothing, from its code:
 * - Function calls: "explicit client calls, scheduled executions, subscription updates". A run that the cache answers is tracked as a call too
 *   (crates/application/src/function_log.rs, `_log_query`); what a mutation runs in its own transaction is not.
 * - Database I/O: "document and index data transferred between Convex functions and the underlying database", counted as tally.ts does. What
 *   the cache answers reads nothing (crates/application/src/cache/mod.rs): viewers with the same arguments, so with one token, share reads.
 * - Database storage: a document once, and once more for each index of its table (crates/database/src/snapshot_manager.rs,
 *   get_document_and_index_storage); Convex's own indexes are taken to be free.
 *
 * Assumed: a month of 30 days. Each agent does one `heartbeat send` whenever it is expected, two calls (`heartbeat run` sends two heartbeats, for
 * which the deployment counts), and has five open tasks, which are counted by an index. Nobody's health changes, and the app does nothing else. A viewer looks all month long, at all
 * pages of the dashboard and at the monitor's status, with a token of their own; each heartbeat runs the page of its agent again, and each
 * sweep the status. That is the most: for what comes while a query runs, Convex runs it once more.
 */

/** What tally.ts counts. `runs`: of public functions, each of which looks its token up once. */
export type Tally = {
  runs: number;
  documentsRead: number;
  bytesRead: number;
  documentsWritten: number;
  bytesWritten: number;
  /** of the keys in the indexes that were read or written */
  keyBytes: number;
  /** how much more is stored, indexes included */
  storedBytes: number;
};

/** Of a run of a function; `bytes` of database I/O. */
export type Cost = { documentsRead: number; documentsWritten: number; bytes: number; storedBytes: number };

/** Of a run that handles so many things. */
type Batch = Cost & { of: number };

export type Costs = {
  /** getAgentTaskCounts, which `heartbeat send` asks first */
  counts: Cost;
  heartbeat: Cost;
  /** nobody is overdue */
  sweep: Cost;
  /** getMonitorStatus */
  monitor: Cost;
  /** getAgentDashboard without rows, and each row of a page */
  page: Cost;
  row: Cost;
  /** heartbeats forgotten after their time */
  pruned: Batch;
  /** agents looked at by the reconcile */
  reconciled: Batch;
};

export type Fleet = { agents: number; everyMinutes: number; viewers: number };

/** Function calls, bytes of database I/O, and bytes that are kept when heartbeats are forgotten as fast as they come in. */
export type Usage = { calls: number; bytes: number; stored: number };

/** Agents on each page of a viewer: few, since a heartbeat has all rows of its agent's page read again. */
export const PAGE_ROWS = 10;

const GB = 1e9;
const DAYS = 30;
/** How long a heartbeat is kept (convex/heartbeat/model/prune.ts). */
const KEPT_DAYS = 90;
const DAY_MINUTES = 24 * 60;

/** What a plan costs a month, what it includes, and what a million calls and a GB more, of I/O or stored, cost; in dollars, in US regions. */
type Plan = { dollars: number; included: Usage; millionCalls: number; gigabyte: number };

const FREE: Usage = { calls: 1e6, bytes: GB, stored: 0.5 * GB };
/** The free plan with a credit card: what is used beyond it is paid. */
const STARTER: Plan = { dollars: 0, included: FREE, millionCalls: 2.2, gigabyte: 0.22 };
/** A month for each developer of the team (convex.dev/pricing); here of one. */
const PROFESSIONAL: Plan = {
  dollars: 25,
  included: { calls: 25e6, bytes: 50 * GB, stored: 50 * GB },
  millionCalls: 2,
  gigabyte: 0.2,
};

const SHOWN = { agents: [4, 50, 1_000], everyMinutes: [1, 5, 60], viewers: [0, 1, 5] };

function heartbeatsOf({ agents, everyMinutes }: Fleet, minutes: number): number {
  return (agents * minutes) / everyMinutes;
}

/** What so many minutes take, but for what is done once a day. */
export function usage(costs: Costs, fleet: Fleet, minutes: number): Omit<Usage, "stored"> {
  const { agents, viewers } = fleet;
  const heartbeats = heartbeatsOf(fleet, minutes);
  const sweeps = minutes;
  const page = costs.page.bytes + Math.min(agents, PAGE_ROWS) * costs.row.bytes;
  return {
    calls: heartbeats + (heartbeats + sweeps) * (1 + viewers),
    bytes:
      heartbeats * (costs.counts.bytes + costs.heartbeat.bytes + viewers * page) +
      sweeps * (costs.sweep.bytes + viewers * costs.monitor.bytes),
  };
}

/** What a month takes; as many heartbeats are forgotten as come in. */
export function month(costs: Costs, fleet: Fleet): Usage {
  const { calls, bytes } = usage(costs, fleet, DAYS * DAY_MINUTES);
  const { pruned, reconciled } = costs;
  const prunes = DAYS + heartbeatsOf(fleet, DAYS * DAY_MINUTES) / pruned.of;
  const reconciles = (DAYS * fleet.agents) / reconciled.of;
  return {
    calls: calls + prunes + Math.max(DAYS, reconciles),
    bytes: bytes + (prunes - DAYS) * pruned.bytes + reconciles * reconciled.bytes,
    stored: heartbeatsOf(fleet, KEPT_DAYS * DAY_MINUTES) * costs.heartbeat.storedBytes,
  };
}

function priceOf(used: Usage, { dollars, included, millionCalls, gigabyte }: Plan): number {
  const more = (name: keyof Usage) => Math.max(0, used[name] - included[name]);
  return dollars + (more("calls") / 1e6) * millionCalls + ((more("bytes") + more("stored")) / GB) * gigabyte;
}

/** What the cheapest plan costs; the dollars of a month that the free plan holds are 0. */
export function dollars(used: Usage): number {
  return Math.min(priceOf(used, STARTER), priceOf(used, PROFESSIONAL));
}

// --- for people ---

const COUNTS: [string, number][] = [
  [" M", 1e6],
  [" k", 1e3],
  ["", 1],
];
const SIZES: [string, number][] = [
  [" TB", 1e12],
  [" GB", GB],
  [" MB", 1e6],
  [" kB", 1e3],
  ["", 1],
];

/** Two figures of a number; the rest is assumption. */
function rounded(value: number): number {
  return Number(value.toPrecision(2));
}

function spoken(value: number, units: [string, number][]): string {
  const shown = rounded(value);
  const [unit, size] = units.find(([, least]) => shown >= least) ?? ["", 1];
  return `${rounded(shown / size)}${unit}`;
}

function spokenDollars(value: number): string {
  if (value === 0) return "free";
  return value < 1 ? "under $1" : `$${rounded(value).toLocaleString("en")}`;
}

function lined(rows: string[][]): string {
  const [head = [], ...body] = rows.map((cells) => `| ${cells.join(" | ")} |`);
  return [head, `|${" --- |".repeat(rows[0]?.length ?? 0)}`, ...body].join("\n");
}

/** The table of README.md. */
export function table(costs: Costs): string {
  const rows = [["agents", "every", "function calls", "database I/O", "stored", "a month costs"]];
  for (const agents of SHOWN.agents) {
    for (const everyMinutes of SHOWN.everyMinutes) {
      const months = SHOWN.viewers.map((viewers) => month(costs, { agents, everyMinutes, viewers }));
      rows.push([
        agents.toLocaleString("en"),
        `${everyMinutes} min`,
        months.map(({ calls }) => spoken(calls, COUNTS)).join(" / "),
        months.map(({ bytes }) => spoken(bytes, SIZES)).join(" / "),
        spoken(month(costs, { agents, everyMinutes, viewers: 0 }).stored, SIZES),
        months.map((used) => spokenDollars(dollars(used))).join(" / "),
      ]);
    }
  }
  return lined(rows);
}

/** What single runs cost, for bench/README.md. */
export function runs(costs: Costs): string {
  const { page, row, pruned, reconciled, ...single } = costs;
  const whole = (name: keyof Cost) => page[name] + PAGE_ROWS * row[name];
  const shown: [string, Cost][] = [
    ...Object.entries(single),
    [
      `page of ${PAGE_ROWS}`,
      {
        documentsRead: whole("documentsRead"),
        documentsWritten: whole("documentsWritten"),
        bytes: whole("bytes"),
        storedBytes: 0,
      },
    ],
    [`${pruned.of} forgotten`, pruned],
    [`${reconciled.of} reconciled`, reconciled],
  ];
  return lined([
    ["run", "documents read", "written", "bytes of I/O"],
    ...shown.map(([name, cost]) => [
      name,
      ...[cost.documentsRead, cost.documentsWritten, cost.bytes].map((one) => Math.round(one).toString()),
    ]),
  ]);
}
