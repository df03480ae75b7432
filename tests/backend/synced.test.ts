/** An answer leaves only when its commit is on disk. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { WebSocket } from "ws";
import { DataFile, ledgerBundle, spawnBackend } from "./ledger.ts";
import { startBackend, temporaryFolder } from "./server.ts";

const DELAY_MS = 150;

/** Makes the system's sync slow, and writes down what was synced. */
const SLOW_SYNC = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int slow(long call, int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 2);
  usleep(1000 * atoi(getenv("SYNC_DELAY_MS")));
  int result = syscall(call, fd);
  if (length > 0) {
    path[length] = '\\n';
    int log = open(getenv("SYNC_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (write(log, path, length + 1) < 0) abort();
    close(log);
  }
  return result;
}

int fsync(int fd) { return slow(SYS_fsync, fd); }
int fdatasync(int fd) { return slow(SYS_fdatasync, fd); }
`;

const compiler = process.platform === "linux" && spawnSync("cc", ["--version"]).status === 0;

function compileSlowSync(): string {
  const folder = temporaryFolder();
  const [source, library] = [join(folder, "slow.c"), join(folder, "slow.so")];
  writeFileSync(source, SLOW_SYNC);
  const made = spawnSync("cc", ["-shared", "-fPIC", "-o", library, source], { encoding: "utf8" });
  expect([made.status, made.stderr]).toEqual([0, ""]);
  return library;
}

type Timed = { text: string; ms: number };

/** Sends a mutation on a connection of its own. @returns the answer, and how long its first byte took. */
function overHttp(url: string, key: string): Promise<Timed> {
  const body = JSON.stringify({ path: "faults:add", args: { key } });
  const head = `POST /api/mutation HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${body.length}`;
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(url).port), "127.0.0.1", () =>
      socket.write(`${head}\r\n\r\n${body}`),
    );
    const sentAt = performance.now();
    let text = "";
    let ms = 0;
    socket.on("data", (data) => {
      if (text === "") ms = performance.now() - sentAt;
      text += data.toString();
    });
    socket.on("close", () => resolve({ text, ms }));
  });
}

/** The same on a WebSocket: the first frame that is no Ping. */
function overSocket(url: string, key: string): Promise<Timed> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/api/1.0.0/sync`);
  return new Promise((resolve) => {
    let sentAt = 0;
    socket.once("open", () => {
      socket.send(JSON.stringify({ type: "Connect", sessionId: crypto.randomUUID(), connectionCount: 0 }));
      sentAt = performance.now();
      socket.send(JSON.stringify({ type: "Mutation", requestId: 0, udfPath: "faults:add", args: [{ key }] }));
    });
    socket.on("message", (data: Buffer) => {
      const text = data.toString();
      if (text.includes('"Ping"')) return;
      resolve({ text, ms: performance.now() - sentAt });
      socket.terminate();
    });
  });
}

test.skipIf(!compiler)(
  "no byte of an answer leaves before the disk has confirmed its commit; commits that arrive together share that (needs cc, Linux)",
  async () => {
    const folder = temporaryFolder();
    const log = join(folder, "syncs");
    const env = {
      ...process.env,
      LD_PRELOAD: compileSlowSync(),
      SYNC_LOG: log,
      SYNC_DELAY_MS: String(DELAY_MS),
    };
    const backend = spawnBackend(folder, await ledgerBundle(), { env });
    const url = await backend.url;
    const synced = (): number =>
      readFileSync(log, "utf8")
        .split("\n")
        .filter((path) => path.endsWith("data.sqlite3-wal")).length;
    const answers: Timed[] = [];
    const before = synced();
    for (let number = 0; number < 3; number++) answers.push(await overHttp(url, `alone${number}`));
    const alone = synced() - before;
    const together = Array.from({ length: 24 }, (_, number) =>
      number % 3 === 0 ? overSocket(url, `together${number}`) : overHttp(url, `together${number}`),
    );
    answers.push(...(await Promise.all(together)));
    for (const { text } of answers) expect(text).toMatch(/"status":"success"|"success":true/);
    expect(Math.min(...answers.map(({ ms }) => ms))).toBeGreaterThanOrEqual(DELAY_MS);
    expect(alone).toBeGreaterThanOrEqual(3);
    // the first one's commit, the one of those that gathered meanwhile, and what a cron and late sockets add
    expect(synced() - before - alone).toBeLessThanOrEqual(6);
    await backend.end("SIGKILL");
  },
);

test("what an answer tells of can be read by another process when it arrives", async () => {
  const folder = temporaryFolder();
  const backend = await startBackend(folder, await ledgerBundle());
  const data = new DataFile(folder);
  const unseen: string[] = [];
  const write = async (writer: number): Promise<void> => {
    for (let step = 0; step < 20; step++) {
      const key = `${writer}-${step}`;
      await backend.call("mutation", "faults:add", { key });
      if (!data.documents<{ key: string }>("settled").some((settled) => settled.key === key))
        unseen.push(key);
    }
  };
  await Promise.all(Array.from({ length: 8 }, (_, writer) => write(writer)));
  expect(unseen).toEqual([]);
  data.close();
  await backend.end();
});
