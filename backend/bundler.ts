/**
 * Bundles a convex folder into one ES module, as the official CLI chooses and builds its files
 * (npm convex, src/bundler/index.ts and debugBundle.ts): the same entry points, the same esbuild options. The result runs
 * without npm; its SHA-256 names the functions. On the command line: bundle.ts.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, extname, join, relative, resolve, sep } from "node:path";
import type { Metafile, Plugin } from "esbuild";

const EXTENSIONS = [".js", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".jsx"];

/** Functions cannot be bundled; the message says why and what to do. */
export class BundleError extends Error {}

/** SHA-256 of a bundle, hex: the name under which the functions run. */
export function hashOf(bundle: string): string {
  return createHash("sha256").update(bundle).digest("hex");
}

/**
 * The bundle of a folder, or the text of a ready bundle file.
 *
 * @throws BundleError when there is nothing to read, esbuild is missing, or the sources do not build.
 */
export async function loadBundle(path: string): Promise<string> {
  const place = resolve(path);
  if (!existsSync(place)) throw new BundleError(`there is no ${place}`);
  return statSync(place).isDirectory() ? bundleFolder(place) : readFileSync(place, "utf8");
}

function* filesIn(folder: string): Generator<string> {
  const entries = readdirSync(folder, { withFileTypes: true });
  for (const entry of entries.sort((left, right) => (left.name < right.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    // a folder with convex.config.ts is a component, deployed by itself
    if (entry.isDirectory() && !existsSync(join(path, "convex.config.ts"))) yield* filesIn(path);
    else if (entry.isFile()) yield path;
  }
}

function isEntryPoint(folder: string, path: string): boolean {
  const inside = relative(folder, path);
  const name = basename(path);
  if (!EXTENSIONS.includes(extname(path).toLowerCase())) return false;
  if (inside.startsWith(`_generated${sep}`) || name.startsWith(".") || name.startsWith("#")) return false;
  if (name === "schema.ts" || name === "schema.js" || name.split(".").length > 2 || inside.includes(" ")) {
    return false;
  }
  // a TypeScript file without import or export is no module
  return !/\.tsx?$/.test(name) || /^\s{0,100}(import|export)/m.test(readFileSync(path, "utf8"));
}

function refuseNodeFile(folder: string, path: string): void {
  if (/^\s*("|')use node("|');?\s*$/m.test(readFileSync(path, "utf8"))) {
    throw new BundleError(
      `${relative(folder, path)} says "use node": actions in Convex's Node.js runtime are not supported by this backend`,
    );
  }
}

/** Text of the module that imports every file and hands it on by its path. */
function entryModule(folder: string): string {
  const imports: string[] = [];
  const entries: string[] = [];
  for (const path of filesIn(folder)) {
    if (!isEntryPoint(folder, path)) continue;
    refuseNodeFile(folder, path);
    const inside = relative(folder, path).split(sep).join("/");
    imports.push(`import * as m${imports.length} from ${JSON.stringify(`./${inside}`)};`);
    entries.push(`${JSON.stringify(inside.slice(0, -extname(inside).length))}: m${entries.length}`);
  }
  const schema = ["schema.ts", "schema.js"].find((name) => existsSync(join(folder, name)));
  const schemaExport = schema === undefined ? "" : `export { default as schema } from "./${schema}";`;
  return `${imports.join("\n")}\nexport const modules = {${entries.join(", ")}};\n${schemaExport}\n`;
}

/** Stand-ins for modules that exist only by name in Convex's runtime. */
const STAND_INS: Plugin = {
  name: "stand-ins",
  setup(build) {
    build.onResolve({ filter: /^((node:)?async_hooks|server-only)$/ }, ({ path }) => ({
      path,
      namespace: "stand-in",
    }));
    build.onLoad({ filter: /.*/, namespace: "stand-in" }, ({ path }) => ({
      contents: path.endsWith("async_hooks")
        ? "export const { AsyncLocalStorage, AsyncResource } = globalThis; export default { AsyncLocalStorage, AsyncResource };"
        : "",
    }));
  },
};

/**
 * Bundles a folder.
 *
 * @throws BundleError as `loadBundle` does.
 */
export async function bundleFolder(path: string): Promise<string> {
  return (await buildFolder(path)).text;
}

/**
 * As `bundleFolder`, with esbuild's account of what is inside; its paths are relative to the folder's parent.
 *
 * @throws BundleError as `loadBundle` does.
 */
export async function buildFolder(path: string): Promise<{ text: string; metafile: Metafile }> {
  const folder = resolve(path);
  const esbuild = await import("esbuild").catch(() => {
    throw new BundleError(
      `a folder of functions needs the npm packages esbuild and convex to be bundled; run npm install in ${dirname(folder)}, or give a ready bundle`,
    );
  });
  try {
    const result = await esbuild.build({
      stdin: { contents: entryModule(folder), resolveDir: folder, sourcefile: "functions.js" },
      absWorkingDir: dirname(folder),
      bundle: true,
      write: false,
      platform: "browser",
      format: "esm",
      target: "esnext",
      jsx: "automatic",
      conditions: ["convex", "module"],
      plugins: [STAND_INS],
      treeShaking: true,
      keepNames: true,
      define: { "process.env.NODE_ENV": '"production"' },
      metafile: true,
      logLevel: "silent",
    });
    return { text: (result.outputFiles[0] as { text: string }).text, metafile: result.metafile };
  } catch (error) {
    if (error instanceof BundleError) throw error;
    throw new BundleError(`the functions in ${folder} do not build: ${(error as Error).message}`);
  }
}
