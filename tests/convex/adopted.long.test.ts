/** What docs/adopt.md says of the settings in which our files pass the type check, and its example of an index. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { adopt, codeOf, copyApp } from "./adopted";

/** What the compiler says of the app in this folder. */
function typesOf(folder: string, ...options: string[]): string {
  const run = (command: string, ...args: string[]) => {
    const place = { cwd: folder, encoding: "utf8", stdio: "pipe" } as const;
    return execFileSync(join("node_modules", ".bin", command), args, place);
  };
  run("convex", "codegen", "--system-udfs", "--typecheck", "disable");
  return run("tsc", "-p", "convex", ...options);
}

test("an adopted app passes the type check in Convex's settings of today and of before, and in stricter ones", () => {
  const folder = copyApp();
  adopt(folder);
  for (const lib of ["ES2023,dom", "ES2021,dom"]) expect(typesOf(folder, "--lib", lib)).toBe("");
  const stricter = ["--noUncheckedIndexedAccess", "--verbatimModuleSyntax", "--noUnusedLocals"];
  expect(typesOf(folder, ...stricter)).toBe("");
});

test("the example of an index in docs/adopt.md passes the type check as it stands there", () => {
  const folder = copyApp();
  adopt(folder);
  const [whole, , tasks, example] = codeOf("adopt.md");
  const convex = join(folder, "convex");
  const schema = readFileSync(join(convex, "schema.ts"), "utf8");
  writeFileSync(
    join(convex, "schema.ts"),
    schema.replace(/ {2}tasks: defineTable[^]*?\.index\(.*\),\n/, tasks!),
  );
  // "beside agentName and STALE_AFTER_MS as above"
  const kept = /^[^]*?\n}\n/.exec(whole!)![0] + /export const STALE_AFTER_MS.*\n/.exec(whole!)![0];
  writeFileSync(join(convex, "fleet.ts"), kept + example!);
  for (const app of ["tasks", "digests", "seed"]) writeFileSync(join(convex, `${app}.ts`), "export {};\n");
  writeFileSync(join(convex, "http.ts"), "export {};\n");
  writeFileSync(join(convex, "crons.ts"), "export {};\n");
  expect(typesOf(folder)).toBe("");
});
