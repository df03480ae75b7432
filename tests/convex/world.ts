/** What a story acts in: a deployment with tokens, hosts that send, and a clock that passes. Knows the contract, not the functions' insides. */
import { createHash } from "node:crypto";
import { expect } from "vitest";
import type {
  AgentRuns,
  BatchRecorded,
  History,
  Recorded,
} from "../../convex/heartbeat/model/heartbeatValidators";
import type {
  AgentDetail,
  AgentRow,
  Applied,
  Dashboard,
  MonitorStatus,
  ScheduledAgent,
} from "../../convex/heartbeat/model/validators";
import { type Args, type Engine, kindOf, Refused } from "./engines";

export const SECOND = 1_000;
export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** The sweep of a living backend in stories runs this often: just not an absence yet. */
const SWEEP_STEP = 5 * MINUTE;

/** One call as `tests/contract` shows it. */
export type Example = {
  name: string;
  path: string;
  kind: string;
  args: Args;
  returns?: unknown;
  refusal?: unknown;
};

type Who = keyof typeof TOKENS | "nobody";

/** The texts of the tokens that a story's deployment has; any client's tests may show them. */
export const TOKENS = {
  admin: "story-token-admin",
  reader: "story-token-read",
  sender: "story-token-send",
  hintOnly: "story-token-send-hint",
  /** made by the stories that rotate hintOnly */
  hintNewer: "story-token-send-hint-newer",
};

export type Said = Partial<{
  heartbeatId: string;
  status: string;
  summary: string;
  error: string;
  result: string;
  openTasks: number;
  staleTasks: number;
  host: string;
  clientVersion: string;
  run: Args;
  /** how long the host kept it before it was delivered */
  age: number;
  /** how far the sender's clock is ahead of the backend's */
  ahead: number;
}>;

type Options = { as?: Who; example?: string };

export function hashOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

export class World {
  #made = 0;

  /** `examples` collects the calls that a story names. */
  constructor(
    private readonly engine: Engine,
    private readonly examples: Example[] = [],
  ) {}

  // --- time ---

  get now(): number {
    return this.engine.now();
  }

  /** Time passes on a living backend: the sweep runs, also at the very end. */
  async pass(ms: number): Promise<void> {
    const end = this.now + ms;
    while (this.now < end) {
      this.engine.setClock(Math.min(this.now + SWEEP_STEP, end));
      await this.sweep();
    }
  }

  /** Time passes and the backend is away. */
  away(ms: number): void {
    this.engine.setClock(this.now + ms);
  }

  /** Time passes in which nobody's deadline does, so that it does not matter whether the sweep ran. */
  later(ms: number): void {
    this.engine.setClock(this.now + ms);
  }

  async sweep(): Promise<void> {
    await this.engine.admin("heartbeat/maintenance:sweep", {});
  }

  /** What the backend does by itself comes about: looked at until it is so, five seconds at most of real time. */
  async until(isSo: () => Promise<boolean>): Promise<void> {
    await expect.poll(isSo, { timeout: 5_000, interval: 5 }).toBe(true);
  }

  // --- calls ---

  /** A call that succeeds. */
  async ask<Answer>(path: string, body: Args, { as = "admin", example }: Options = {}): Promise<Answer> {
    const args = argsOf(path, body, as);
    const returns = await this.engine.call(path, args);
    if (example) this.examples.push({ name: example, path, kind: kindOf(path), args, returns });
    return returns as Answer;
  }

  /** A call that is refused; answers the error's data. */
  async refused(path: string, body: Args, { as = "admin", example }: Options = {}) {
    const args = argsOf(path, body, as);
    const error: unknown = await this.engine.call(path, args).then(
      () => expect.fail(`${path} did not refuse ${JSON.stringify(body)}`),
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof Refused)) throw error;
    if (example) this.examples.push({ name: example, path, kind: kindOf(path), args, refusal: error.data });
    return error.data;
  }

  async prepare(): Promise<void> {
    const request = { tokenHash: hashOf(TOKENS.admin), name: "admin of the stories", scope: "admin" };
    await this.engine.admin("heartbeat/setup:storeFirstToken", { request });
    const make = (token: string, rest: Args) =>
      this.ask("mutations/createToken", { tokenHash: hashOf(token), ...rest });
    await make(TOKENS.reader, { name: "reader", scope: "read" });
    await make(TOKENS.sender, { name: "all senders", scope: "send" });
    await make(TOKENS.hintOnly, {
      name: "hint's host",
      scope: "send",
      agents: ["hint"],
      hostName: "torvalds",
    });
  }

  // --- what people and hosts do ---

  async apply(agents: ScheduledAgent[], rest: Args = {}, options?: Options): Promise<Applied> {
    return await this.ask(
      "mutations/applySchedule",
      { source: "cron-schedule.md", agents, ...rest },
      options,
    );
  }

  async register(...agents: ScheduledAgent[]): Promise<void> {
    expect(await this.apply(agents)).toMatchObject({ outcome: "applied" });
  }

  /** The heartbeat that a host would send now. */
  heartbeat(agent: string, { age = 0, ahead = 0, ...said }: Said = {}): Args {
    const deliveredAt = this.now + ahead;
    const heartbeatId = this.newHeartbeatId();
    return { heartbeatId, agent, sentAt: deliveredAt - age, deliveredAt, status: "ok", ...COUNTED, ...said };
  }

  async send(agent: string, said: Said = {}, options: Options = {}): Promise<Recorded> {
    return await this.ask("mutations/recordHeartbeat", this.heartbeat(agent, said), {
      as: "sender",
      ...options,
    });
  }

  /** Heartbeats as a host delivers them together. */
  async deliver(heartbeats: Args[], options: Options = {}): Promise<BatchRecorded["results"]> {
    const answer = await this.ask<BatchRecorded>(
      "mutations/recordHeartbeats",
      { heartbeats },
      { as: "sender", ...options },
    );
    return answer.results;
  }

  async dashboard(options: Options = {}): Promise<Dashboard> {
    return await this.ask("queries/getAgentDashboard", { limit: 1_000 }, { as: "reader", ...options });
  }

  async row(agent: string): Promise<AgentRow> {
    return (await this.detail(agent)).row;
  }

  async detail(agent: string, options: Options = {}): Promise<AgentDetail> {
    return await this.ask("queries/getAgent", { agent, at: this.now }, { as: "reader", ...options });
  }

  async history(agent: string, rest: Args = {}, options: Options = {}): Promise<History> {
    return await this.ask("queries/getAgentHistory", { agent, ...rest }, { as: "reader", ...options });
  }

  async runs(agent: string, rest: Args = {}, options: Options = {}): Promise<AgentRuns> {
    return await this.ask("queries/getAgentRuns", { agent, ...rest }, { as: "reader", ...options });
  }

  async monitor(options: Options = {}): Promise<MonitorStatus> {
    return await this.ask("queries/getMonitorStatus", {}, { as: "reader", ...options });
  }

  async control(agent: string, control: string, options?: Options): Promise<Args> {
    return await this.ask("mutations/setAgentControl", { agent, control }, options);
  }

  /** A UUIDv7 that says when and in which order it was made. */
  newHeartbeatId(): string {
    const time = this.now.toString(16).padStart(12, "0");
    const nth = (++this.#made).toString(16).padStart(12, "0");
    return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${nth}`;
  }
}

const COUNTED = { openTasks: 0, staleTasks: 0 };

/** What the body of a call is named, where it is not a `request`. */
export const BODY_NAMES: Record<string, string> = {
  "mutations/recordHeartbeat": "heartbeat",
  "mutations/recordHeartbeats": "batch",
  "mutations/applySchedule": "schedule",
};

/** The arguments of a call: the token apart from the body, which `body` names. */
export function argsOf(path: string, body: Args, as: Who): Args {
  const name = BODY_NAMES[path] ?? "request";
  return as === "nobody" ? { [name]: body } : { token: TOKENS[as], [name]: body };
}

export function runId(nth: number): string {
  return `0190f0c0-0000-4000-9000-${nth.toString(16).padStart(12, "0")}`;
}

export function every(ms: number): ScheduledAgent["schedule"] {
  return { kind: "interval", everyMs: ms };
}

export function cron(expression: string, timeZone = "UTC"): ScheduledAgent["schedule"] {
  return { kind: "cron", expression, timeZone };
}
