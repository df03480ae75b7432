/**
 * Preloaded into a real process (`node --import`): its clock stands at the instant (epoch ms) written in the file STORY_CLOCK, until that file
 * says another. Timers go on as ever. Threads preload it too.
 */
import { readFileSync } from "node:fs";

const file = process.env.STORY_CLOCK;
let known = Date.now();

function now() {
  // a reader may find the file empty while it is written
  known = Number(readFileSync(file, "utf8")) || known;
  return known;
}

globalThis.Date = class extends Date {
  static now = now;

  constructor(...given) {
    super(...(given.length === 0 ? [now()] : given));
  }
};
