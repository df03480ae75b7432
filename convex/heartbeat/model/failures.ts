/**
 * How many reports in a row said error, and from how many on an agent is failing. Pure.
 *
 * A row of failures is those since the newest good report, by liveness instant: so the same reports lead to the same count in whatever order
 * they arrive, and one that was kept on its host for a day takes its place in the row, or breaks it.
 */
import type { Failures } from "./validators";

/** One error is worth knowing where the schedule does not say: most agents run a few times a day. */
const DEFAULT_FAIL_AFTER = 1;

/** Failures that are remembered one by one, and so the most that a schedule may ask for; a hundred in a row are no hiccup at any pace. */
export const MAX_FAILURES = 100;

/** What decides about failing. `failures` and `failAfter` are absent in rows that older functions wrote. */
type Known = { failAfter?: number; failures?: Failures; lastReport?: { failing: boolean } };

/** How many failures in a row make the agent failing. */
export function failAfterOf({ failAfter }: { failAfter?: number }): number {
  return failAfter ?? DEFAULT_FAIL_AFTER;
}

/** How many reports said error since the last good one; past a hundred it stays a hundred. */
export function consecutiveFailures({ failures, lastReport }: Known): number {
  if (lastReport?.failing !== true) return 0;
  // it may share its instant with a good one, or be all that an older row tells
  return Math.max(1, failures?.at.length ?? 0);
}

export function isFailing(known: Known): boolean {
  return consecutiveFailures(known) >= failAfterOf(known);
}

/** Why it is failing, in words. */
export function whyFailing(known: Known): string {
  if (failAfterOf(known) === 1) return "reported error";
  return `reported error ${consecutiveFailures(known)} times in a row`;
}

/** The failures with one more report among them, whatever its place. */
export function tallied(known: Failures | undefined, livenessAt: number, failing: boolean): Failures {
  const { goodAt, at } = known ?? { at: [] };
  const sinceAt = failing ? goodAt : Math.max(goodAt ?? 0, livenessAt);
  return inARow(failing ? [...at, livenessAt] : at, sinceAt);
}

/** The failures as if all reports of which two know had come to one of them; `here` itself where the other has nothing to add. */
export function merged(here: Failures | undefined, there: Failures | undefined): Failures | undefined {
  if (here === undefined || there === undefined) return here ?? there;
  const sinceAt = Math.max(here.goodAt ?? 0, there.goodAt ?? 0) || undefined;
  // two failures may share their instant, and are two on either side
  const known = [...here.at];
  const added = there.at.filter((one) => {
    const place = known.indexOf(one);
    if (place >= 0) known.splice(place, 1);
    return place < 0 && one > (sinceAt ?? 0);
  });
  if (added.length === 0 && sinceAt === here.goodAt) return here;
  return inARow([...here.at, ...added], sinceAt);
}

function inARow(at: number[], goodAt: number | undefined): Failures {
  const since = at
    .filter((one) => goodAt === undefined || one > goodAt)
    .sort((a, b) => a - b)
    .slice(-MAX_FAILURES);
  return { goodAt, at: since };
}
