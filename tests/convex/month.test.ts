/** What a month is said to cost is computed from what the functions cost now, and a real fleet with a real viewer takes what is computed for it. */
import { readFileSync } from "node:fs";
import { ConvexClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Dashboard, MonitorStatus } from "../../convex/heartbeat/model/validators";
import { measure, withTable } from "../../bench/cost";
import { costOf, Counted } from "../../bench/counted";
import { type Costs, dollars, PAGE_ROWS, type Tally, usage } from "../../bench/month";
import { agentName, CONVEX, TOKENS } from "../../bench/server";
import type { Args } from "./engines";

let costs: Costs;
beforeAll(async () => {
  costs = await measure();
});

// --- the README ---

const README = readFileSync("README.md", "utf8");
const UNITS: Record<string, number> = { k: 1e3, M: 1e6, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

/** "1.4 GB" and "$11,000" as numbers; words are none. */
function valueOf(figure: string): number {
  const [, number = "", unit] = /^\$?([\d.,]+)(?: (\w+))?(?: min)?$/.exec(figure) ?? [];
  return Number(number.replaceAll(",", "") || NaN) * (unit === undefined ? 1 : (UNITS[unit] ?? NaN));
}

test("README.md has the table that `node bench/cost.ts --write` would write, but for rounding", () => {
  const figures = (text: string) =>
    text.split("\n").map((line) => (line.startsWith("|") ? line.split(/ [|/] /) : [line]));
  const computed = figures(withTable(README, costs));
  const said = figures(README);
  expect(said.length).toBe(computed.length);
  for (const [at, line] of said.entries()) {
    for (const [place, figure] of line.entries()) {
      const now = computed[at]?.[place];
      // two figures are shown: the next number is up to a tenth away
      const near = Math.abs(valueOf(figure) / valueOf(now ?? "") - 1) < 0.1;
      expect(near || figure === now, `${line.join(" | ")}: ${figure} is ${now} by now`).toBe(true);
    }
  }
});

test("a month within the free plan costs nothing, beyond it the cheaper of the paid ones", () => {
  const [free, paid] = [
    { calls: 1e6, bytes: 1e9, stored: 0.5e9 },
    { calls: 25e6, bytes: 50e9, stored: 50e9 },
  ];
  expect(dollars(free)).toBe(0);
  expect(dollars({ ...free, calls: 2e6 })).toBeCloseTo(2.2);
  expect(dollars({ ...free, bytes: 6e9, stored: 5.5e9 })).toBeCloseTo(2.2);
  // piece by piece it would be 74.47 dollars
  expect(dollars(paid)).toBe(25);
  expect(dollars({ calls: 26e6, bytes: 51e9, stored: 51e9 })).toBeCloseTo(27.4);
});

// --- a part of it ---

const dashboard = makeFunctionReference<"query", Args, Dashboard>("queries/getAgentDashboard");
const monitorStatus = makeFunctionReference<"query", Args, MonitorStatus>("queries/getMonitorStatus");

/** As a page holds the dashboard: every page of the fleet, each as it is asked for by the end of the one before, and the monitor's status. */
class Viewer {
  readonly #client: ConvexClient;
  readonly #held = new Set<string | null>();
  readonly heardAt = new Map<string, number | undefined>();
  sweptAt: number | undefined;
  /** The last page, which may be empty, was answered. */
  whole = false;

  constructor(url: string) {
    this.#client = new ConvexClient(url);
    const args = { token: TOKENS.read, request: {} };
    this.#client.onUpdate(monitorStatus, args, ({ sweepRanAt }) => (this.sweptAt = sweepRanAt));
    this.#hold(null);
  }

  #hold(cursor: string | null): void {
    if (this.#held.has(cursor)) return;
    this.#held.add(cursor);
    const args = { token: TOKENS.read, request: { cursor, limit: PAGE_ROWS } };
    this.#client.onUpdate(dashboard, args, ({ agents, isDone, continueCursor }) => {
      for (const { agent, lastHeartbeatAt } of agents) this.heardAt.set(agent, lastHeartbeatAt);
      if (isDone) this.whole = true;
      else this.#hold(continueCursor);
    });
  }

  async close(): Promise<void> {
    await this.#client.close();
  }
}

const MINUTE = 60_000;
const MINUTES = 30;
const soon = (value: () => unknown) => expect.poll(value, { timeout: 10_000, interval: 20 });

let deployment: Counted;
let viewer: Viewer;
afterAll(async () => {
  await viewer?.close();
  await deployment?.stop();
});

test("half an hour with a viewer takes the calls, documents and bytes that are computed for it", async () => {
  const fleet = { agents: 2 * PAGE_ROWS, everyMinutes: PAGE_ROWS, viewers: 1 };
  deployment = await Counted.start(CONVEX, fleet.agents);
  viewer = new Viewer(deployment.backend.url);
  await soon(() => viewer.whole).toBe(true);
  await soon(() => viewer.sweptAt).toBe(deployment.now);
  const before = await deployment.total();

  let turn = 0;
  for (let minute = 0; minute < MINUTES; minute++) {
    deployment.pass(MINUTE / 3);
    await deployment.sweep();
    await soon(() => viewer.sweptAt).toBe(deployment.now);
    for (let nth = 0; nth < fleet.agents / fleet.everyMinutes; nth++) {
      deployment.pass(MINUTE / 3);
      const agent = turn++ % fleet.agents;
      await deployment.send(agent);
      await soon(() => viewer.heardAt.get(agentName(agent))).toBe(deployment.now - 3);
    }
  }

  const after = await deployment.total();
  const spent = Object.fromEntries(
    Object.entries(after).map(([name, count]) => [name, count - before[name as keyof Tally]]),
  ) as Tally;
  const taken = costOf(spent);
  const computed = usage(costs, fleet, MINUTES);
  const { counts, heartbeat, sweep, monitor, page, row } = costs;
  // when the last row of a page changes, the local backend also runs the page behind it, here the other one or an empty third: its index
  // keys do not end in the id, as Convex's do
  const behind = turn / PAGE_ROWS;
  // a sweep is no public function
  expect(spent.runs + MINUTES).toBe(computed.calls + behind);
  const full = page.documentsRead + PAGE_ROWS * row.documentsRead;
  const status = MINUTES * (sweep.documentsRead + monitor.documentsRead);
  const extra = (behind / 2) * (full + page.documentsRead);
  expect(taken.documentsRead).toBe(
    turn * (counts.documentsRead + heartbeat.documentsRead + full) + status + extra,
  );
  expect(taken.documentsWritten).toBe(turn * heartbeat.documentsWritten + MINUTES * sweep.documentsWritten);
  // names and schedules differ in length
  const extraBytes = (behind / 2) * (2 * page.bytes + PAGE_ROWS * row.bytes);
  expect(Math.abs(taken.bytes / (computed.bytes + extraBytes) - 1)).toBeLessThan(0.02);
});
