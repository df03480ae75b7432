/** Runs anew for each test file (`setupFiles`), also where files share a process and its modules. */
import { afterAll } from "vitest";
import { undoAll } from "./server.ts";

// the first hook of a file runs last: by then the file has ended what it could
afterAll(undoAll);
