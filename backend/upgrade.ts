/**
 * The stored format, and how a file gets to the newest one. `format` in the table `meta` says in which format a file is.
 *
 *   nothing stored      made in the newest format
 *   an older format     copied beside, then every step up, all in one transaction
 *   the newest format   opened as it is
 *   a newer format      refused, nothing is touched
 *
 * A killed or failed upgrade leaves the old file as it was, and is made again at the next start.
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";

/** One step from a format to the next. */
export type Upgrade = {
  /** What changes, for the line on stderr. */
  title: string;
  /** Makes the change; inside of a transaction. */
  run: (db: DatabaseSync) => void;
};

/** The first step leads from format 1 to 2, and so on: a step is added, never changed. */
export const UPGRADES: readonly Upgrade[] = [];

/** The format that these steps lead to. */
export function newestFormat(upgrades: readonly Upgrade[]): number {
  return upgrades.length + 1;
}

/** The format of an open file; null when nothing is stored yet. */
export function formatOf(db: DatabaseSync): number | null {
  const meta = db.prepare("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'").get();
  if (meta === undefined) return null;
  const row = db.prepare("SELECT value FROM meta WHERE name = 'format'").get();
  return row === undefined ? null : (row.value as number);
}

/**
 * Brings a file to the newest format.
 *
 * @param create makes the tables of a new file; inside of a transaction.
 * @throws Error for a newer file, one of another program, or when the copy or a step fails; the file is as it was then.
 */
export function bringUp(
  db: DatabaseSync,
  file: string,
  upgrades: readonly Upgrade[],
  create: () => void,
): void {
  const newest = newestFormat(upgrades);
  const format = formatOf(db);
  if (format === newest) return;
  if (format === null) {
    if (db.prepare("SELECT 1 FROM sqlite_master").get() !== undefined) {
      throw new Error(`${file} is a database of another program; nothing in it was changed`);
    }
    inTransaction(db, () => {
      create();
      setFormat(db, newest);
    });
    return;
  }
  if (!Number.isInteger(format) || format < 1 || format > newest) {
    throw new Error(
      `the data was written in format ${format}; this version reads formats up to ${newest}. Use the version that wrote it.`,
    );
  }
  const copy = `${file}.format-${format}`;
  copyTo(db, copy);
  const steps = upgrades.slice(format - 1);
  const titles = steps.map(({ title }) => title).join("; ");
  process.stderr.write(
    `heartbeat-backend: upgrading the data from format ${format} to ${newest} (${titles}); the data as it was is in ${copy}\n`,
  );
  inTransaction(db, () => {
    for (const { run } of steps) run(db);
    setFormat(db, newest);
  });
}

function setFormat(db: DatabaseSync, format: number): void {
  db.prepare("INSERT OR REPLACE INTO meta VALUES ('format', ?)").run(format);
}

/** Does something in a transaction: as a whole or, when it throws, not at all. */
export function inTransaction(db: DatabaseSync, work: () => void): void {
  db.exec("BEGIN IMMEDIATE");
  try {
    work();
    db.exec("COMMIT");
  } catch (error) {
    // after a full disk SQLite has rolled back by itself
    if (db.isTransaction) db.exec("ROLLBACK");
    throw error;
  }
}

/** Copies the whole database; under the name there is only ever a whole copy. */
function copyTo(db: DatabaseSync, copy: string): void {
  const part = `${copy}.part`;
  rmSync(part, { force: true });
  try {
    db.prepare("VACUUM INTO ?").run(part);
    // SQLite does not sync what it makes so
    const handle = openSync(part, "r+");
    fsyncSync(handle);
    closeSync(handle);
    renameSync(part, copy);
  } catch (error) {
    rmSync(part, { force: true });
    throw new Error(`the data cannot be copied to ${copy} before its upgrade: ${(error as Error).message}`);
  }
}
