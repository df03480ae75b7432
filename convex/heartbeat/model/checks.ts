/** What may come in: names, words, texts, numbers. Pure; each check returns the value in its stored form or throws `invalid`. */
import { invalid } from "./refusal";
import type { Phase, Result, Status } from "./validators";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** Characters (code points, as Python counts them) of each text; generous for what it is, small enough for 1,000 rows in one answer. */
export const TEXT_LIMITS = {
  agent: 64,
  status: 64,
  summary: 500,
  error: 4_000,
  output: 10_000,
  host: 255,
  clientVersion: 64,
  purpose: 500,
  source: 1_000,
  tokenName: 100,
  taskTitle: 500,
} as const;

/** The year 8941 (ms): a clock may be as wrong as it likes, as long as dates can be reckoned with and printed. */
const MAX_INSTANT_MS = 2.2e14;

/** No agent has more tasks than this; larger numbers are a broken sender. */
const MAX_COUNT = 1_000_000;

/** Exit codes as the systems we know give them: 32 bits with sign (Windows uses them all). */
const MAX_EXIT_CODE = 2 ** 31;

/** Bounds of a schedule's durations (ms): the sweep's minute; and what a person could still mean. */
export const DURATION_LIMITS = {
  everyMs: { min: MINUTE_MS, max: 366 * DAY_MS },
  graceMs: { min: 0, max: 30 * DAY_MS },
  maxRunMs: { min: MINUTE_MS, max: 366 * DAY_MS },
  actWithinMs: { min: MINUTE_MS, max: 3_660 * DAY_MS },
} as const;

/** More than this in silence is no monitoring any more. */
export const MAX_MISSES = 100;

/** The words that a reported status comes down to. */
export const STATUSES: readonly Status[] = ["ok", "idle", "working", "blocked", "waiting", "error"];

/** Words that other tools use for the same; pinned for both languages by tests/contract/statuses.json. */
export const STATUS_ALIASES: Readonly<Record<string, Status>> = {
  online: "ok",
  up: "ok",
  healthy: "ok",
  success: "ok",
  done: "ok",
  completed: "ok",
  finished: "ok",
  inactive: "idle",
  standby: "idle",
  sleeping: "idle",
  active: "working",
  busy: "working",
  running: "working",
  in_progress: "working",
  starting: "working",
  stuck: "blocked",
  awaiting_input: "waiting",
  pending: "waiting",
  queued: "waiting",
  failed: "error",
  failure: "error",
  crashed: "error",
};

const RESULTS: readonly Result[] = ["acted", "noop", "error"];
const PHASES: readonly Phase[] = ["start", "finish"];

const NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const SHA256 = /^[0-9a-f]{64}$/;

/** The one helper through which every agent's name comes in. */
export function agentName(name: string, field = "agent"): string {
  if (!NAME.test(name)) {
    throw invalid(
      field,
      `${quote(name)} is no agent name; it takes a-z, 0-9, _ and -, a letter or digit first, at most ${TEXT_LIMITS.agent}`,
    );
  }
  return name;
}

/** A heartbeat id: a lower-case UUIDv7, so that each heartbeat has one spelling. */
export function heartbeatId(id: string): string {
  if (!UUID_V7.test(id)) throw invalid("heartbeatId", `${quote(id)} is not a lower-case UUIDv7`);
  return id;
}

/** A run id: any UUID, kept in lower case. */
export function runId(id: string): string {
  const lower = id.length > 36 ? id : id.toLowerCase();
  if (!UUID.test(lower)) throw invalid("run.runId", `${quote(id)} is not a UUID`);
  return lower;
}

/** The SHA-256 of a token's text, 64 lower-case hex digits. */
export function tokenHash(hash: string): string {
  if (!SHA256.test(hash)) throw invalid("tokenHash", "not a SHA-256 in 64 lower-case hex digits");
  return hash;
}

/** A reported status: the word itself and what it means. Case does not matter, `-` and space read as `_`. */
export function statusWord(word: string, field = "status"): { status: Status; rawStatus: string } {
  const rawStatus = text(word, field, TEXT_LIMITS.status).trim();
  const plain = rawStatus.toLowerCase().replace(/[- ]/g, "_");
  const known = STATUSES.find((one) => one === plain);
  // an own property: a word such as "constructor" must not find Object's
  const found = known ?? (Object.keys(STATUS_ALIASES).includes(plain) ? STATUS_ALIASES[plain] : undefined);
  if (found === undefined) {
    throw invalid(
      field,
      `${quote(word)} is no status; it takes ${STATUSES.join(", ")} or a word for one of them`,
    );
  }
  return { status: found, rawStatus };
}

/** What a run achieved, in one of the three words; exactly so, for they are our own. */
export function resultWord(word: string): Result {
  return oneOf(word, "result", RESULTS);
}

/** Which end of a run a heartbeat tells of. */
export function phaseWord(word: string): Phase {
  return oneOf(word, "run.phase", PHASES);
}

function oneOf<Word extends string>(word: string, field: string, words: readonly Word[]): Word {
  const found = words.find((one) => one === word);
  if (found === undefined) throw invalid(field, `${quote(word)} is none of ${words.join(", ")}`);
  return found;
}

/** A text of at most `limit` characters. */
export function text(value: string, field: string, limit: number): string {
  const length = characters(value, limit);
  if (length > limit) throw invalid(field, `${length} characters, at most ${limit} are taken`);
  return value;
}

/** A text that says something. */
export function filledText(value: string, field: string, limit: number): string {
  if (value.trim() === "") throw invalid(field, "empty");
  return text(value, field, limit);
}

/** Code points; where UTF-16 alone decides, nothing is counted. */
function characters(value: string, limit: number): number {
  return value.length <= limit ? value.length : Array.from(value).length;
}

/** An instant of some clock, however wrong: after 1970 and before the year 8942. */
export function instant(value: number, field: string): number {
  if (!(value > 0 && value <= MAX_INSTANT_MS)) {
    throw invalid(
      field,
      `${value} is no instant; it takes milliseconds since 1970, more than 0 and at most ${MAX_INSTANT_MS}`,
    );
  }
  return value;
}

/** A duration of some clock, from 0. */
export function duration(
  value: number,
  field: string,
  { min, max } = { min: 0, max: MAX_INSTANT_MS },
): number {
  if (!(value >= min && value <= max)) {
    throw invalid(field, `${value} ms is out of bounds; it takes ${spoken(min)} to ${spoken(max)}`);
  }
  return value;
}

/** A number of tasks, as the sender counted them. */
export function taskCount(value: number, field: string): number {
  return wholeNumber(value, field, 0, MAX_COUNT);
}

/** How a command ended. */
export function exitCode(value: number): number {
  return wholeNumber(value, "run.exitCode", -MAX_EXIT_CODE, 2 * MAX_EXIT_CODE - 1);
}

/** A whole number from `min` to `max`, both included. */
export function wholeNumber(value: number, field: string, min: number, max: number): number {
  if (!(Number.isInteger(value) && value >= min && value <= max)) {
    throw invalid(field, `${value} is not a whole number from ${min} to ${max}`);
  }
  return value;
}

/** "every 6 h", "15 min": the largest unit that leaves no fraction, seconds at least. */
export function spoken(ms: number): string {
  const units: [string, number][] = [
    ["d", DAY_MS],
    ["h", 60 * MINUTE_MS],
    ["min", MINUTE_MS],
  ];
  const [unit, size] = units.find(([, one]) => ms >= one && ms % one === 0) ?? ["s", 1_000];
  return `${ms / size} ${unit}`;
}

/** A value in a message, cut where it goes on too long to be read. */
export function quote(value: string): string {
  const READABLE = 80;
  return JSON.stringify(value.length > READABLE ? `${value.slice(0, READABLE)}…` : value);
}
