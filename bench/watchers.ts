/**
 * Subscribers of the dashboard, in a process of their own: they report how far behind they are.
 *
 *     node watchers.ts '{"url": …, "subscribers": 100, "seconds": 8}'      "watching", then one line of JSON on stdout
 *
 * An agent that is stuck, and thus in the first row, says a new number every 100 ms; how far behind a subscriber is counts
 * from when the number was sent to when its first bytes are found in what the subscriber got.
 */
import { WebSocket } from "ws";
import { heartbeatArgs, Line, percentile } from "./load.ts";
import { FLEET_PAGE, TOKENS, type Json } from "./server.ts";

export type WatchJob = { url: string; subscribers: number; seconds: number };

/** Times in ms. */
export type Watched = {
  p50: number;
  p99: number;
  max: number;
  /** Answers that each subscriber got, a second. */
  pushes: number;
  megabytes: number;
  cpu: number;
};

const PROBE_EVERY_MS = 100;
/** A probe that nobody saw in this time is as late as this, ms. */
const GIVE_UP_MS = 3000;
/** No other run's numbers, which may still stand in the row, are taken for this one's. */
const MARK = `probe of ${process.pid}: `;
/** Where the mark is looked for: the first row. */
const FIRST_ROW_BYTES = 4000;

class Watchers {
  readonly #sockets: WebSocket[] = [];
  readonly #sentAt: number[] = [];
  readonly lateness: number[] = [];
  messages = 0;
  bytes = 0;

  /** Subscribes all; resolves when each has had its first answer. */
  async open(url: string, subscribers: number): Promise<void> {
    const first: Promise<void>[] = [];
    for (let nth = 0; nth < subscribers; nth++) {
      const socket = new WebSocket(`${url.replace("http", "ws")}/api/1.48.0/sync`, {
        perMessageDeflate: false,
        skipUTF8Validation: true,
        maxPayload: 0,
      });
      this.#sockets.push(socket);
      first.push(this.#subscribe(socket));
    }
    await Promise.all(first);
  }

  #subscribe(socket: WebSocket): Promise<void> {
    const say = (message: Json): void => socket.send(JSON.stringify(message));
    let seen = 0;
    return new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on("open", () => {
        say({ type: "Connect", sessionId: crypto.randomUUID(), connectionCount: 0, lastCloseReason: null });
        const args = [{ token: TOKENS.read, request: { limit: FLEET_PAGE } }];
        const add = { type: "Add", queryId: 0, udfPath: "queries/getAgentDashboard", args };
        say({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [add] });
      });
      socket.on("message", (data: Buffer) => {
        const at = performance.now();
        if (data.length < FIRST_ROW_BYTES) return;
        this.messages++;
        this.bytes += data.length;
        const text = data.toString("latin1", 0, FIRST_ROW_BYTES);
        const found = text.indexOf(MARK);
        const number = found < 0 ? 0 : Number.parseInt(text.slice(found + MARK.length), 10);
        for (; seen < number; seen++) this.lateness.push(at - (this.#sentAt[seen] as number));
        resolve();
      });
    });
  }

  /** Sends the next number. */
  async probe(line: Line): Promise<void> {
    const number = this.#sentAt.push(performance.now());
    const args = heartbeatArgs(0, `${MARK}${number}`) as { heartbeat: Json };
    args.heartbeat.status = "blocked";
    await line.call("mutation", "mutations/recordHeartbeat", args);
  }

  /** How many numbers all of them together should have seen. */
  get expected(): number {
    return this.#sentAt.length * this.#sockets.length;
  }

  close(): void {
    for (const socket of this.#sockets) socket.terminate();
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function watch({ url, subscribers, seconds }: WatchJob): Promise<Watched> {
  const watchers = new Watchers();
  await watchers.open(url, subscribers);
  process.stdout.write("watching\n");
  const before = process.cpuUsage();
  const startedAt = performance.now();
  const line = await Line.open(url);
  const { messages, bytes } = watchers;
  while (performance.now() - startedAt < seconds * 1000) {
    await watchers.probe(line);
    await pause(PROBE_EVERY_MS);
  }
  const measuredMs = performance.now() - startedAt;
  const { user, system } = process.cpuUsage(before);
  const pushes = ((watchers.messages - messages) * 1000) / measuredMs / subscribers;
  const megabytes = (watchers.bytes - bytes) / 1e6;
  for (let waited = 0; waited < GIVE_UP_MS && watchers.lateness.length < watchers.expected; waited += 50) {
    await pause(50);
  }
  const unseen = Math.max(0, watchers.expected - watchers.lateness.length);
  const lateness = [...watchers.lateness, ...Array<number>(unseen).fill(GIVE_UP_MS)].sort((a, b) => a - b);
  watchers.close();
  line.close();
  return {
    p50: percentile(lateness, 0.5),
    p99: percentile(lateness, 0.99),
    max: lateness.at(-1) ?? NaN,
    pushes,
    megabytes,
    cpu: (user + system) / 1000 / measuredMs,
  };
}

if (import.meta.main) {
  const watched = await watch(JSON.parse(process.argv[2] as string) as WatchJob);
  process.stdout.write(`${JSON.stringify(watched)}\n`, () => process.exit(0));
}
