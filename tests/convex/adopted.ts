/** The fixture app as a team has it after adopting the functions: our files beside theirs, the lines of theirs, their fleet.ts. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { atTheEnd } from "../backend/server";

const ROOT = join(import.meta.dirname, "..", "..");
const FIXTURE = join(ROOT, "tests", "adopted");

/** Files of ours that belong to the minimal tables only. */
const NOT_THEIRS = ["mutations/addTask.ts", "mutations/completeTask.ts"];

/** Reads and writes as a careless function of the team's would, past the helper. */
const CARELESS = `
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";

export const all = internalMutation({
  args: { table: v.any() },
  handler: async (ctx, { table }) => await ctx.db.query(table).collect(),
});

export const write = internalMutation({
  args: { table: v.any(), id: v.optional(v.any()), value: v.optional(v.any()) },
  handler: async (ctx, { table, id, value }) => {
    if (id === undefined) return await ctx.db.insert(table, value);
    if (value === undefined) await ctx.db.delete(table, id);
    else await ctx.db.patch(table, id, value);
    return id;
  },
});
`;

/** A folder that lives as long as the test file runs, with the app in it as it is before. */
export function copyApp(): string {
  const folder = mkdtempSync(join(tmpdir(), "heartbeat-adopted-"));
  atTheEnd(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  // whoever has run its tests in place has left a cache there
  cpSync(join(FIXTURE, "app"), folder, {
    recursive: true,
    filter: (path) => basename(path) !== "node_modules",
  });
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  return folder;
}

/** Adopt into the app in this folder. `careless` adds the functions of a team that forgets the helper, for tests to call. */
export function adopt(folder: string, careless = false): void {
  const convex = join(folder, "convex");
  for (const ours of ["heartbeat", "mutations", "queries"]) {
    cpSync(join(ROOT, "convex", ours), join(convex, ours), { recursive: true });
  }
  for (const path of NOT_THEIRS) rmSync(join(convex, path));
  cpSync(join(FIXTURE, "fleet.ts"), join(convex, "fleet.ts"));
  change(join(convex, "schema.ts"), [
    [
      'import { v } from "convex/values";\n',
      '$&import { heartbeatField, heartbeatTables } from "./heartbeat/tables";\n',
    ],
    ["defineSchema({\n", "$&  ...heartbeatTables,\n"],
    ["agents: defineTable({\n", "$&    heartbeat: heartbeatField,\n"],
  ]);
  change(join(convex, "crons.ts"), [
    [
      'import { internal } from "./_generated/api";\n',
      '$&import { addHeartbeatCrons } from "./heartbeat/crons";\n',
    ],
    ["export default", "addHeartbeatCrons(crons);\n\n$&"],
  ]);
  change(join(convex, "tasks.ts"), [
    [
      'import { mutation, query } from "./_generated/server";\n',
      '$&import { mirrorTask } from "./heartbeat/mirror";\n',
    ],
    [/^( *)(?:const id = )?await ctx\.db\.\w+\("tasks".*;\n/gm, "$&$1await mirrorTask(ctx, id);\n"],
  ]);
  if (careless) writeFileSync(join(convex, "careless.ts"), CARELESS);
}

function change(file: string, changes: [string | RegExp, string][]): void {
  let text = readFileSync(file, "utf8");
  for (const [before, after] of changes) {
    const changed = text.replace(before, after);
    if (changed === text) throw new Error(`${file} has no ${String(before)}`);
    text = changed;
  }
  writeFileSync(file, text);
}

/** The blocks of TypeScript in a page of docs/, in their order. */
export function codeOf(page: string): string[] {
  const text = readFileSync(join(ROOT, "docs", page), "utf8");
  return [...text.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code]) => code ?? "");
}

/** The modules of the app in this folder as convex-test takes them. */
export function modulesOf(folder: string): Record<string, () => Promise<unknown>> {
  const convex = join(folder, "convex");
  const files = readdirSync(convex, { recursive: true, encoding: "utf8" }).filter((name) =>
    /\.[jt]s$/.test(name),
  );
  return Object.fromEntries(files.map((name) => [`../convex/${name}`, () => import(join(convex, name))]));
}
