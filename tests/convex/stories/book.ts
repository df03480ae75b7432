/** How a story is told, and the agent that most of them tell of. */
import { every, HOUR, MINUTE, type World } from "../world";

/** Something that the functions promise, as a client of them would live it in a deployment of its own. */
export type Story = { title: string; run: (w: World) => Promise<void> };

/** An empty list of stories, and what adds one to it. */
export function book(): { stories: Story[]; story: (title: string, run: Story["run"]) => void } {
  const stories: Story[] = [];
  return { stories, story: (title, run) => void stories.push({ title, run }) };
}

export const HINT = { agent: "hint", schedule: every(6 * HOUR), purpose: "Drift detection scan" };
/** a tenth of six hours */
export const HINT_GRACE = 36 * MINUTE;
