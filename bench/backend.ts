/**
 * What the local backend can do on this machine:
 *
 *     node bench/backend.ts [heartbeats|drain|dashboard|subscribers|sweep|starts|move …] [--rows N] [--rounds N] [--seconds N] [--check]
 *
 * All scenarios unless some are named. Each runs the real backend with the real functions, durability on, on loopback.
 * bench/README.md says what they mean.
 */
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { drain } from "./drain.ts";
import { move } from "./move.ts";
import { dashboard, heartbeats, starts, subscribers, sweep, type Options, type Row } from "./scenarios.ts";

const SCENARIOS: Record<string, (options: Options) => Promise<Row[]>> = {
  heartbeats,
  drain,
  dashboard,
  subscribers,
  sweep,
  starts,
  move,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: "string", default: "1000000" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    check: { type: "boolean", default: false },
  },
});
const unknown = positionals.find((name) => SCENARIOS[name] === undefined);
if (unknown !== undefined) {
  process.stderr.write(`there is no scenario ${unknown}: ${Object.keys(SCENARIOS).join(", ")}\n`);
  process.exit(2);
}
const options: Options = {
  rows: Number(values.rows),
  rounds: Number(values.rounds),
  seconds: Number(values.seconds),
};
const say = (line: string): void => void process.stdout.write(`${line}\n`);

say(
  `${availableParallelism()} cores (${cpus()[0]?.model ?? "unknown"}), ${(totalmem() / 2 ** 30).toFixed(0)} GB, ` +
    `${process.platform}, Node ${process.versions.node}, SQLite ${process.versions.sqlite ?? "unknown"}; ` +
    `medians of ${options.rounds} rounds of ${options.seconds} s; load of the machine before: ${loadavg()[0]?.toFixed(1)}`,
);
let allKept = true;
for (const name of positionals.length > 0 ? positionals : Object.keys(SCENARIOS)) {
  for (const { what, measured, reach, kept } of await (SCENARIOS[name] as (typeof SCENARIOS)[string])(
    options,
  )) {
    const verdict = reach === undefined ? "" : `   [${reach}: ${kept ? "reached" : "NOT reached"}]`;
    say(`${what.padEnd(52)} ${measured}${verdict}`);
    allKept &&= kept !== false;
  }
}
say(`load of the machine after: ${loadavg()[0]?.toFixed(1)}`);
if (values.check && !allKept) process.exitCode = 1;
