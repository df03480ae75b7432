/**
 * The fuzz run: what no client sends, on every way in, while healthy clients go on. 60 times as long with HEARTBEAT_TEST_LONG=1;
 * FUZZ_SEED replays a run.
 */
import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { expect, test } from "vitest";
import {
  bodyText,
  damage,
  frameBytes,
  messageText,
  pathText,
  argumentsText,
  requestBytes,
} from "./hostile.ts";
import { checkData, DataFile } from "./ledger.ts";
import { Peer } from "./peer.ts";
import { randomFrom, type Random } from "./random.ts";
import { startBackend, temporaryFolder, type Backend } from "./server.ts";

const ROUNDS = process.env.HEARTBEAT_TEST_LONG ? 2000 : 30;
/** Hostile clients at once. */
const LANES = 16;
/** An answer comes within this, ms; who gets none is silent, as a server may be to what it cannot read. */
const PATIENCE_MS = 60;
/** What the process may grow by, MB: the two engines' young generations and page caches, and no more with more rounds. */
const MAX_GROWTH_MB = 400;
const TABLES = ["notes", "people", "anything", "rows"];
const MACHINE = [/\n\s+at /, /file:\/\//, /node:internal/, /\/backend\/\w+\.ts/, new RegExp(process.cwd())];

/** Sends bytes on a connection of its own. @returns what came back. */
function exchange(port: number, pieces: Buffer[]): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(port, "127.0.0.1", () => pieces.forEach((piece) => socket.write(piece)));
    const patience = setTimeout(() => socket.destroy(), PATIENCE_MS);
    socket.on("data", (data) => (text += data.toString("latin1")));
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(patience);
      resolve(text);
    });
  });
}

const HANDSHAKE = Buffer.from(
  "GET /api/1.48.0/sync HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
);

/** A message as a whole frame. */
function frame(text: string): Buffer {
  const payload = Buffer.from(text);
  const head = Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  head.writeBigUInt64BE(BigInt(payload.length), 2);
  return Buffer.concat([head, payload]);
}

/** One hostile client's round. @returns the answers. */
async function attack(backend: Backend, random: Random): Promise<string> {
  const port = Number(new URL(random(6) === 0 ? backend.siteUrl : backend.url).port);
  const opening = [HANDSHAKE, frame('{"type":"Connect","sessionId":"hostile"}')];
  switch (random(5)) {
    case 0:
      return exchange(port, [requestBytes(random)]);
    case 1: {
      const response = await fetch(`${backend.url}/api/${["query", "mutation", "action"][random(3)]}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: new Uint8Array(damage(random, bodyText(random))),
      });
      const text = await response.text();
      // what a caller sends is never our failure
      return response.status >= 500 ? `status ${response.status}: ${text}` : text;
    }
    case 2:
      return exchange(port, [HANDSHAKE, ...Array.from({ length: 1 + random(4) }, () => frameBytes(random))]);
    case 3: {
      const messages = Array.from({ length: 1 + random(6) }, () => frame(messageText(random)));
      return exchange(port, [...opening, ...messages]);
    }
    default: {
      // with the key everything is open, also the queries of the official command line
      const path = random(2) === 0 ? "_system/cli/tableData" : pathText(random);
      const body = `{"path":${JSON.stringify(path)},"args":${argumentsText(random)}}`;
      const headers = { "content-type": "application/json", authorization: `Convex ${backend.adminKey}` };
      const response = await fetch(`${backend.url}/api/function`, { method: "POST", headers, body });
      await response.text();
      return response.status >= 500 ? `status ${response.status}` : "";
    }
  }
}

/** Asks and writes, one after the other, and is answered every time. */
async function goOnAsAlways(backend: Backend, until: Promise<unknown>): Promise<number> {
  let going = true;
  void until.catch(() => undefined).finally(() => (going = false));
  let count = 0;
  for (; going; count++) {
    const written = await backend.call("mutation", "rows:add", { list: "healthy", number: count });
    expect(written).toMatchObject({ status: "success" });
    const found = await backend.call("query", "rows:first", { list: "healthy", count: count + 2 });
    expect((found.value as number[]).length).toBe(count + 1);
  }
  return count;
}

function documents(folder: string): Map<string, unknown> {
  const data = new DataFile(folder);
  const found = TABLES.flatMap((table) => data.documents<{ _id: string }>(table));
  data.close();
  return new Map(found.map((document) => [document._id, document]));
}

function megabytes(backend: Backend): number {
  const [, kilobytes] =
    /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${backend.process.pid}/status`, "utf8")) ?? [];
  return Number(kilobytes) / 1024;
}

test(
  `${ROUNDS * LANES} hostile requests change nothing and learn nothing`,
  { timeout: 600_000 },
  async () => {
    const seed = Number(process.env.FUZZ_SEED ?? randomInt(2 ** 31));
    process.stdout.write(`fuzz test: ${ROUNDS} rounds, FUZZ_SEED=${seed}\n`);
    const folder = temporaryFolder();
    const backend = await startBackend(folder);
    for (const value of [1, "text", null, [1, { a: 1 }], { $integer: "AAAAAAAAAAA=" }]) {
      await backend.call("mutation", "values:put", { document: { value } });
      await backend.call("mutation", "notes:add", { text: JSON.stringify(value) });
    }
    await backend.call("mutation", "notes:addPerson", { name: "Ada", mail: "ada@example.org" });
    const before = documents(folder);
    const watching = await Peer.connect(backend.url, crypto.randomUUID());
    const subscription = { type: "Add", queryId: 0, udfPath: "rows:some", args: [{ list: "healthy" }] };
    watching.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [subscription] });
    const memory = process.platform === "linux" ? megabytes(backend) : 0;

    const attacks = Array.from({ length: LANES }, async (_, lane) => {
      const random = randomFrom(seed + lane);
      for (let round = 0; round < ROUNDS; round++) {
        const answer = await attack(backend, random);
        const where = `lane ${lane}, round ${round}: ${answer.slice(0, 2000)}`;
        expect(
          MACHINE.filter((trace) => trace.test(answer)),
          where,
        ).toEqual([]);
        expect(answer, where).not.toMatch(/^status 5|HTTP\/1.1 500|undefined,"success"/);
      }
    });
    const all = Promise.all(attacks);
    const [healthy] = await Promise.all([goOnAsAlways(backend, all), all]);

    expect(healthy).toBeGreaterThan(10);
    expect((await watching.wait("Transition", 2)).length).toBeGreaterThan(1);
    expect(watching.of("FatalError")).toEqual([]);
    if (process.platform === "linux") expect(megabytes(backend) - memory).toBeLessThan(MAX_GROWTH_MB);
    expect(backend.log()).not.toMatch(
      /heartbeat-backend: \[|unhandledRejection|uncaughtException|engine failed/,
    );
    expect(await backend.end()).toBe(0);
    const after = documents(folder);
    expect(
      [...before].filter(([id, document]) => JSON.stringify(after.get(id)) !== JSON.stringify(document)),
    ).toEqual([]);
    expect((await checkData(folder)).report).toMatchObject({ ok: true, problems: [] });
  },
);
