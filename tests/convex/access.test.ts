/** Who may call what: a table of every exported function for every kind of token and for own and other agents, complete by construction. */
import { ConvexError } from "convex/values";
import { makeFunctionReference } from "convex/server";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { BatchRecorded } from "../../convex/heartbeat/model/heartbeatValidators";
import { type Args, kindOf, memoryEngine, Refused, START_AT } from "./engines";
import { BODY_NAMES, every, hashOf, HOUR, World } from "./world";

const UNAUTHORIZED = { code: "unauthorized", message: "No valid token for this call." };

/** A token kind, and its text; `listed` is a send token for hint, and for an agent that is not registered. */
const KINDS = {
  none: undefined,
  empty: "",
  unknown: "nobody ever made this one",
  endless: "x".repeat(100_000),
  "a hash": hashOf("t-admin"),
  revoked: "t-revoked",
  "revoked listed": "t-revoked-listed",
  send: "t-send",
  listed: "t-listed",
  read: "t-read",
  admin: "t-admin",
} as const;
type Kind = keyof typeof KINDS;

const LISTED = ["hint", "planned"];

/** Whose data a call is about: on the list and registered, on the list only, registered only, neither, and none of ours in another spelling. */
const AGENTS = ["hint", "planned", "rams", "nobody", "Hint", ""];

const SENDERS: Kind[] = ["send", "listed", "admin"];
const READERS: Kind[] = ["read", "admin"];

/** What calls may name besides an agent. */
type Made = { taskId: string; fingerprint: string; heartbeatId: string };

/**
 * Well-formed arguments of each public function, and who is let in with them. `listed`: a send token is bound to its list there. `items`: what a
 * list names is decided for each item of the answer. `null`: internal, nobody.
 */
const TABLE: Record<
  string,
  { body: (agent: string, made: Made) => Args; letIn: Kind[]; bound?: "call" | "items" } | null
> = {
  "mutations/recordHeartbeat": { body: heartbeat, letIn: SENDERS, bound: "call" },
  "mutations/recordHeartbeats": {
    body: (agent, made) => ({ heartbeats: [heartbeat(agent, made)] }),
    letIn: SENDERS,
    bound: "items",
  },
  "queries/getAgentTaskCounts": { body: agentAt, letIn: [...SENDERS, "read"], bound: "call" },
  "queries/getMonitorStatus": { body: () => ({}), letIn: [...SENDERS, "read"] },
  "queries/getToken": {
    body: (_, { fingerprint }) => ({ fingerprints: [fingerprint] }),
    letIn: [...SENDERS, "read"],
  },
  "queries/getAgentDashboard": { body: () => ({}), letIn: READERS },
  "queries/getAgent": { body: agentAt, letIn: READERS },
  "queries/getAgentHistory": { body: (agent) => ({ agent }), letIn: READERS },
  "queries/getAgentRuns": { body: (agent) => ({ agent }), letIn: READERS },
  "queries/listAgentTasks": { body: agentAt, letIn: READERS },
  "queries/listTokens": { body: () => ({}), letIn: READERS },
  "mutations/applySchedule": {
    body: (agent) => ({ source: "s", agents: [{ agent, schedule: every(HOUR) }] }),
    letIn: ["admin"],
  },
  "mutations/setAgentControl": { body: (agent) => ({ agent, control: "paused" }), letIn: ["admin"] },
  "mutations/createToken": {
    body: () => ({ tokenHash: hashOf("another"), name: "n", scope: "admin" }),
    letIn: ["admin"],
  },
  "mutations/revokeToken": { body: (_, { fingerprint }) => ({ fingerprint }), letIn: ["admin"] },
  "mutations/addTask": { body: (agent) => ({ agent, title: "t" }), letIn: ["admin"] },
  "mutations/completeTask": { body: (_, { taskId }) => ({ taskId }), letIn: ["admin"] },
  "queries/exportRecords": { body: () => ({ kind: "heartbeats" }), letIn: ["admin"] },
  "mutations/importRecords": {
    body: (agent) => ({ kind: "flips", records: [flip(agent)] }),
    letIn: ["admin"],
  },
  "mutations/leave": { body: () => ({ step: "cards" }), letIn: ["admin"] },
  "heartbeat/setup:storeFirstToken": null,
  "heartbeat/maintenance:sweep": null,
  "heartbeat/maintenance:sweepRow": null,
  "heartbeat/maintenance:prune": null,
  "heartbeat/maintenance:reconcile": null,
};

function heartbeat(agent: string, { heartbeatId }: Made): Args {
  return { heartbeatId, agent, sentAt: START_AT, deliveredAt: START_AT, status: "ok" };
}

function flip(agent: string): Args {
  return { agent, from: "new", to: "ok", reason: "r", becameAt: START_AT, noticedAt: START_AT };
}

function agentAt(agent: string): Args {
  return { agent, at: START_AT };
}

type Exported = {
  isQuery?: true;
  isMutation?: true;
  isAction?: true;
  isHttp?: true;
  isPublic?: true;
  isInternal?: true;
};

/** Every function that the folder exports, by path. */
function exportedFunctions(): Map<string, Exported> {
  const found = new Map<string, Exported>();
  const modules = import.meta.glob<Record<string, Exported>>("../../convex/**/*.ts", { eager: true });
  for (const [file, exports] of Object.entries(modules)) {
    const path = file.replace("../../convex/", "").replace(/\.ts$/, "");
    for (const [name, value] of Object.entries(exports)) {
      if (!(value?.isQuery || value?.isMutation || value?.isAction || value?.isHttp)) continue;
      found.set(name === "default" ? path : `${path}:${name}`, value);
    }
  }
  return found;
}

test("every function stands in the table, public or internal as it says, with arguments and answer described", () => {
  const functions = exportedFunctions();
  expect([...functions.keys()].sort()).toEqual(Object.keys(TABLE).sort());
  for (const [path, exported] of functions) {
    expect(exported.isPublic === true, path).toBe(TABLE[path] !== null);
    expect(exported.isInternal === true, path).toBe(TABLE[path] === null);
    const described = exported as { exportArgs: () => string; exportReturns: () => string };
    const args = JSON.parse(described.exportArgs()) as { type: string; value: Record<string, unknown> };
    expect(args.type, path).toBe("object");
    expect(JSON.parse(described.exportReturns()), path).not.toBeNull();
    if (!TABLE[path]) continue;
    const body = BODY_NAMES[path] ?? "request";
    expect(Object.keys(args.value).sort(), path).toEqual(["token", body].sort());
  }
});

/** A deployment with a token of each kind. */
async function deployment() {
  const engine = memoryEngine();
  const world = new World(engine);
  await world.prepare();
  await world.register({ agent: "hint", schedule: every(HOUR) }, { agent: "rams", schedule: every(HOUR) });
  const make = async (kind: Kind, scope: string, agents?: string[]) =>
    await world.ask<{ fingerprint: string }>("mutations/createToken", {
      tokenHash: hashOf(KINDS[kind]!),
      name: kind,
      scope,
      ...(agents && { agents }),
    });
  await make("send", "send");
  await make("listed", "send", LISTED);
  await make("read", "read");
  await make("admin", "admin");
  for (const revoked of [await make("revoked", "admin"), await make("revoked listed", "send", LISTED)]) {
    await world.ask("mutations/revokeToken", { fingerprint: revoked.fingerprint });
  }
  const { taskId } = await world.ask<Made>("mutations/addTask", { agent: "hint", title: "one" });
  const { fingerprint } = await world.ask<Made>("mutations/createToken", {
    tokenHash: hashOf("one to be revoked"),
    name: "one",
    scope: "read",
  });
  const made = (): Made => ({ taskId, fingerprint, heartbeatId: world.newHeartbeatId() });
  return { engine, world, made };
}

function argsOf(path: string, kind: Kind, body: Args): Args {
  const token = KINDS[kind];
  return { ...(token !== undefined && { token }), [BODY_NAMES[path] ?? "request"]: body };
}

const calls = Object.entries(TABLE).flatMap(([path, row]) => (row === null ? [] : [{ path, ...row }]));

describe("a token is let in for what it may, or gets the one refusal for the cost of one look-up", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

  test.each(calls)("$path", async ({ path, body, letIn, bound }) => {
    const { engine, made } = await deployment();
    for (const kind of Object.keys(KINDS) as Kind[]) {
      for (const agent of AGENTS) {
        const args = argsOf(path, kind, body(agent, made()));
        const cell = `${kind} token, agent ${JSON.stringify(agent)}`;
        const onList = kind !== "listed" || bound === undefined || LISTED.includes(agent);
        const mayCall = letIn.includes(kind) && (onList || bound === "items");
        if (mayCall) {
          const [refused, ...more] = refusedItems(await answerOf(engine, path, args));
          expect(more).toEqual([]);
          expect(refused, cell).toEqual(onList ? undefined : { outcome: "refused", ...UNAUTHORIZED });
        } else {
          expect(await answerOf(engine, path, args), cell).toEqual(UNAUTHORIZED);
        }
        if (mayCall && onList) continue;
        // one document at most: the token. An item that is refused is looked up nowhere
        const { databaseQueries, documentsRead, documentsWritten } = await cost(engine, path, args);
        expect(databaseQueries.used, cell).toBe(["none", "empty", "endless"].includes(kind) ? 0 : 1);
        expect(documentsRead.used, cell).toBeLessThanOrEqual(1);
        expect(documentsWritten.used, cell).toBe(0);
      }
    }
  });

  /** The answer, or the data of the refusal. */
  async function answerOf(engine: ReturnType<typeof memoryEngine>, path: string, args: Args) {
    return await engine.call(path, args).catch((error: unknown) => {
      if (error instanceof Refused) return error.data;
      throw error;
    });
  }

  /** What was refused as unauthorized although the call was let in; the call itself must not be. */
  function refusedItems(answer: unknown): unknown[] {
    expect(answer).not.toMatchObject({ code: "unauthorized" });
    const { results = [] } = answer as Partial<BatchRecorded>;
    return results.filter((one) => "code" in one && one.code === "unauthorized");
  }

  /** What a call read and wrote that is refused, or of which everything is. */
  async function cost({ t }: ReturnType<typeof memoryEngine>, path: string, args: Args) {
    return await t.mutation(async (ctx) => {
      const call =
        kindOf(path) === "query"
          ? ctx.runQuery(makeFunctionReference<"query">(path), args)
          : ctx.runMutation(makeFunctionReference<"mutation">(path), args);
      await call.then(
        (answer: unknown) => expect(refusedItems(answer)).toHaveLength(1),
        (error: unknown) => expect(error).toBeInstanceOf(ConvexError),
      );
      return await ctx.meta.getTransactionMetrics();
    });
  }
});

describe("what was changed with a token is known by the day, what was asked is not", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

  test.each(calls)("$path", async ({ path, body }) => {
    const { engine, world, made } = await deployment();
    await engine.call(path, argsOf(path, "admin", body("hint", made())));
    const { tokens } = await world.ask<{ tokens: { name: string; lastUsedAt?: number }[] }>(
      "queries/listTokens",
      {},
    );
    const today = START_AT - (START_AT % (24 * HOUR));
    const { lastUsedAt } = tokens.find(({ name }) => name === "admin")!;
    expect(lastUsedAt).toBe(kindOf(path) === "mutation" ? today : undefined);
  });
});
