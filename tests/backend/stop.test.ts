/** How the process ends: asked to, asked twice, or because its file is damaged. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { beforeAll, expect, test } from "vitest";
import { checkData, DataFile, ledgerBundle } from "./ledger.ts";
import { argumentsFor, runToEnd, startBackend, temporaryFolder, type Backend } from "./server.ts";

let bundle = "";
beforeAll(async () => {
  bundle = await ledgerBundle();
});

/** How many answers there are before the backend is asked to end: enough that it is in the middle of more. */
const UNDER_WAY = 12;

/** Writes on several connections until the backend is gone. `underWay` resolves once it is busy, `gone` with the keys it acknowledged. */
function writeUntilGone(backend: Backend): { underWay: Promise<void>; gone: Promise<string[]> } {
  const acknowledged: string[] = [];
  let busy = (): void => undefined;
  const underWay = new Promise<void>((resolve) => (busy = resolve));
  const write = async (writer: number): Promise<void> => {
    for (let step = 0; ; step++) {
      const key = `${writer}-${step}`;
      const answer = await backend.call("mutation", "faults:add", { key }).catch(() => null);
      if (answer?.status !== "success") return;
      acknowledged.push(key);
      if (acknowledged.length === UNDER_WAY) busy();
    }
  };
  const gone = Promise.all([0, 1, 2, 3, 4, 5].map(write)).then(() => acknowledged);
  return { underWay, gone };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test("SIGTERM under load ends with exit code 0, everything acknowledged in one file, and no log beside it", async () => {
  const folder = temporaryFolder();
  const backend = await startBackend(folder, bundle);
  const { underWay, gone } = writeUntilGone(backend);
  await underWay;
  expect(await backend.end("SIGTERM")).toBe(0);
  const acknowledged = await gone;
  expect(acknowledged.length).toBeGreaterThanOrEqual(UNDER_WAY);
  expect(existsSync(join(folder, "db", "data.sqlite3-wal"))).toBe(false);
  expect(existsSync(join(folder, "db", "pid"))).toBe(false);
  const data = new DataFile(folder);
  const there = new Set(data.documents<{ key: string }>("settled").map(({ key }) => key));
  data.close();
  expect(acknowledged.filter((key) => !there.has(key))).toEqual([]);
  expect((await checkData(folder)).report.problems).toEqual([]);
});

test("a second SIGTERM ends it at once, and the data is whole", async () => {
  const folder = temporaryFolder();
  const backend = await startBackend(folder, bundle);
  const { underWay, gone } = writeUntilGone(backend);
  await underWay;
  const ended = backend.end("SIGTERM");
  backend.process.kill("SIGTERM");
  await ended;
  const acknowledged = await gone;
  const data = new DataFile(folder);
  const there = new Set(data.documents<{ key: string }>("settled").map(({ key }) => key));
  data.close();
  expect(acknowledged.filter((key) => !there.has(key))).toEqual([]);
  expect((await checkData(folder)).report.problems).toEqual([]);
});

test("SIGTERM while a function never ends waits for its second of CPU, not for ever", async () => {
  const backend = await startBackend(undefined, bundle);
  const endless = backend.call("mutation", "faults:endless").catch(() => null);
  await pause(100);
  expect(await backend.end("SIGTERM")).toBe(0);
  await endless;
});

test("a file that is damaged while it is open ends the process with a sentence, rather than all answers", async () => {
  const folder = temporaryFolder();
  const backend = await startBackend(folder, bundle);
  const vandal = new DatabaseSync(join(folder, "db", "data.sqlite3"), { timeout: 2000 });
  const [index] = vandal.prepare("SELECT id FROM indexes WHERE name = 'by_state'").all() as { id: number }[];
  vandal.exec(`DROP TABLE x${index?.id}`);
  vandal.close();
  const ended = new Promise<number | null>((resolve) => backend.process.once("close", resolve));
  // what waits is given up, not left without an answer
  await backend.call("mutation", "faults:add", { key: "late" }).catch(() => null);
  expect(await ended).toBe(1);
  expect(backend.log()).toMatch(/heartbeat-backend: no such table: x\d+\n$/);
});

test("after a kill the folder is free at once, and a refusal names its new owner", async () => {
  const folder = temporaryFolder();
  const killed = await startBackend(folder, bundle);
  await killed.end("SIGKILL");
  const owner = await startBackend(folder, bundle);
  const refused = await runToEnd(argumentsFor(folder, bundle));
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain(`another backend (pid ${owner.process.pid}) uses`);
  expect(await owner.end()).toBe(0);
});
