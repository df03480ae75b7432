import { join } from "node:path";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/convex/**/*.test.ts", "tests/backend/**/*.test.ts"],
    // two cores: more workers only slow each other, and the tests of real processes, down
    maxWorkers: 2,
    // the tests start a hundred backends of the same code: compiled once
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules", ".cache", "node") },
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
