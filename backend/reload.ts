/**
 * `--watch`: push on save. When something changes in the folder of functions (or the bundle file), it is bundled again and put in
 * the place of the running functions. What does not bundle, load, or fit the data is told on stderr, and those of before serve on.
 *
 * Only what is below the folder is watched: not packages, nor files that functions import from elsewhere.
 */
import { existsSync, statSync, watch, type FSWatcher } from "node:fs";
import { basename, dirname } from "node:path";
import { hashOf, loadBundle } from "./bundler.ts";
import type { Host } from "./host.ts";

/** An editor writes a file in several steps, and tools write several files: quiet for so long, ms, counts as saved. */
const QUIET_MS = 80;
const HASH_SHOWN = 12;

/** Watches the functions of a host. */
export class Reloader {
  readonly #place: string;
  readonly #host: Host;
  readonly #say: (line: string) => void;
  #bundle: string;
  #watcher: FSWatcher | null = null;
  #timer: NodeJS.Timeout | null = null;
  #running = false;
  #again = false;
  #stopped = false;

  /**
   * @param place the folder, or the bundle file.
   * @param bundle what the host runs now.
   * @param say takes one line for whoever runs the backend.
   */
  constructor(place: string, bundle: string, host: Host, say: (line: string) => void) {
    this.#place = place;
    this.#bundle = bundle;
    this.#host = host;
    this.#say = say;
  }

  /** Watches from now on. */
  start(): void {
    const isFolder = statSync(this.#place).isDirectory();
    // a file that is written anew may be another one of the same name
    const watched = isFolder ? this.#place : dirname(this.#place);
    this.#watcher = watch(watched, { recursive: isFolder }, (_event, name) => {
      if (isFolder || name === basename(this.#place)) this.#changed();
    });
    // what was saved since the functions were bundled
    this.#changed();
    this.#watcher.on("error", (error) =>
      this.#say(
        `${watched} cannot be watched any more (${(error as Error).message}): restart to take up changes`,
      ),
    );
  }

  /** Takes up nothing more. */
  stop(): void {
    this.#stopped = true;
    this.#watcher?.close();
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #changed(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#run(), QUIET_MS);
  }

  /** One at a time; what changes meanwhile is looked at afterwards. */
  async #run(): Promise<void> {
    this.#again = true;
    if (this.#running) return;
    this.#running = true;
    while (this.#again && !this.#stopped) {
      this.#again = false;
      await this.#reload();
    }
    this.#running = false;
  }

  async #reload(): Promise<void> {
    // in the middle of being replaced; its return is a change of its own
    if (!existsSync(this.#place)) return;
    try {
      const bundle = await loadBundle(this.#place);
      if (bundle === this.#bundle) return;
      await this.#host.reload(bundle);
      this.#bundle = bundle;
      this.#say(`the functions of ${this.#place} are taken up anew (${hashOf(bundle).slice(0, HASH_SHOWN)})`);
    } catch (error) {
      this.#say(`${(error as Error).message}. The functions of before serve on.`);
    }
  }
}
