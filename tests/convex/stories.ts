/**
 * What the functions promise, told as a client of them would live it. Each story runs on every engine (see engines.ts; on the local backend not
 * all of them every time), in a deployment of its own; steps with an `example` are kept in tests/contract as they went on convex-test.
 */
import { stories as access } from "./stories/access";
import { stories as batches } from "./stories/batches";
import type { Story } from "./stories/book";
import { stories as failures } from "./stories/failures";
import { stories as leave } from "./stories/leave";
import { stories as moves } from "./stories/moves";
import { stories as reports } from "./stories/reports";
import { stories as runs } from "./stories/runs";
import { stories as schedules } from "./stories/schedules";
import { stories as silence } from "./stories/silence";
import { stories as views } from "./stories/views";

export const chapters: Story[][] = [
  reports,
  failures,
  runs,
  batches,
  silence,
  schedules,
  views,
  moves,
  access,
  leave,
];

export const stories: Story[] = chapters.flat();
