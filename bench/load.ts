/**
 * The load generator, a process of its own: sends calls over kept-alive HTTP connections and reports how long each took.
 *
 *     node load.ts '{"url": …, "connections": 32, "seconds": 5, …}'      one line of JSON on stdout
 *
 * It writes requests and cuts answers on the bare sockets: node:http's client would use more CPU than the backend has left
 * on two cores. How much it used itself is part of the report.
 */
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { agentName, FLEET_PAGE, TOKENS, type Json } from "./server.ts";

/** What to send, how, and for how long. */
export type Job = {
  url: string;
  /** `heartbeat`: recordHeartbeat for `agents` agents in turn; `nothing`: the yardstick mutation; `dashboard`: all pages. */
  what: "heartbeat" | "nothing" | "dashboard";
  connections: number;
  /** Calls a second, spread evenly whatever the answers; 0: each connection sends when its last call is answered. */
  perSecond: number;
  /** Not measured, s. */
  warmUp: number;
  seconds: number;
  agents: number;
  /** The number of the first agent. */
  firstAgent: number;
};

/** What came of it; times in ms, from when a call was due to its whole answer. */
export type Load = {
  calls: number;
  failed: number;
  perSecond: number;
  p50: number;
  p99: number;
  max: number;
  /** CPU time of this process, share of one core. */
  cpu: number;
};

/** The value below which that share of the sorted values lies. */
export function percentile(sorted: number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** A UUIDv7 of now. */
function heartbeatId(now: number): string {
  const time = now.toString(16).padStart(12, "0");
  const random = randomBytes(10).toString("hex");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-8${random.slice(3, 6)}-${random.slice(6, 18)}`;
}

/** A heartbeat as `heartbeat send` puts it on the wire. @param said its summary. */
export function heartbeatArgs(nth: number, said: string): Json {
  const now = Date.now();
  return {
    token: TOKENS.send,
    heartbeat: {
      heartbeatId: heartbeatId(now),
      agent: agentName(nth),
      sentAt: now - 3,
      deliveredAt: now,
      status: "ok",
      summary: said,
      openTasks: 3,
      staleTasks: 1,
      host: `host-${nth % 40}`,
      clientVersion: "0.1.0",
    },
  };
}

/** One kept-alive connection: one call at a time. */
export class Line {
  readonly #socket: Socket;
  readonly #host: string;
  #waiting: { done: (body: Buffer) => void; failed: (error: Error) => void } | null = null;
  #chunks: Buffer[] = [];
  #size = 0;
  #needed = Infinity;
  #head = 0;

  private constructor(socket: Socket, host: string) {
    this.#socket = socket;
    this.#host = host;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("close", () => this.#waiting?.failed(new Error("the connection was closed")));
  }

  static async open(url: string): Promise<Line> {
    const { hostname, port, host } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new Line(socket, host);
  }

  /** Sends a call; the answer's body. */
  call(kind: string, path: string, args: Json): Promise<Buffer> {
    const body = JSON.stringify({ path, args });
    this.#socket.write(
      `POST /api/${kind} HTTP/1.1\r\nhost: ${this.#host}\r\ncontent-type: application/json\r\n` +
        `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
    return new Promise((done, failed) => {
      this.#waiting = { done, failed };
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#needed === Infinity) this.#readHead();
    if (this.#size < this.#needed) return;
    const body = Buffer.concat(this.#chunks).subarray(this.#head);
    this.#chunks = [];
    this.#size = 0;
    this.#needed = Infinity;
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.done(body);
  }

  #readHead(): void {
    const text = Buffer.concat(this.#chunks).toString("latin1");
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) return;
    const length = /content-length: (\d+)/i.exec(text.slice(0, end))?.[1];
    if (length === undefined) throw new Error(`an answer without a length: ${text.slice(0, end)}`);
    this.#head = end + 4;
    this.#needed = this.#head + Number(length);
  }
}

const SUCCESS = Buffer.from('{"status":"success"');

/** Makes one call of the job after another. */
class Caller {
  readonly #job: Job;
  #count = 0;

  constructor(job: Job) {
    this.#job = job;
  }

  /** @returns whether it succeeded. */
  async call(line: Line): Promise<boolean> {
    const { what, agents, firstAgent } = this.#job;
    const nth = this.#count++;
    if (what === "nothing") return isSuccess(await line.call("mutation", "nothing", {}));
    if (what === "heartbeat") {
      const args = heartbeatArgs(firstAgent + (nth % agents), "All parts looked after, nothing to report");
      return isSuccess(await line.call("mutation", "mutations/recordHeartbeat", args));
    }
    let cursor: string | null = null;
    do {
      const args = { token: TOKENS.read, request: { cursor, limit: FLEET_PAGE } };
      const body = await line.call("query", "queries/getAgentDashboard", args);
      if (!isSuccess(body)) return false;
      // the end of the value tells whether there is more; parsing 400 kB is not the backend's time
      const tail = body.toString("latin1", Math.max(0, body.length - 1000));
      cursor = tail.includes('"isDone":true')
        ? null
        : (/"continueCursor":"([^"]*)"/.exec(body.toString("latin1"))?.[1] ?? null);
    } while (cursor !== null);
    return true;
  }
}

function isSuccess(body: Buffer): boolean {
  return body.subarray(0, SUCCESS.length).equals(SUCCESS);
}

async function run(job: Job): Promise<Load> {
  const lines = await Promise.all(Array.from({ length: job.connections }, () => Line.open(job.url)));
  const caller = new Caller(job);
  const times: number[] = [];
  let failed = 0;
  const from = performance.now() + job.warmUp * 1000;
  const until = from + job.seconds * 1000;
  const one = async (line: Line, dueAt: number): Promise<void> => {
    const succeeded = await caller.call(line);
    const at = performance.now();
    if (at < from || at > until) return;
    times.push(at - dueAt);
    if (!succeeded) failed++;
  };
  const closed = async (line: Line): Promise<void> => {
    while (performance.now() < until) await one(line, performance.now());
  };
  const open = async (): Promise<void> => {
    const idle = [...lines];
    const calls: Promise<void>[] = [];
    for (let dueAt = performance.now(); dueAt < until; dueAt += 1000 / job.perSecond) {
      const wait = dueAt - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      const line = idle.pop() ?? (await Line.open(job.url));
      calls.push(one(line, dueAt).then(() => void idle.push(line)));
    }
    await Promise.all(calls);
    for (const line of idle) line.close();
  };
  const before = process.cpuUsage();
  const startedAt = performance.now();
  await (job.perSecond > 0 ? open() : Promise.all(lines.map(closed)));
  const { user, system } = process.cpuUsage(before);
  const wall = performance.now() - startedAt;
  for (const line of lines) line.close();
  times.sort((left, right) => left - right);
  return {
    calls: times.length,
    failed,
    perSecond: times.length / job.seconds,
    p50: percentile(times, 0.5),
    p99: percentile(times, 0.99),
    max: times.at(-1) ?? NaN,
    cpu: (user + system) / 1000 / wall,
  };
}

if (import.meta.main) {
  const load = await run(JSON.parse(process.argv[2] as string) as Job);
  process.stdout.write(`${JSON.stringify(load)}\n`);
}
