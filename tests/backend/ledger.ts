/** The app of the tests of durability, as a ready bundle (starting it costs no build), and what these tests share. */
import { spawn, type ChildProcess, type StdioOptions } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { bundleFolder } from "../../backend/bundler.ts";
import type { Report } from "../../backend/check.ts";
import { argumentsFor, atTheEnd, runToEnd, temporaryFolder } from "./server.ts";

const [MAIN = ""] = argumentsFor("");

const LEDGER = fileURLToPath(new URL("./ledger", import.meta.url));

let bundled: Promise<string> | undefined;
/** The bundle, built once. @returns its file. */
export async function ledgerBundle(): Promise<string> {
  const file = join(temporaryFolder(), "ledger.mjs");
  writeFileSync(file, await (bundled ??= bundleFolder(LEDGER)));
  return file;
}

/** A backend's process, which may still be starting. */
export type Started = {
  process: ChildProcess;
  /** Where it answers; rejects when it ends before it does. */
  url: Promise<string>;
  /** Sends a signal and waits for the end. @returns the exit code, null after a kill. */
  end: (signal: NodeJS.Signals) => Promise<number | null>;
};

/** Spawns a backend, in an environment and with a log of the test's own. */
export function spawnBackend(
  folder: string,
  bundle: string,
  {
    env = process.env,
    log = "ignore",
  }: { env?: NodeJS.ProcessEnv; log?: number | "ignore" | "inherit" } = {},
): Started {
  const stdio: StdioOptions = ["ignore", "pipe", log];
  const child = spawn(process.execPath, argumentsFor(folder, bundle), { stdio, env });
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  const line = new Promise<string>((resolve) =>
    createInterface(child.stdout as NodeJS.ReadableStream).once("line", resolve),
  );
  const url = Promise.race([line, closed.then(() => Promise.reject(new Error("the backend ended")))]).then(
    (ready) => (JSON.parse(ready) as { url: string }).url,
  );
  // whoever kills it before it is ready does not ask
  url.catch(() => undefined);
  atTheEnd(() => child.kill("SIGKILL"));
  return {
    process: child,
    url,
    end: (signal) => {
      child.kill(signal);
      return closed;
    },
  };
}

/** What `--check` says about a folder that no backend uses. */
export async function checkData(
  folder: string,
): Promise<{ code: number | null; stderr: string; report: Report }> {
  const { code, stdout, stderr } = await runToEnd([MAIN, "--check", "--data", join(folder, "db")]);
  if (stdout !== "" && !/^[^\n]+\n$/.test(stdout)) throw new Error(`not one line: ${stdout}`);
  return { code, stderr, report: stdout === "" ? (undefined as never) : (JSON.parse(stdout) as Report) };
}

/** A data file, read past the backend. */
export class DataFile {
  readonly #db: DatabaseSync;

  constructor(folder: string) {
    this.#db = new DatabaseSync(join(folder, "db", "data.sqlite3"), { readOnly: true });
  }

  /** All documents of a table. */
  documents<Document>(table: string): Document[] {
    const found = this.#db.prepare("SELECT number FROM tables WHERE name = ?").get(table);
    if (found === undefined) return [];
    const rows = this.#db.prepare(`SELECT doc FROM d${found.number as number}`).all();
    return rows.map(({ doc }) => JSON.parse(doc as string) as Document);
  }

  /** The rows of a query. */
  rows(sql: string): Record<string, unknown>[] {
    return this.#db.prepare(sql).all();
  }

  close(): void {
    this.#db.close();
  }
}
