import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { bundle, onProcess, toldOnProcess } from "./engines";
import { chapters } from "./stories";
import { World } from "./world";

describe("on the local backend", () => {
  const folder = mkdtempSync(join(tmpdir(), "heartbeat-bundle-"));
  const functions = join(folder, "functions.mjs");

  beforeAll(() => bundle("convex", functions));
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each(chapters.flatMap(toldOnProcess))("$title", ({ run }) =>
    onProcess(functions, async (engine) => {
      const world = new World(engine);
      await world.prepare();
      await run(world);
    }),
  );
});
