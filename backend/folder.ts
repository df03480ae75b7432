/**
 * The data folder: one process at a time, and the admin key file.
 */
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";

const ADMIN_KEY_BYTES = 32;
/** Result code of a lock that somebody else holds. */
const SQLITE_BUSY = 5;

/** What the owner of a file may do with it, and nobody else. */
const OWNER_ONLY = 0o600;
/** What is ours in a data folder, copies of before an upgrade among it. */
const OUR_FILE = /^(?:data\.sqlite3.*|lock.*|pid)$/;
const FOR_OTHERS = 0o077;

/** The data folder, or the admin key, cannot be used. */
export class FolderProblem extends Error {}

/** Whether other users of this machine can read a file. */
export function othersMayRead(file: string): boolean {
  return process.platform !== "win32" && (statSync(file).mode & FOR_OTHERS) !== 0;
}

/**
 * Takes the folder (made if need be) for this process: an exclusive lock of the operating system, which ends with
 * the process however it ends, and a file that tells the pid.
 *
 * @returns the function that gives it back.
 * @throws FolderProblem with the pid of the process that has it, or the reason why nobody here can.
 */
export function takeFolder(folder: string): () => void {
  const pidFile = join(folder, "pid");
  const lock = lockIn(folder, pidFile);
  return () => {
    unlinkSync(pidFile);
    lock.close();
  };
}

function lockIn(folder: string, pidFile: string): DatabaseSync {
  let lock: DatabaseSync | null = null;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    // SQLite knows how to lock a file on every system; nothing is ever stored in this one
    lock = new DatabaseSync(join(folder, "lock"));
    lock.exec("BEGIN EXCLUSIVE");
    for (const name of readdirSync(folder)) {
      // SQLite gives its log the mode of the file
      if (OUR_FILE.test(name)) chmodSync(join(folder, name), OWNER_ONLY);
    }
    writeFileSync(pidFile, `${process.pid}\n`, { mode: OWNER_ONLY });
    return lock;
  } catch (error) {
    lock?.close();
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) {
      throw new FolderProblem(`another backend (pid ${readPid(pidFile)}) uses ${folder}`);
    }
    throw new FolderProblem(`${folder} cannot be used as the data folder: ${(error as Error).message}`);
  }
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

/**
 * The admin key: first line of the file, which is made, readable by its owner only, when it does not exist.
 *
 * @throws FolderProblem when it cannot be read or made, or is empty.
 */
export function readAdminKey(file: string): string {
  let key: string;
  try {
    if (!existsSync(file)) makeKey(file);
    key = readFileSync(file, "utf8").split("\n")[0]?.trim() ?? "";
  } catch (error) {
    throw new FolderProblem(`the admin key file ${file} cannot be used: ${(error as Error).message}`);
  }
  if (key === "")
    throw new FolderProblem(`the admin key file ${file} is empty: delete it to have a new key made`);
  return key;
}
