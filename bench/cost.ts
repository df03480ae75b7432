/**
 * What a month of monitoring takes of a Convex plan:
 *
 *     node bench/cost.ts [--write] [CONVEX_DIR]      prints the figures; --write puts the table into README.md
 *
 * Each kind of run is measured in a local backend with the real functions; month.ts says what is counted and adds up.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Counted } from "./counted.ts";
import { type Cost, type Costs, PAGE_ROWS, runs, table } from "./month.ts";
import { CONVEX, TOKENS } from "./server.ts";

const README = join(fileURLToPath(new URL("..", import.meta.url)), "README.md");

/** Where the table stands in README.md. */
const MARKS = ["<!-- cost: written by `node bench/cost.ts --write` -->", "<!-- end of cost -->"] as const;

const AGENTS = 2 * PAGE_ROWS;
/** A heartbeat is kept for 90 days. */
const FORGOTTEN_MS = 91 * 24 * 60 * 60_000;
/** Heartbeats to be forgotten, and how many one call takes: more than one run of the pruning forgets. */
const OLD = { calls: 3, each: 100 };

/** What each kind of run costs. @param convex the functions. */
export async function measure(convex = CONVEX): Promise<Costs> {
  const deployment = await Counted.start(convex, AGENTS);
  try {
    const counts = await deployment.cost("queries/getAgentTaskCounts", deployment.counts(0));
    const heartbeat = await deployment.cost("mutations/recordHeartbeat", deployment.heartbeat(0));
    const sweep = await deployment.cost("heartbeat/maintenance:sweep", {});
    return { counts, heartbeat, sweep, ...(await viewing(deployment)), ...(await daily(deployment)) };
  } finally {
    await deployment.stop();
  }
}

async function viewing(deployment: Counted): Promise<Pick<Costs, "monitor" | "page" | "row">> {
  const reading = { token: TOKENS.read, request: {} };
  const path = "queries/getAgentDashboard";
  const full = { ...reading, request: { limit: PAGE_ROWS } };
  const one = await deployment.cost(path, { ...reading, request: { limit: 1 } });
  const row = share(minus(await deployment.cost(path, full), one), PAGE_ROWS - 1);
  return {
    monitor: await deployment.cost("queries/getMonitorStatus", reading),
    page: minus(one, row),
    row,
  };
}

async function daily(deployment: Counted): Promise<Pick<Costs, "reconciled" | "pruned">> {
  const step = { begunAt: deployment.now, phase: "watched", cursor: null, unlinked: false, after: -1 };
  await deployment.backend.admin("heartbeat/maintenance:reconcile", {});
  const reconcile = await deployment.cost("heartbeat/maintenance:reconcile", { step });
  for (let nth = 0; nth < OLD.calls; nth++) {
    const heartbeats = Array.from({ length: OLD.each }, () => deployment.heartbeat(0).heartbeat);
    const args = { token: TOKENS.send, batch: { heartbeats } };
    await deployment.backend.call("mutation", "mutations/recordHeartbeats", args);
  }
  deployment.pass(FORGOTTEN_MS);
  const prune = await deployment.cost("heartbeat/maintenance:prune", {});
  return {
    // beside a row of its own it reads of each agent our row and the team's
    reconciled: { ...reconcile, of: (reconcile.documentsRead - 1) / 2 },
    pruned: { ...prune, of: prune.documentsWritten },
  };
}

function combine(by: (name: keyof Cost) => number): Cost {
  return {
    documentsRead: by("documentsRead"),
    documentsWritten: by("documentsWritten"),
    bytes: by("bytes"),
    storedBytes: by("storedBytes"),
  };
}

function minus(all: Cost, some: Cost): Cost {
  return combine((name) => all[name] - some[name]);
}

function share(all: Cost, parts: number): Cost {
  return combine((name) => all[name] / parts);
}

/** The text of README.md with the table in its place. @throws Error where it has none. */
export function withTable(text: string, costs: Costs): string {
  const [from, to] = MARKS.map((mark) => text.indexOf(mark)) as [number, number];
  if (from < 0 || to < from) throw new Error(`README.md has no place for the table: ${MARKS.join(" … ")}`);
  return `${text.slice(0, from + MARKS[0].length)}\n${table(costs)}\n${text.slice(to)}`;
}

if (import.meta.main) {
  const options = { write: { type: "boolean", default: false } } as const;
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const costs = await measure(positionals[0]);
  process.stdout.write(`${runs(costs)}\n\n${table(costs)}\n`);
  if (values.write) writeFileSync(README, withTable(readFileSync(README, "utf8"), costs));
}
