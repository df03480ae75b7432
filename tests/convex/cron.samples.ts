/** Random cron expressions and instants, the same for the same seed. */

export type Random = () => number;

/** Numbers in [0, 1) that depend on nothing but the seed (mulberry32). */
export function seeded(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function between(random: Random, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

function oneOf<T>(random: Random, ...choices: T[]): T {
  return choices[between(random, 0, choices.length - 1)]!;
}

/** A field of every form that cron reads, its numbers from low to high. */
function field(random: Random, low: number, high: number, name: (value: number) => string): string {
  const value = () => name(between(random, low, high));
  const span = () => {
    const [from, to] = [between(random, low, high), between(random, low, high)].sort((a, b) => a - b);
    return `${name(from!)}-${name(to!)}`;
  };
  const step = () => String(between(random, 1, Math.ceil((high - low) / 2)));
  return oneOf(
    random,
    () => value(),
    () => value(),
    () => `${value()},${value()}`,
    () => span(),
    () => `${span()}/${step()}`,
    () => `*/${step()}`,
    () => `*/${step()},${value()}`,
    () => `${value()},*/${step()}`,
    () => `${span()},${value()}`,
  )();
}

const plain = String;
const MONTHS = ["", "jan", "FEB", "mar", "Apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS = ["sun", "mon", "TUE", "wed", "thu", "Fri", "sat"];

/**
 * A valid five-field expression. Hours lean towards the small ones, in which clocks change; days are mostly `*`, so that
 * there is something to compare within a day or two of a change.
 */
export function randomExpression(random: Random): string {
  const minute = random() < 0.1 ? "*" : field(random, 0, 59, plain);
  const hour = random() < 0.15 ? "*" : field(random, 0, oneOf(random, 3, 4, 23), plain);
  const day = random() < 0.6 ? "*" : field(random, 1, 31, plain);
  const month =
    random() < 0.9 ? "*" : field(random, 1, 12, random() < 0.5 ? plain : (value) => MONTHS[value]!);
  const named = random() < 0.3;
  const weekday =
    random() < 0.6 ? "*" : field(random, 0, named ? 6 : 7, named ? (value) => WEEKDAYS[value]! : plain);
  return [minute, hour, day, month, weekday].join(" ");
}
