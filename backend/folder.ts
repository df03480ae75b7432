/**
 * The data folder: one process at a time, and the admin key file.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";

const ADMIN_KEY_BYTES = 32;
/** Result code of a lock that somebody else holds. */
const SQLITE_BUSY = 5;

/** Another process uses the data folder. */
export class FolderTaken extends Error {}

/**
 * Takes the folder (made if need be) for this process: an exclusive lock of the operating system, which ends with
 * the process however it ends, and a file that tells the pid.
 *
 * @returns the function that gives it back.
 * @throws FolderTaken with the pid of the process that has it.
 */
export function takeFolder(folder: string): () => void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const pidFile = join(folder, "pid");
  // SQLite knows how to lock a file on every system; nothing is ever stored in this one
  const lock = new DatabaseSync(join(folder, "lock"));
  try {
    lock.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    lock.close();
    if ((error as { errcode?: number }).errcode !== SQLITE_BUSY) throw error;
    throw new FolderTaken(`another backend (pid ${readPid(pidFile)}) uses ${folder}`);
  }
  writeFileSync(pidFile, `${process.pid}\n`, { mode: 0o600 });
  return () => {
    unlinkSync(pidFile);
    lock.close();
  };
}

function readPid(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "unknown";
  }
}

/** Under its name there is only ever a whole key: a kill or a full disk leaves none, not an empty one. */
function makeKey(file: string): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const part = `${file}.${process.pid}`;
  try {
    writeFileSync(part, `${randomBytes(ADMIN_KEY_BYTES).toString("hex")}\n`, { mode: 0o600 });
    renameSync(part, file);
  } finally {
    rmSync(part, { force: true });
  }
}

/** The admin key: first line of the file, which is made, readable by its owner only, when it does not exist. */
export function readAdminKey(file: string): string {
  if (!existsSync(file)) makeKey(file);
  const key = readFileSync(file, "utf8").split("\n")[0]?.trim() ?? "";
  if (key === "") throw new Error(`the admin key file ${file} is empty: delete it to have a new key made`);
  return key;
}
