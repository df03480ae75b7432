/**
 * The examples in tests/contract: real calls and answers, one file per function, that the tests of both languages read, so that neither can
 * move alone. `UPDATE_CONTRACT=1` writes them anew; otherwise a difference is an answer.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { format } from "prettier";
import type { Example } from "./world";

const FOLDER = join(import.meta.dirname, "..", "contract");

/** Not made from calls: the words of both languages. */
const OTHER_FILES = ["statuses.json"];

/** The names of files that differ from what was just seen; none after an update. */
export async function compareWithContract(examples: Example[]): Promise<string[]> {
  const wanted = new Map<string, string>();
  for (const path of new Set(examples.map((example) => example.path))) {
    const ofPath = examples.filter((example) => example.path === path);
    const text = await format(JSON.stringify(ofPath), { parser: "json", printWidth: 110 });
    wanted.set(`${basename(path)}.json`, text);
  }
  const known = readdirSync(FOLDER).filter((name) => name.endsWith(".json") && !OTHER_FILES.includes(name));
  const different = [...new Set([...wanted.keys(), ...known])].filter(
    (name) => read(name) !== wanted.get(name),
  );
  if (process.env["UPDATE_CONTRACT"] !== "1") return different.sort();
  for (const name of different) {
    const text = wanted.get(name);
    if (text === undefined) rmSync(join(FOLDER, name));
    else writeFileSync(join(FOLDER, name), text);
  }
  return [];
}

function read(name: string): string | undefined {
  try {
    return readFileSync(join(FOLDER, name), "utf8");
  } catch {
    return undefined;
  }
}
