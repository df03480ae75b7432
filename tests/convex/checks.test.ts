import { describe, expect, test } from "vitest";
import {
  agentName,
  duration,
  quote,
  spoken,
  STATUS_ALIASES,
  STATUSES,
  statusWord,
  text,
} from "../../convex/heartbeat/model/checks";
import statuses from "../contract/statuses.json";
import { DAY, HOUR, MINUTE } from "./world";

describe("status words", () => {
  test("the table is that of the contract", () => {
    expect(STATUS_ALIASES).toEqual(statuses.aliases);
  });

  test("each word and alias is understood in any case, with _, - or a space, and kept as it was said", () => {
    const words: [string, string][] = [
      ...STATUSES.map((one): [string, string] => [one, one]),
      ...Object.entries(STATUS_ALIASES),
    ];
    for (const [word, status] of words) {
      expect(statusWord(word)).toEqual({ status, rawStatus: word });
      const loud = word.toUpperCase().replaceAll("_", "-");
      expect(statusWord(loud)).toEqual({ status, rawStatus: loud });
      expect(statusWord(` ${word.replaceAll("_", " ")}\n`).status).toBe(status);
    }
  });

  test.each(["", " ", "okay", "toString", "__proto__", "in  progress"])("%j is no status", (word) => {
    expect(() => statusWord(word)).toThrow(/is no status/);
  });
});

test.each(["a", "0", "hint", "a_b-c", "9".repeat(64)])("%j is an agent's name", (name) => {
  expect(agentName(name)).toBe(name);
});

test.each(["", "-a", "_a", "A", "a b", "ä", "a\n", "a".repeat(65), "__proto__"])(
  "%j is no agent's name",
  (name) => {
    expect(() => agentName(name)).toThrow(/is no agent name/);
  },
);

test("texts are measured in characters, as Python measures them", () => {
  expect(text("🫀".repeat(10), "summary", 10)).toHaveLength(20);
  expect(() => text("🫀".repeat(11), "summary", 10)).toThrow(/summary: 11 characters, at most 10/);
});

test("durations are bounded, and the bounds are said in words", () => {
  const bounds = { min: MINUTE, max: 2 * DAY };
  for (const fine of [MINUTE, 2 * DAY]) expect(duration(fine, "graceMs", bounds)).toBe(fine);
  for (const bad of [MINUTE - 1, 2 * DAY + 1, NaN, -Infinity]) {
    expect(() => duration(bad, "graceMs", bounds)).toThrow(
      /graceMs: .* out of bounds; it takes 1 min to 2 d/,
    );
  }
});

test("durations are said in the largest unit without a fraction", () => {
  expect([6 * HOUR, 90 * MINUTE, 2 * DAY, 90_000, 0].map(spoken)).toEqual([
    "6 h",
    "90 min",
    "2 d",
    "90 s",
    "0 s",
  ]);
});

test("a value in a message is cut where it goes on", () => {
  expect(quote("x".repeat(1_000_000)).length).toBeLessThan(100);
});
