/**
 * A full disk: mutations are refused as a whole, queries go on, and when there is room again so do mutations, in the same
 * process. On a small file system where the tests may make one (root), and with a limit on the size of files, which SQLite
 * meets as another error.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { checkData, ledgerBundle, spawnBackend, type Started } from "./ledger.ts";
import { eventually, temporaryFolder, type Answer } from "./server.ts";

const FOLDER = new URL("../../backend/folder.ts", import.meta.url).href;
const MOUNT_MB = 24;
const DOCUMENT_BYTES = 1_000_000;

/** Sets the largest file that a process may write, bytes; null for any. */
function limitFiles(pid: number, bytes: number | null): void {
  const code =
    "import resource as r, sys; n = int(sys.argv[2]); h = r.prlimit(int(sys.argv[1]), r.RLIMIT_FSIZE)[1];" +
    "r.prlimit(int(sys.argv[1]), r.RLIMIT_FSIZE, (h if n < 0 else n, h))";
  const done = spawnSync("python3", ["-c", code, String(pid), String(bytes ?? -1)], { encoding: "utf8" });
  expect(done.stderr).toBe("");
}

type Disk = {
  folder: string;
  fill: (pid: number, room: number) => void;
  free: (pid: number) => void;
  remove: () => void;
};

function smallFileSystem(): Disk {
  const folder = temporaryFolder();
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${MOUNT_MB}m`, "tmpfs", folder], {
    encoding: "utf8",
  });
  expect(mounted.stderr).toBe("");
  const filler = join(folder, "filler");
  return {
    folder,
    fill: (_pid, room) => {
      const handle = openSync(filler, "w");
      const fillWith = (block: Buffer): void => {
        try {
          for (;;) writeSync(handle, block);
        } catch (error) {
          expect((error as NodeJS.ErrnoException).code).toBe("ENOSPC");
        }
      };
      fillWith(Buffer.alloc(65_536));
      ftruncateSync(handle, Math.max(0, fstatSync(handle).size - room));
      closeSync(handle);
    },
    free: () => rmSync(filler),
    remove: () => spawnSync("umount", ["-l", folder]),
  };
}

function limitedFiles(): Disk {
  const folder = temporaryFolder();
  return {
    folder,
    fill: (pid, room) => limitFiles(pid, statSync(join(folder, "db", "data.sqlite3-wal")).size + room),
    free: (pid) => limitFiles(pid, null),
    remove: () => undefined,
  };
}

const mayMount = process.platform === "linux" && process.getuid?.() === 0;
const disks: [string, () => Disk][] = [["a limit on files", limitedFiles]];
if (mayMount) disks.push(["a small file system", smallFileSystem]);

describe.each(disks)("on %s that is full", (_name, makeDisk) => {
  let disk: Disk;
  let backend: Started;
  let url: string;
  let pid: number;

  beforeAll(async () => {
    disk = makeDisk();
    // the log lies on the same disk, as that of `heartbeat local up` does
    const log = openSync(join(disk.folder, "log"), "a");
    backend = spawnBackend(disk.folder, await ledgerBundle(), { log });
    closeSync(log);
    url = await backend.url;
    pid = backend.process.pid as number;
  });
  afterAll(() => disk.remove());

  async function call(kind: string, path: string, args: object): Promise<Answer & { http: number }> {
    const response = await fetch(`${url}/api/${kind}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ path, args }),
    });
    return { http: response.status, ...((await response.json()) as Answer) };
  }

  const blobs = async (key: string): Promise<unknown> => (await call("query", "faults:blobs", { key })).value;
  const write = (key: string, documents = 1) =>
    call("mutation", "faults:write", { key, documents, bytes: DOCUMENT_BYTES });

  /** What a client on a WebSocket is answered to a mutation. */
  function mutateOnSocket(key: string): Promise<{ success: boolean; result: string }> {
    const socket = new WebSocket(`${url.replace("http", "ws")}/api/1.0.0/sync`);
    socket.once("open", () => {
      socket.send(JSON.stringify({ type: "Connect", sessionId: crypto.randomUUID(), connectionCount: 0 }));
      const args = [{ key, documents: 1, bytes: DOCUMENT_BYTES }];
      socket.send(JSON.stringify({ type: "Mutation", requestId: 0, udfPath: "faults:write", args }));
    });
    return new Promise((resolve) => {
      socket.on("message", (data: Buffer) => {
        const message = JSON.parse(data.toString()) as { type: string; success: boolean; result: string };
        if (message.type !== "MutationResponse") return;
        resolve(message);
        socket.close();
      });
    });
  }

  test("mutations are refused, queries are answered; with room again all goes on, and what was due is done once", async () => {
    expect((await write("before")).status).toBe("success");
    const job = { key: "job", from: "a", to: "b", amount: 1, settleInMs: 400 };
    expect((await call("mutation", "moves:transfer", job)).status).toBe("success");
    disk.fill(pid, 0);
    const full = /^The database failed: (database or disk is full|disk I\/O error)$/;
    const [refused, onSocket] = await Promise.all([write("during"), mutateOnSocket("during")]);
    expect([refused.http, refused.code]).toEqual([500, "InternalServerError"]);
    expect((refused as { message?: string }).message).toMatch(full);
    expect(onSocket.success).toBe(false);
    expect(onSocket.result.split("\n").at(-1)).toMatch(full);
    expect(await blobs("before")).toBe(1);
    // the scheduled function falls due while its end cannot be written down
    await new Promise((resolve) => setTimeout(resolve, 600));
    disk.free(pid);
    expect((await write("after")).status).toBe("success");
    expect(await Promise.all(["before", "during", "after"].map(blobs))).toEqual([1, 0, 1]);
    const settled = async (): Promise<unknown> => (await call("query", "faults:count", { key: "job" })).value;
    expect(await eventually(settled, (count) => count === 1)).toBe(1);
  });

  test("a function that catches the database's error and writes on leaves nothing half-written", async () => {
    // room for a document or two on their own, which is what SQLite would commit after it has rolled back
    disk.fill(pid, 6 * DOCUMENT_BYTES);
    // together more than SQLite's cache holds: it has to write before the commit, fails, and rolls back by itself
    const keys = Array.from({ length: 7 }, (_, number) => `stubborn${number}`);
    const args = (key: string): object => ({ key, documents: 15, bytes: DOCUMENT_BYTES });
    const answers = Promise.all(keys.map((key) => call("mutation", "faults:stubborn", args(key))));
    expect((await answers).map(({ http }) => http)).toEqual(keys.map(() => 500));
    disk.free(pid);
    expect(await Promise.all(keys.map(blobs))).toEqual(keys.map(() => 0));
    expect((await write("at last")).status).toBe("success");
  });

  test("and the data is whole at the end", async () => {
    expect(await backend.end("SIGTERM")).toBe(0);
    expect((await checkData(disk.folder)).report).toMatchObject({ ok: true, problems: [] });
    expect(readFileSync(join(disk.folder, "log"), "utf8")).not.toContain("uncaught");
  });
});

test("an admin key that could not be written is not there, rather than cut off", () => {
  const key = join(temporaryFolder(), "admin-key");
  const make = `(await import(${JSON.stringify(FOLDER)})).readAdminKey(${JSON.stringify(key)})`;
  const limit =
    "import resource as r, os, sys; r.setrlimit(r.RLIMIT_FSIZE, (32, 32)); os.execv(sys.argv[1], sys.argv[1:])";
  const made = spawnSync("python3", ["-c", limit, process.execPath, "--input-type=module", "-e", make], {
    encoding: "utf8",
  });
  expect(made.stderr).toContain("EFBIG");
  expect(existsSync(key)).toBe(false);
});
