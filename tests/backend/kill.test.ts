/**
 * The kill test: clients on HTTP and WebSockets write while scheduled functions and a cron run, the process is killed at
 * random instants, its start included, and started again on the same folder. 100 rounds with HEARTBEAT_TEST_LONG=1.
 */
import { randomInt } from "node:crypto";
import { expect, test } from "vitest";
import { WebSocket } from "ws";
import { checkData, DataFile, ledgerBundle, spawnBackend, type Started } from "./ledger.ts";
import { randomFrom, type Random } from "./random.ts";
import { eventually, temporaryFolder } from "./server.ts";

const ROUNDS = process.env.HEARTBEAT_TEST_LONG ? 100 : 4;
const HTTP_WRITERS = 4;
const SOCKET_WRITERS = 3;
/** Mutations that a WebSocket client has under way. */
const PIPELINE = 4;
const ACCOUNTS = 5;
/** The process is killed so long after it began to start (at times), or to answer, ms. */
const KILL_STARTING_MS = 250;
const KILL_SERVING_MS = 350;

/** A transfer under a key of its own; every second one schedules its settlement, every third one a notice. */
function transfer(key: string, random: Random): object {
  const [from, to] = [`account${random(ACCOUNTS)}`, `account${random(ACCOUNTS)}`];
  const settleInMs = random(2) === 0 ? { settleInMs: random(400) } : {};
  const notifyInMs = random(3) === 0 ? { notifyInMs: random(400) } : {};
  return { key, from, to, amount: 1 + random(9), ...settleInMs, ...notifyInMs };
}

/** What the clients were told, over all rounds. */
type Told = { acknowledged: Set<string>; refused: string[] };

/** Sends one transfer after the other until the connection breaks. */
async function writeOverHttp(url: string, name: string, random: Random, told: Told): Promise<void> {
  for (let step = 0; ; step++) {
    const key = `${name}-${step}`;
    const body = JSON.stringify({ path: "moves:transfer", args: transfer(key, random) });
    const headers = { "content-type": "application/json" };
    try {
      const response = await fetch(`${url}/api/mutation`, { method: "POST", headers, body });
      const { status } = (await response.json()) as { status?: string };
      if (status === "success") told.acknowledged.add(key);
      else told.refused.push(key);
    } catch {
      return;
    }
  }
}

/** A client as npm convex is one: it keeps its session, and after a reconnect asks again for all that was not answered. */
class SocketClient {
  readonly #name: string;
  readonly #random: Random;
  readonly #told: Told;
  readonly #session = crypto.randomUUID();
  readonly #open = new Map<number, { key: string; message: string }>();
  #requests = 0;
  #connections = 0;

  constructor(name: string, random: Random, told: Told) {
    this.#name = name;
    this.#random = random;
    this.#told = told;
  }

  /** Writes until the connection breaks; `more` false: only until nothing is unanswered. */
  write(url: string, more = true): Promise<void> {
    const socket = new WebSocket(`${url.replace("http", "ws")}/api/1.0.0/sync`);
    const connect = { type: "Connect", sessionId: this.#session, connectionCount: this.#connections++ };
    const refill = (): void => {
      if (!more && this.#open.size === 0) socket.close();
      while (more && this.#open.size < PIPELINE) socket.send(this.#next());
    };
    socket.on("open", () => {
      socket.send(JSON.stringify(connect));
      for (const { message } of this.#open.values()) socket.send(message);
      refill();
    });
    socket.on("message", (data: Buffer) => {
      const answer = JSON.parse(data.toString()) as { type: string; requestId: number; success: boolean };
      if (answer.type !== "MutationResponse") return;
      const key = this.#open.get(answer.requestId)?.key as string;
      this.#open.delete(answer.requestId);
      if (answer.success) this.#told.acknowledged.add(key);
      else this.#told.refused.push(key);
      refill();
    });
    return new Promise((resolve) => {
      socket.on("error", () => undefined);
      socket.on("close", () => resolve());
    });
  }

  #next(): string {
    const requestId = this.#requests++;
    const key = `${this.#name}-${requestId}`;
    const args = [transfer(key, this.#random)];
    const message = JSON.stringify({ type: "Mutation", requestId, udfPath: "moves:transfer", args });
    this.#open.set(requestId, { key, message });
    return message;
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

type Entry = { key: string; account: string; amount: number };
type Job = { name: string; args: [{ key: string }]; state: { kind: string } };

function countByKey(documents: { key: string }[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { key } of documents) counts.set(key, (counts.get(key) ?? 0) + 1);
  return counts;
}

function keysThat(counts: Map<string, number>, fail: (count: number) => boolean): string[] {
  return [...counts].filter(([, count]) => fail(count)).map(([key]) => key);
}

/** What must hold of the data whatever happened. */
function verify(folder: string, told: Told): void {
  const data = new DataFile(folder);
  const entries = data.documents<Entry>("entries");
  const moves = countByKey(entries);
  expect(
    [...told.acknowledged].filter((key) => !moves.has(key)),
    "acknowledged and lost",
  ).toEqual([]);
  expect(
    keysThat(moves, (count) => count !== 2),
    "half-written or run twice",
  ).toEqual([]);
  const balances = new Map<string, number>();
  for (const { account, amount } of entries) balances.set(account, (balances.get(account) ?? 0) + amount);
  const accounts = data.documents<{ name: string; balance: number }>("accounts");
  expect(new Map(accounts.map(({ name, balance }) => [name, balance]))).toEqual(balances);

  const jobs = data.documents<Job>("_scheduled_functions");
  const settling = jobs.filter(({ name }) => name === "moves.js:settle");
  const settled = countByKey(data.documents("settled"));
  expect(settling.filter(({ state }) => state.kind !== "success")).toEqual([]);
  expect(
    settling.filter(({ args }) => settled.get(args[0].key) !== 1),
    "settled not once",
  ).toEqual([]);
  expect(settled.size).toBe(settling.length);
  const notices = jobs.filter(({ name }) => name === "moves.js:notify");
  const noted = countByKey(data.documents("notified"));
  expect(
    keysThat(noted, (count) => count > 1),
    "actions run twice",
  ).toEqual([]);
  const untold = notices.filter(({ args, state }) => state.kind === "success" && !noted.has(args[0].key));
  expect(untold, "actions that succeeded without having run").toEqual([]);
  expect(notices.filter(({ state }) => !["success", "failed"].includes(state.kind))).toEqual([]);

  // a cron of one second runs at instants whole seconds apart: none may have run twice
  const [cron] = data.rows("SELECT next FROM crons") as { next: number }[];
  const ticks = data
    .documents<{ at: number }>("ticks")
    .map(({ at }) => Math.floor((at - (cron?.next as number)) / 1000));
  expect(ticks.length).toBeGreaterThan(1);
  expect(new Set(ticks).size, "a cron's run twice").toBe(ticks.length);
  data.close();
}

/** One life of the process, from its start to a kill. */
async function live(
  backend: Started,
  round: number,
  clients: SocketClient[],
  random: Random,
  told: Told,
): Promise<void> {
  // the first one makes the data
  const early = random(5) === 0 && round > 0;
  const writing = backend.url.then(
    (url) => {
      const writers = Array.from({ length: HTTP_WRITERS }, (_, writer) =>
        writeOverHttp(url, `http${round}-${writer}`, random, told),
      );
      return Promise.all([...writers, ...clients.map((client) => client.write(url))]);
    },
    () => undefined,
  );
  if (!early) await backend.url;
  await pause(random(early ? KILL_STARTING_MS : KILL_SERVING_MS));
  await backend.end("SIGKILL");
  await writing;
}

test(`${ROUNDS} kills at random instants lose nothing and double nothing`, { timeout: 600_000 }, async () => {
  const seed = Number(process.env.KILL_TEST_SEED ?? randomInt(2 ** 31));
  process.stdout.write(`kill test: ${ROUNDS} rounds, KILL_TEST_SEED=${seed}\n`);
  const random = randomFrom(seed);
  const folder = temporaryFolder();
  const bundle = await ledgerBundle();
  const told: Told = { acknowledged: new Set(), refused: [] };
  const clients = Array.from(
    { length: SOCKET_WRITERS },
    (_, writer) => new SocketClient(`socket${writer}`, random, told),
  );
  for (let round = 0; round < ROUNDS; round++) {
    await live(spawnBackend(folder, bundle), round, clients, random, told);
    if (round % 2 === 1) continue;
    const { report, stderr } = await checkData(folder);
    expect([round, stderr, report?.problems]).toEqual([round, "", []]);
  }
  const backend = spawnBackend(folder, bundle);
  const url = await backend.url;
  await Promise.all(clients.map((client) => client.write(url, false)));
  const open = async (): Promise<number> => {
    const response = await fetch(`${url}/api/query?path=moves:waiting&args={}`);
    return ((await response.json()) as { value: number }).value;
  };
  expect(await eventually(open, (count) => count === 0)).toBe(0);
  expect(await backend.end("SIGTERM")).toBe(0);
  expect((await checkData(folder)).report).toMatchObject({ ok: true, problems: [] });
  expect(told.refused).toEqual([]);
  expect(told.acknowledged.size).toBeGreaterThan(ROUNDS);
  verify(folder, told);
});
