/** Who may call what: a table of every exported function, complete by construction. */
import { ConvexError } from "convex/values";
import { makeFunctionReference } from "convex/server";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Args, kindOf, memoryEngine, Refused, START_AT } from "./engines";
import { every, hashOf, HOUR, World } from "./world";

const UNAUTHORIZED = { code: "unauthorized", message: "No valid token for this call." };

/** A token kind, and its text; `own` and `other` are send tokens for a list of agents with and without hint. */
const KINDS = {
  none: undefined,
  empty: "",
  unknown: "nobody ever made this one",
  endless: "x".repeat(100_000),
  "a hash": hashOf("t-admin"),
  revoked: "t-revoked",
  send: "t-send",
  own: "t-own",
  other: "t-other",
  read: "t-read",
  admin: "t-admin",
} as const;
type Kind = keyof typeof KINDS;

const SENDERS: Kind[] = ["send", "own", "admin"];
const READERS: Kind[] = ["read", "admin"];

/** Well-formed arguments for each public function, and who is let in with them. `null`: internal, nobody. */
const TABLE: Record<string, { body: Args; name?: string; letIn: Kind[] } | null> = {
  "mutations/recordHeartbeat": {
    name: "heartbeat",
    body: {
      heartbeatId: "019cad8f-ac00-7000-8000-0000000000ff",
      agent: "hint",
      sentAt: START_AT,
      deliveredAt: START_AT,
      status: "ok",
    },
    letIn: SENDERS,
  },
  "queries/getAgentTaskCounts": { body: { agent: "hint", at: START_AT }, letIn: [...SENDERS, "read"] },
  // of no agent, so that every send token may ask
  "queries/getMonitorStatus": { body: {}, letIn: [...SENDERS, "other", "read"] },
  "queries/getAgentDashboard": { body: {}, letIn: READERS },
  "queries/getAgent": { body: { agent: "hint", at: START_AT }, letIn: READERS },
  "queries/getAgentHistory": { body: { agent: "hint" }, letIn: READERS },
  "queries/listAgentTasks": { body: { agent: "hint", at: START_AT }, letIn: READERS },
  "queries/listTokens": { body: {}, letIn: READERS },
  "mutations/applySchedule": { name: "schedule", body: { source: "s", agents: [] }, letIn: ["admin"] },
  "mutations/setAgentControl": { body: { agent: "hint", control: "active" }, letIn: ["admin"] },
  "mutations/createToken": {
    body: { tokenHash: hashOf("another"), name: "n", scope: "admin" },
    letIn: ["admin"],
  },
  "mutations/revokeToken": { body: { fingerprint: "0123456789ab" }, letIn: ["admin"] },
  "mutations/addTask": { body: { agent: "hint", title: "t" }, letIn: ["admin"] },
  "mutations/completeTask": { body: { taskId: "x" }, letIn: ["admin"] },
  "setup:storeFirstToken": null,
  "maintenance:sweep": null,
  "maintenance:sweepRow": null,
  "maintenance:prune": null,
};

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
    const row = TABLE[path];
    if (row) expect(Object.keys(args.value).sort(), path).toEqual(["token", row.name ?? "request"].sort());
  }
});

describe("a token is let in or gets the one refusal, and costs one look-up", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START_AT }));
  afterEach(() => void vi.useRealTimers());

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
    await make("own", "send", ["rams", "hint"]);
    await make("other", "send", ["rams"]);
    await make("read", "read");
    await make("admin", "admin");
    const { fingerprint } = await make("revoked", "admin");
    await world.ask("mutations/revokeToken", { fingerprint });
    return engine;
  }

  const calls = Object.entries(TABLE).flatMap(([path, row]) => (row === null ? [] : [{ path, ...row }]));

  test.each(calls)("$path", async ({ path, name = "request", body, letIn }) => {
    const engine = await deployment();
    for (const kind of Object.keys(KINDS) as Kind[]) {
      const token = KINDS[kind];
      const args = { ...(token !== undefined && { token }), [name]: body };
      const answer = await engine.call(path, args).then(
        () => "let in",
        (error: unknown) => {
          if (!(error instanceof Refused)) throw error;
          return error.data.code === "unauthorized" ? error.data : "let in";
        },
      );
      expect(answer, kind).toEqual(letIn.includes(kind) ? "let in" : UNAUTHORIZED);
      if (letIn.includes(kind)) continue;
      const { databaseQueries, documentsRead, documentsWritten } = await cost(engine, path, args);
      expect(databaseQueries.used, kind).toBe(["none", "empty", "endless"].includes(kind) ? 0 : 1);
      expect(documentsRead.used, kind).toBeLessThanOrEqual(1);
      expect(documentsWritten.used, kind).toBe(0);
    }
  });

  /** What a refused call read and wrote. */
  async function cost({ t }: ReturnType<typeof memoryEngine>, path: string, args: Args) {
    return await t.mutation(async (ctx) => {
      const call =
        kindOf(path) === "query"
          ? ctx.runQuery(makeFunctionReference<"query">(path), args)
          : ctx.runMutation(makeFunctionReference<"mutation">(path), args);
      await call.then(
        () => expect.fail(`${path} was let in`),
        (error: unknown) => expect(error).toBeInstanceOf(ConvexError),
      );
      return await ctx.meta.getTransactionMetrics();
    });
  }
});
