import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/convex/**/*.test.ts", "tests/backend/**/*.test.ts"],
    // two cores: more workers only slow each other, and the tests of real processes, down
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
