/** All that one local backend has recorded goes to another, by the commands that people type: how long it takes, and in how much memory. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fillHistory } from "./history.ts";
import type { Options, Row } from "./scenarios.ts";
import { Backend, CONVEX, register, temporaryFolder, TOKENS } from "./server.ts";

const HEARTBEATS = 100_000;
/** A tenth of it, by which it is seen whether memory grows with the history. */
const FEWER = 10_000;
const AGENTS = 40;

const WITHIN_S = 120;
const MEMORY_MB = 60;

const PROGRAMS = fileURLToPath(new URL("../.venv/bin", import.meta.url));
/** Runs a command, and prints what the system says of it once it has ended. */
const MEASURED = `
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
print(json.dumps({"code": done.returncode, "wallS": wall, "cpuS": cpu, "peakMB": used.ru_maxrss / 1024}))
`;

type Run = { code: number; wallS: number; cpuS: number; peakMB: number };

/** One command against a backend; its own figures, and the CPU time that the backend took for it. */
function run(home: string, backend: Backend, words: string[]): Run & { backendS: number } {
  const before = backend.cpuMs();
  const command = [join(PROGRAMS, "heartbeat"), ...words, "--quiet", "--url", backend.url];
  const env = { PATH: process.env["PATH"], HOME: home, HEARTBEAT_TOKEN: TOKENS.admin };
  const printed = execFileSync(join(PROGRAMS, "python"), ["-c", MEASURED, ...command], { env, cwd: home });
  const measured = JSON.parse(printed.toString()) as Run;
  if (measured.code !== 0) throw new Error(`heartbeat ${words.join(" ")} ended with ${measured.code}`);
  return { ...measured, backendS: (backend.cpuMs() - before) / 1000 };
}

/** Exports a history of `heartbeats`, and imports it into a backend that is new. */
async function moved(heartbeats: number) {
  const [source, target, home] = [temporaryFolder(), temporaryFolder(), temporaryFolder()];
  const filled = await Backend.start(source, CONVEX);
  await register(filled, AGENTS);
  await filled.stop();
  fillHistory(source, heartbeats, AGENTS);
  const [from, to] = [await Backend.start(source, CONVEX), await Backend.start(target, CONVEX)];
  await register(to, 0);
  const out = run(home, from, ["export", "all.jsonl"]);
  const back = run(home, to, ["import", "all.jsonl"]);
  const memory = Math.max(from.memory().peak, to.memory().peak);
  await from.stop();
  await to.stop();
  return { out, back, memory };
}

export async function move(_options: Options): Promise<Row[]> {
  const fewer = await moved(FEWER);
  const { out, back, memory } = await moved(HEARTBEATS);
  const told = ({ wallS, cpuS, backendS }: typeof out) =>
    `${wallS.toFixed(1)} s, CPU ${cpuS.toFixed(1)} s and the backend's ${backendS.toFixed(1)} s`;
  const peak = Math.max(out.peakMB, back.peakMB);
  const peakOfFewer = Math.max(fewer.out.peakMB, fewer.back.peakMB);
  const count = HEARTBEATS.toLocaleString("en");
  return [
    { what: `${count} heartbeats exported`, measured: told(out) },
    {
      what: "the same imported",
      measured: told(back),
      reach: `both below ${WITHIN_S} s`,
      kept: out.wallS + back.wallS < WITHIN_S,
    },
    {
      what: "memory of the program",
      measured: `${peak.toFixed(0)} MB, ${peakOfFewer.toFixed(0)} MB for a tenth; backends ${memory.toFixed(0)} MB`,
      reach: `${MEMORY_MB} MB`,
      kept: peak < MEMORY_MB,
    },
  ];
}
