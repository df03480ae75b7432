import { join } from "node:path";
import { configDefaults, defineConfig } from "vitest/config";

const long = process.env.HEARTBEAT_TEST_LONG === "1";

export default defineConfig({
  test: {
    include: ["tests/convex/**/*.test.ts", "tests/backend/**/*.test.ts"],
    exclude: [...configDefaults.exclude, ...(long ? [] : ["**/*.long.test.ts"])],
    // two cores: more workers only slow each other, and the tests of real processes, down
    maxWorkers: 2,
    // a worker for all files: starting one, and loading the same modules, costs more than most files do
    isolate: false,
    setupFiles: ["tests/backend/cleanup.ts"],
    // the tests start a hundred backends of the same code: compiled once
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules", ".cache", "node") },
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
