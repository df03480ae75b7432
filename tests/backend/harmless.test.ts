/** What one client can do to the process, and to the others: nothing. Each of these once could. */
import { connect } from "node:net";
import { join } from "node:path";
import { request, type IncomingMessage } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Clock } from "../../backend/clock.ts";
import { Store } from "../../backend/store.ts";
import { Transaction } from "../../backend/transaction.ts";
import type { Json } from "../../backend/values.ts";
import { Peer, type Message } from "./peer.ts";
import { startBackend, temporaryFolder, type Answer, type Backend } from "./server.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.end());

const connected = (): Promise<Peer> => Peer.connect(backend.url, crypto.randomUUID());

async function post(body: BodyInit, route = "query"): Promise<[number, Answer & { message?: string }]> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${backend.url}/api/${route}`, { method: "POST", headers, body });
  return [response.status, (await response.json()) as Answer];
}

describe("a client", () => {
  test("that is gone before its handshake is refused does not end the process", async () => {
    const handshake =
      "GET /api/sync HTTP/1.1\r\nHost: evil\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for (let time = 0; time < 30; time++) {
      await new Promise<void>((resolve) => {
        const socket = connect(Number(new URL(backend.url).port), "127.0.0.1", () =>
          socket.write(handshake, () => {
            socket.resetAndDestroy();
            resolve();
          }),
        );
        socket.on("error", () => resolve());
      });
    }
    expect((await backend.call("query", "values:echo", { value: 1 })).value).toBe(1);
    expect(backend.process.exitCode).toBeNull();
  });

  test.each<[string, Message]>([
    ["a mutation without a number", { type: "Mutation", udfPath: "notes:add", args: [{ text: "a" }] }],
    [
      "a mutation with another number",
      { type: "Mutation", requestId: {}, udfPath: "notes:add", args: [{ text: "a" }] },
    ],
    [
      "a subscription without a number",
      { type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [{ type: "Add" }] },
    ],
    [
      "a version that is none",
      { type: "ModifyQuerySet", baseVersion: 0, newVersion: '1,"x":1', modifications: [] },
    ],
    [
      "no modifications",
      { type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: { length: 1 } },
    ],
    ["a session of another kind", { type: "Connect", sessionId: "s".repeat(65) }],
    [
      "a token that is no text",
      { type: "Authenticate", baseVersion: 0, tokenType: "Admin", value: { length: 64 } },
    ],
  ])(
    "that sends %s is told so and let go, and the others' mutations of that instant are written",
    async (_name, message) => {
      const [hostile, healthy] = [await connected(), await connected()];
      hostile.send(message);
      for (let requestId = 0; requestId < 8; requestId++) {
        healthy.send({ type: "Mutation", requestId, udfPath: "notes:add", args: [{ text: "b" }] });
        if (requestId % 2 === 0) hostile.send(message);
      }
      const answers = await healthy.wait("MutationResponse", 8);
      expect(answers.map(({ success }) => success)).toEqual(Array(8).fill(true));
      expect((await hostile.wait("FatalError")).length).toBe(1);
      expect(await hostile.closed).toBe(1002);
      healthy.socket.close();
    },
  );

  test("that offers another protocol than WebSockets is answered in the one it speaks", async () => {
    const { port } = new URL(backend.url);
    const headers = { connection: "Upgrade, HTTP2-Settings", upgrade: "h2c" };
    const status = await new Promise((resolve) => {
      request({ port, path: "/version", headers }, (response: IncomingMessage) => {
        response.resume();
        resolve(response.statusCode);
      }).end();
    });
    expect(status).toBe(200);
  });
});

describe("a call", () => {
  const DEEP = "[".repeat(100_000) + "]".repeat(100_000);

  test.each<[string, string | Uint8Array<ArrayBuffer>, string, string]>([
    [
      "arguments that are too nested to be written",
      `{"path":"values:echo","args":${DEEP}}`,
      "BadJsonBody",
      "too nested",
    ],
    [
      "a format that is no text",
      '{"path":"values:echo","args":{},"format":{"toString":1}}',
      "BadFormat",
      "Got object",
    ],
    [
      "bytes that are no text",
      new Uint8Array(
        Buffer.concat([
          Buffer.from('{"path":"values:echo","args":{"value":"'),
          Buffer.from([0xff]),
          Buffer.from('"}}'),
        ]),
      ),
      "BadJsonBody",
      "not UTF-8",
    ],
  ])("with %s is the caller's fault", async (_name, body, code, words) => {
    expect(await post(body)).toEqual([400, { code, message: expect.stringContaining(words) }]);
  });

  test("that is too nested is refused on a WebSocket too", async () => {
    const peer = await connected();
    peer.socket.send(
      `{"type":"Action","requestId":0,"udfPath":"values:echoAction","args":[{"value":${DEEP}}]}`,
    );
    expect((await peer.wait("FatalError"))[0]?.error).toBe(
      "Received an invalid message: its arguments are too nested.",
    );
  });

  test("with half a character is refused, as Convex cannot even read it", async () => {
    for (const [value, refused] of [
      ["\\ud800", true],
      ["\\ude00\\ud83d", true],
      ["\\ud83d\\ude00", false],
    ] as const) {
      const [, answer] = await post(`{"path":"values:echo","args":{"value":["${value}"]}}`);
      expect([value, answer.errorMessage?.includes("surrogate pair") ?? false]).toEqual([value, refused]);
    }
  });

  test("of a function that throws what has no text is answered", async () => {
    const [, answer] = await post('{"path":"runtime:throwNothing","args":{}}', "action");
    expect(answer.errorMessage).toContain("Uncaught an object without a text");
  });
});

test("a field named __proto__ is a field, and no way around the schema", () => {
  const store = new Store(join(temporaryFolder(), "data.sqlite3"));
  const required = (value: Json): string | null =>
    Object.hasOwn(value as object, "text") ? null : "text is missing";
  const world = { store, clock: new Clock(0n, 0), documentCheck: () => required };
  const tx = new Transaction(world, true, Date.now(), 1n);
  store.db.exec("BEGIN");
  const parsed = (text: string): Json => JSON.parse(text) as Json;
  expect(() => tx.insert("notes", parsed('{"__proto__":{"text":"a"}}'))).toThrow(
    "Field '__proto__' starts with an underscore",
  );
  const id = tx.insert("notes", parsed('{"text":{"__proto__":{"b":1}}}'));
  expect(tx.get(id, "notes", false)).toContain('"text":{"__proto__":{"b":1}}');
  store.db.exec("COMMIT");
  store.close();
});
