/** A host delivers what it kept during an outage: how long until all of it is recorded, and what that takes of the backend's memory. */
import { heartbeatArgs, Line } from "./load.ts";
import type { Options, Row } from "./scenarios.ts";
import { Backend, CONVEX, type Json, register, temporaryFolder, TOKENS } from "./server.ts";

const KEPT = 10_000;
const AGENTS = 10;
/** What one call takes at most. */
const BATCH = 100;
/** Between two heartbeats of one agent, ms. */
const EVERY_MS = 300_000;

const WITHIN_S = 30;
const MEMORY_MB = 300;

/** The batches of a spool that was filled while the backend was away: all agents in turns, oldest first. */
function* batches(): Generator<Json> {
  for (let from = 0; from < KEPT; from += BATCH) {
    const heartbeats = Array.from({ length: BATCH }, (_, place) => {
      const nth = from + place;
      const { heartbeat } = heartbeatArgs(nth % AGENTS, `run ${nth} of the outage`) as { heartbeat: Json };
      const ageMs = Math.floor((KEPT - nth) / AGENTS) * EVERY_MS;
      return { ...heartbeat, sentAt: (heartbeat["deliveredAt"] as number) - ageMs };
    });
    yield { token: TOKENS.send, batch: { heartbeats } };
  }
}

/** One connection, one batch after the other, as the spool does it. */
async function deliverAll(backend: Backend): Promise<{ recorded: number; slowestMs: number }> {
  const line = await Line.open(backend.url);
  let [recorded, slowestMs] = [0, 0];
  for (const args of batches()) {
    const startedAt = performance.now();
    const body = (await line.call("mutation", "mutations/recordHeartbeats", args)).toString();
    slowestMs = Math.max(slowestMs, performance.now() - startedAt);
    recorded += body.split('"outcome":"recorded"').length - 1;
  }
  line.close();
  return { recorded, slowestMs };
}

/** The drain of a full spool into an empty backend; in each round a fresh one. */
export async function drain({ rounds }: Options): Promise<Row[]> {
  const seconds: number[] = [];
  const slowest: number[] = [];
  let [recorded, peak, growth] = [0, 0, 0];
  for (let round = 0; round < rounds; round++) {
    const backend = await Backend.start(temporaryFolder(), CONVEX);
    await register(backend, AGENTS);
    const before = backend.memory().now;
    const startedAt = performance.now();
    const delivered = await deliverAll(backend);
    seconds.push((performance.now() - startedAt) / 1_000);
    slowest.push(delivered.slowestMs);
    recorded += delivered.recorded;
    peak = Math.max(peak, backend.memory().peak);
    growth = Math.max(growth, backend.memory().peak - before);
    await backend.stop();
  }
  const longest = Math.max(...seconds);
  return [
    {
      what: `${KEPT} kept heartbeats of ${AGENTS} agents, ${BATCH} a call`,
      measured: `${Math.min(...seconds).toFixed(1)} to ${longest.toFixed(1)} s, a call at most ${Math.max(...slowest).toFixed(0)} ms`,
      reach: `${WITHIN_S} s`,
      kept: recorded === KEPT * rounds && longest <= WITHIN_S,
    },
    {
      what: "  memory, at most",
      measured: `${peak.toFixed(0)} MB, ${growth.toFixed(0)} MB more than before`,
      reach: `${MEMORY_MB} MB`,
      kept: peak <= MEMORY_MB,
    },
  ];
}
