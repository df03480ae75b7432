/**
 * Packs the backend and one app's functions into a folder that needs nothing but Node.js, no npm and no TypeScript:
 *
 *     node pack.ts CONVEX_DIR OUT_DIR
 *
 *     OUT_DIR/backend/main.mjs, worker.mjs    the backend; takes the arguments of main.ts
 *     OUT_DIR/functions.mjs                   the functions, for --functions
 *     OUT_DIR/THIRD_PARTY_LICENSES.txt        the licences of the packages whose code is inside
 *
 * Exit 2 with one line on stderr when something cannot be built, or a package inside carries no licence text.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build, type Metafile } from "esbuild";
import { buildFolder } from "./bundler.ts";

/** `ws` is CommonJS and requires Node's own modules, which an ES module can only do through a `require` of its own. */
const BANNER =
  'import { createRequire as makeRequire } from "node:module"; const require = makeRequire(import.meta.url);';
/** Never inside: esbuild bundles folders, which a packed backend is not asked to do; ws does without the other two. */
const LEFT_OUT = ["esbuild", "bufferutil", "utf-8-validate"];
const NODE_TARGET = "node24";

/** Files by esbuild's own account that contributed code, as paths relative to `base`. */
type Inside = { base: string; files: string[] };

type Package = { name: string; version: string; license: string; texts: string[] };

async function packBackend(outDir: string): Promise<Inside> {
  const base = import.meta.dirname;
  const { metafile } = await build({
    absWorkingDir: base,
    entryPoints: ["main.ts", "worker.ts"],
    outdir: outDir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    format: "esm",
    target: NODE_TARGET,
    banner: { js: BANNER },
    external: LEFT_OUT,
    metafile: true,
    logLevel: "silent",
  });
  return { base, files: filesInside(metafile) };
}

function filesInside(metafile: Metafile): string[] {
  return Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.entries(inputs)
      .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
      .map(([path]) => path),
  );
}

/** The folders of the packages that these files belong to. */
function packageFolders({ base, files }: Inside): string[] {
  return files.flatMap((file) => {
    const found = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(resolve(base, file).replaceAll("\\", "/"));
    return found === null ? [] : [found[1] as string];
  });
}

function readPackage(folder: string): Package {
  const { name, version, license } = JSON.parse(
    readFileSync(join(folder, "package.json"), "utf8"),
  ) as Package;
  const files = readdirSync(folder).filter((file) => /^(licen[cs]e|notice|copying)(\.|$)/i.test(file));
  if (files.length === 0)
    throw new Error(`the package ${name} ${version} (${license}) carries no licence text`);
  const texts = files.sort().map((file) => readFileSync(join(folder, file), "utf8").trim());
  return { name, version, license, texts };
}

function licences(packages: Package[]): string {
  const line = "=".repeat(80);
  const parts = packages.map(({ name, version, license, texts }) =>
    [line, `${name} ${version} (${license})`, line, "", ...texts, ""].join("\n"),
  );
  return ["Code of these packages is inside the bundles beside this file.", "", ...parts].join("\n");
}

async function pack(convexDir: string, outDir: string): Promise<void> {
  // nothing of an earlier packing may stay: what lies here goes into the package
  rmSync(outDir, { recursive: true, force: true });
  mkdirSync(outDir, { recursive: true });
  const functions = await buildFolder(convexDir);
  writeFileSync(join(outDir, "functions.mjs"), functions.text);
  const backend = await packBackend(resolve(outDir, "backend"));
  const inside = [backend, { base: resolve(convexDir, ".."), files: filesInside(functions.metafile) }];
  const folders = [...new Set(inside.flatMap(packageFolders))].sort();
  writeFileSync(join(outDir, "THIRD_PARTY_LICENSES.txt"), licences(folders.map(readPackage)));
}

const [convexDir, outDir] = process.argv.slice(2);
try {
  if (convexDir === undefined || outDir === undefined || !existsSync(convexDir)) {
    throw new Error("usage: node pack.ts CONVEX_DIR OUT_DIR");
  }
  await pack(convexDir, outDir);
} catch (error) {
  process.stderr.write(`heartbeat-backend: ${(error as Error).message}\n`);
  process.exitCode = 2;
}
