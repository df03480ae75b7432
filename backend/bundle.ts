/**
 * Makes a ready bundle, which `main.ts --functions` takes on machines without npm:
 *
 *     node bundle.ts CONVEX_DIR OUT_FILE
 *
 * prints the functions' hash. Exit 2 with one line on stderr when the folder cannot be bundled.
 */
import { writeFileSync } from "node:fs";
import { bundleFolder, BundleError, hashOf } from "./bundler.ts";

const [folder, out] = process.argv.slice(2);
try {
  if (folder === undefined || out === undefined) {
    throw new BundleError("usage: node bundle.ts CONVEX_DIR OUT_FILE");
  }
  const bundle = await bundleFolder(folder);
  writeFileSync(out, bundle);
  process.stdout.write(`${hashOf(bundle)}\n`);
} catch (error) {
  process.stderr.write(`heartbeat-backend: ${(error as Error).message}\n`);
  process.exitCode = 2;
}
