/** A worker that is lost at any instant, in the middle of a commit too, costs no mutation and doubles none. */
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { Host } from "../../backend/host.ts";
import { callFromAction } from "../../backend/calls.ts";
import type { Call, Outcome } from "../../backend/messages.ts";
import { ledgerBundle } from "./ledger.ts";
import { eventually, temporaryFolder } from "./server.ts";

const LONG = process.env.HEARTBEAT_TEST_LONG === "1";
/** Losses in a row: about every second one falls into a commit. */
const LOSSES = LONG ? 36 : 6;
const WRITERS = 16;
/** Changes of the functions, with a worker lost in each. */
const RELOADS = LONG ? 36 : 6;

function callOf(path: string, args: object): Call {
  const info = { ip: null, userAgent: null, requestId: "0" };
  return { path, args: JSON.stringify([args]), info, scheduledId: null };
}

/** The backend's main thread without its sockets, on a folder of its own. */
async function startHost(replaced = (): unknown => undefined): Promise<{ host: Host; file: string }> {
  const file = join(temporaryFolder(), "data.sqlite3");
  const host: Host = new Host(
    { bundle: readFileSync(await ledgerBundle(), "utf8"), file, env: {} },
    {
      committed: () => undefined,
      nextDue: () => undefined,
      replaced,
      called: (target) => callFromAction(host, target),
      broken: (message) => expect.unreachable(message),
    },
  );
  await host.start();
  return { host, file };
}

/** Writers that run until they are stopped; what was answered is compared with what is in the file. */
class Writers {
  readonly answered: string[] = [];
  readonly refused: string[] = [];
  #running = true;
  readonly #all: Promise<unknown>;

  constructor(host: Host) {
    const write = async (writer: number): Promise<void> => {
      for (let step = 0; this.#running; step++) {
        const key = `${writer}-${step}`;
        const { outcome } = await host.mutation({ type: "mutation", call: callOf("faults:add", { key }) });
        (outcome.ok ? this.answered : this.refused).push(key);
      }
    };
    this.#all = Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(writer)));
  }

  /** Waits until somebody was answered again. */
  async answeredAgain(): Promise<void> {
    const before = this.answered.length;
    const answered = await eventually(
      () => Promise.resolve(this.answered.length > before),
      (again) => again,
    );
    expect(answered).toBe(true);
  }

  /** Stops the writers, then the host, and looks into the file. */
  async check(host: Host, file: string): Promise<void> {
    this.#running = false;
    await this.#all;
    await host.stop();
    const db = new DatabaseSync(file, { readOnly: true });
    const [table] = db.prepare("SELECT number FROM tables WHERE name = 'settled'").all() as {
      number: number;
    }[];
    const counts = new Map<string, number>();
    for (const { doc } of db.prepare(`SELECT doc FROM d${table?.number}`).all() as { doc: string }[]) {
      const { key } = JSON.parse(doc) as { key: string };
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    db.close();
    expect(this.answered.filter((key) => counts.get(key) !== 1)).toEqual([]);
    expect(this.refused.filter((key) => counts.has(key))).toEqual([]);
    expect(counts.size).toBe(this.answered.length);
  }
}

/** The workers that are started from now on, oldest first. */
function watchWorkers(): { workers: Worker[]; stop: () => void } {
  const workers: Worker[] = [];
  const remember = (worker: Worker): void => void workers.push(worker);
  process.on("worker", remember);
  return { workers, stop: () => process.off("worker", remember) };
}

test("every mutation that was answered is there once, every one that was refused is not there", async () => {
  const { workers, stop } = watchWorkers();
  let replacements = 0;
  const { host, file } = await startHost(() => replacements++);
  const writers = new Writers(host);
  for (let loss = 1; loss <= LOSSES; loss++) {
    await new Promise((resolve) => setTimeout(resolve, 5 + ((loss * 7) % 23)));
    await workers.at(-1)?.terminate();
    await eventually(
      () => Promise.resolve(replacements === loss),
      (replaced) => replaced,
    );
    await writers.answeredAgain();
  }
  stop();
  await writers.check(host, file);
  expect(replacements).toBe(LOSSES);
});

test("the same when workers are lost while others with new functions take over from them", async () => {
  const { workers, stop } = watchWorkers();
  const { host, file } = await startHost();
  const writers = new Writers(host);
  const bundle = readFileSync(await ledgerBundle(), "utf8");
  const ends = { taken: 0, refused: 0 };
  for (let change = 1; change <= RELOADS; change++) {
    const serving = workers.at(-1);
    const reload = host.reload(`${bundle}\n// ${change}`).then(
      () => ends.taken++,
      () => ends.refused++,
    );
    // a new worker needs some 60 ms until it takes over: before, amid and after that, the serving one or the new one
    await new Promise((resolve) => setTimeout(resolve, 25 + ((change * 13) % 70)));
    await (change % 3 === 0 ? workers.at(-1) : serving)?.terminate();
    await reload;
    await writers.answeredAgain();
  }
  stop();
  await writers.check(host, file);
  expect(ends.taken + ends.refused).toBe(RELOADS);
  expect(ends.taken).toBeGreaterThan(0);
});

test("an answer for an action of a lost worker does not reach an action of the next one", async () => {
  const { host } = await startHost();
  const action = (key: string): Promise<Outcome> => host.action(callOf("faults:addFromAction", { key }));
  // the first action's call waits behind the endless mutation, and is run by the next worker
  const first = action("first");
  const endless = host.mutation({ type: "mutation", call: callOf("faults:endless", {}) });
  expect(await first).toMatchObject({ ok: false, fault: "engine" });
  expect(await action("next")).toEqual({ ok: true, value: '"next"' });
  expect((await endless).outcome).toMatchObject({ ok: false, fault: "cut" });
  await host.stop();
});
