/**
 * The store against its model (storemodel.ts): transactions, sub-transactions, ranges of indexes, other schemas, and crashes of
 * its process at random instants. 60 times as long with HEARTBEAT_TEST_LONG=1.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { randomInt } from "node:crypto";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { convexToJson, type Value } from "convex/values";
import { expect, test } from "vitest";
import { checkFile } from "../../backend/check.ts";
import type { Json, JsonObject } from "../../backend/values.ts";
import { temporaryFolder } from "./server.ts";
import { perform, SCHEMAS, type Operation, type Read, type Request, type State } from "./storemodel.ts";

const RUNS = process.env.HEARTBEAT_TEST_LONG ? 200 : 3;
/** A failure is not made smaller for longer than this, ms. */
const MAX_MS = process.env.HEARTBEAT_TEST_LONG ? 600_000 : 20_000;
const PROCESS = fileURLToPath(new URL("./storeprocess.ts", import.meta.url));

/** The process under test; a new one after each crash. */
class Subject {
  readonly #file: string;
  #child: ChildProcess | null = null;
  #waiting: ((line: string) => void)[] = [];
  #closed: Promise<unknown> = Promise.resolve();

  constructor(file: string) {
    this.#file = file;
  }

  start(): void {
    const child = spawn(process.execPath, [PROCESS, this.#file], { stdio: ["pipe", "pipe", "inherit"] });
    this.#child = child;
    const waiting: ((line: string) => void)[] = [];
    this.#waiting = waiting;
    child.stdin.on("error", () => undefined);
    const lines = createInterface(child.stdout).on("line", (line) => waiting.shift()?.(line));
    // what it had written is heard, also after its end
    const heard = new Promise((resolve) => lines.once("close", resolve));
    this.#closed = Promise.all([heard, new Promise((resolve) => child.once("close", resolve))]);
  }

  /** Resolves when it is answered, and never when it is not. */
  ask(request: Request): Promise<{ ok: boolean; value: string; message?: string } | null> {
    this.#child?.stdin?.write(`${JSON.stringify(request)}\n`);
    return new Promise((resolve) => this.#waiting.push((line) => resolve(JSON.parse(line) as null)));
  }

  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#closed;
  }
}

/** The world of one run. */
type World = { state: State; schema: number; made: { last: number } };
type Command = fc.AsyncCommand<World, Subject>;
/** What is to be done, without saying to which documents. */
type Plan =
  | { type: "insert"; fields: JsonObject }
  | { type: "patch" | "replace"; which: number; fields: JsonObject }
  | { type: "remove"; which: number }
  | { type: "nested"; plans: Plan[]; kept: boolean }
  | (Omit<Read, "type" | "index" | "fields"> & { type: "read"; which: number });

/** Gives every plan documents and an index that are there. */
function settle(plans: Plan[], world: World): Operation[] {
  let { state } = world;
  return plans.flatMap((plan): Operation[] => {
    const pick = (which: number): number | undefined => [...state.keys()][which % Math.max(1, state.size)];
    const operation = ((): Operation | null => {
      if (plan.type === "insert") return { type: "insert", k: ++world.made.last, fields: plan.fields };
      if (plan.type === "nested") {
        return { type: "nested", operations: settle(plan.plans, { ...world, state }), kept: plan.kept };
      }
      if (plan.type === "read") {
        const indexes = SCHEMAS[world.schema] ?? [];
        const { indexDescriptor: index, fields } = indexes[plan.which % Math.max(1, indexes.length)] ?? {};
        if (index === undefined || fields === undefined) return null;
        const equal = plan.equal.slice(0, fields.length);
        // behind the last field only the creation time is left
        const bounds = equal.length === fields.length ? { lower: null, upper: null } : {};
        return { ...plan, ...bounds, index, fields, equal };
      }
      const k = pick(plan.which);
      if (k === undefined) return null;
      if (plan.type === "remove") return { type: "remove", k };
      if (plan.type === "replace") return { type: "replace", k, fields: plan.fields };
      return { type: "patch", k, changes: plan.fields };
    })();
    if (operation === null) return [];
    state = perform(state, [operation], []);
    return [operation];
  });
}

/** Everything, by every index, both ways. */
function readAll(world: World): Operation[] {
  const whole = { equal: [], lower: null, upper: null, limit: 10_000 };
  const indexes = [...(SCHEMAS[world.schema] ?? []), { indexDescriptor: "by_creation_time", fields: [] }];
  return indexes.flatMap(({ indexDescriptor: index, fields }) =>
    (["asc", "desc"] as const).map((order) => ({ type: "read" as const, index, fields, order, ...whole })),
  );
}

async function transact(
  world: World,
  subject: Subject,
  operations: Operation[],
  fail = false,
): Promise<State> {
  const answers: JsonObject[][] = [];
  const after = perform(world.state, operations, answers);
  const outcome = await subject.ask({ type: "transact", operations, fail });
  if (fail) expect(outcome).toMatchObject({ ok: false, message: "Uncaught Error: as told" });
  else expect(JSON.parse((outcome as { value: string }).value)).toEqual(answers);
  return fail ? world.state : after;
}

class Transact implements Command {
  constructor(
    readonly plans: Plan[],
    readonly fail: boolean,
  ) {}
  check = (): boolean => true;
  async run(world: World, subject: Subject): Promise<void> {
    world.state = await transact(world, subject, settle(this.plans, world), this.fail);
    await transact(world, subject, readAll(world));
  }
  toString = (): string => `transact(${JSON.stringify(this.plans)}, fail ${this.fail})`;
}

class Reopen implements Command {
  constructor(readonly schema: number) {}
  check = (): boolean => true;
  async run(world: World, subject: Subject): Promise<void> {
    world.schema = this.schema;
    await subject.ask({ type: "open", indexes: SCHEMAS[this.schema] ?? [] });
    await transact(world, subject, readAll(world));
  }
  toString = (): string => `reopen(${this.schema})`;
}

/** Kills the process in the middle of transactions: those that it has answered are there, of the others a first part. */
class Crash implements Command {
  constructor(
    readonly transactions: Plan[][],
    readonly afterMs: number,
  ) {}
  check = (): boolean => true;
  async run(world: World, subject: Subject): Promise<void> {
    const states = [world.state];
    let [answered, refused] = [0, false];
    for (const plans of this.transactions) {
      const operations = settle(plans, { ...world, state: states.at(-1) as State });
      states.push(perform(states.at(-1) as State, operations, []));
      void subject.ask({ type: "transact", operations, fail: false }).then((outcome) => {
        answered++;
        refused ||= outcome?.ok !== true;
      });
    }
    await pause(this.afterMs);
    await subject.kill();
    expect(refused).toBe(false);
    subject.start();
    await subject.ask({ type: "open", indexes: SCHEMAS[world.schema] ?? [] });
    const everything = readAll(world).slice(-2, -1);
    const outcome = await subject.ask({ type: "transact", operations: everything, fail: false });
    const [found] = JSON.parse((outcome as { value: string }).value) as [JsonObject[]];
    const possible = states.slice(answered).map((state) => [...state.values()]);
    const texts = possible.map((documents) => JSON.stringify(documents.map(sorted)));
    const at = texts.indexOf(JSON.stringify(found.map(sorted)));
    expect(at, `${answered} of ${this.transactions.length} were answered`).toBeGreaterThanOrEqual(0);
    world.state = states[answered + at] as State;
    await transact(world, subject, readAll(world));
  }
  toString = (): string => `crash(${JSON.stringify(this.transactions)}, after ${this.afterMs} ms)`;
}

function sorted(document: JsonObject): [string, Json][] {
  return Object.entries(document).sort(([left], [right]) => (left < right ? -1 : 1));
}

const scalar = fc.oneof(
  fc.constantFrom<Value>(
    null,
    true,
    false,
    0,
    -0,
    NaN,
    -Infinity,
    1,
    1.5,
    2n,
    -1n,
    "",
    "a",
    "a\0",
    "aa",
    "é😀",
  ),
  fc.constantFrom(new Uint8Array([]).buffer, new Uint8Array([0, 1]).buffer),
);
const json = fc
  .oneof(scalar, fc.array(scalar, { maxLength: 2 }), fc.dictionary(fc.constantFrom("x", "y"), scalar))
  .map((value) => convexToJson(value) as Json);
const fields = fc.record({ a: json, b: json, c: json }, { requiredKeys: [] });
const removal = fc.constant<Json>({ $undefined: null });
const changes = fc.record({ a: fc.oneof(json, removal), b: fc.oneof(json, removal) }, { requiredKeys: [] });
const bound = fc.option(fc.record({ value: json, inclusive: fc.boolean() }));
const which = fc.nat(50);
const plan = fc.letrec<{ plan: Plan }>((tie) => ({
  plan: fc.oneof(
    { depthSize: "small" },
    fc.record({ type: fc.constant("insert" as const), fields }),
    fc.record({ type: fc.constant("insert" as const), fields }),
    fc.record({ type: fc.constant("patch" as const), which, fields: changes }),
    fc.record({ type: fc.constant("replace" as const), which, fields }),
    fc.record({ type: fc.constant("remove" as const), which }),
    fc.record({
      ...{
        type: fc.constant("read" as const),
        which,
        order: fc.constantFrom("asc" as const, "desc" as const),
      },
      ...{
        equal: fc.array(json, { maxLength: 2 }),
        lower: bound,
        upper: bound,
        limit: fc.integer({ min: 1, max: 20 }),
      },
    }),
    fc.record({
      ...{ type: fc.constant("nested" as const), kept: fc.boolean() },
      plans: fc.array(tie("plan"), { maxLength: 3 }),
    }),
  ),
})).plan;
const plans = fc.array(plan, { minLength: 1, maxLength: 8 });
const command = (
  build: fc.Arbitrary<Command>,
  weight: number,
): { arbitrary: fc.Arbitrary<Command>; weight: number } => ({
  arbitrary: build,
  weight,
});
const anyCommand = fc.oneof(
  command(
    fc.tuple(plans, fc.nat(5)).map(([list, luck]) => new Transact(list, luck === 0)),
    6,
  ),
  command(
    fc.nat(SCHEMAS.length - 1).map((schema) => new Reopen(schema)),
    1,
  ),
  command(
    fc
      .tuple(fc.array(plans, { minLength: 1, maxLength: 12 }), fc.nat(12))
      .map(([list, afterMs]) => new Crash(list, afterMs)),
    2,
  ),
);

test(
  "the store does what a list in memory does, and a crash takes nothing that was answered",
  { timeout: 900_000 },
  async () => {
    const seed = Number(process.env.MODEL_SEED ?? randomInt(2 ** 31));
    process.stdout.write(`model test: ${RUNS} runs, MODEL_SEED=${seed}\n`);
    await fc.assert(
      fc.asyncProperty(fc.commands([anyCommand], { maxCommands: 30, size: "max" }), async (commands) => {
        const file = join(temporaryFolder(), "data.sqlite3");
        const subject = new Subject(file);
        subject.start();
        try {
          await subject.ask({ type: "open", indexes: SCHEMAS[0] ?? [] });
          const world = (): World => ({ state: new Map(), schema: 0, made: { last: 0 } });
          await fc.asyncModelRun(() => ({ model: world(), real: subject }), commands);
        } finally {
          await subject.kill();
        }
        expect(checkFile(file).problems).toEqual([]);
      }),
      { numRuns: RUNS, seed, interruptAfterTimeLimit: MAX_MS },
    );
  },
);
