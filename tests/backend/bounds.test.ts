/** What a client may take over HTTP: each limit walked up to, onto, and past. */
import { createServer, type Server } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MAX_HEADERS, MAX_URL_BYTES } from "../../backend/access.ts";
import { readBody } from "../../backend/body.ts";
import { fail } from "../../backend/http.ts";
import { listen, LISTEN_LIMITS, type ListenLimits } from "../../backend/listen.ts";
import { atTheEnd, eventually, startBackend, type Backend } from "./server.ts";

const MIB = 1024 * 1024;
const MAX_BODY = 16 * MIB + 2000;
/** More than the operating system keeps for a connection, bytes. */
const LARGE = 24 * MIB;

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.end());

/** A connection; what came back, and when it ended. */
type Raw = { socket: Socket; text: () => string; closed: Promise<string> };

function raw(port: number, first: string): Raw {
  let text = "";
  const socket = connect(port, "127.0.0.1", () => socket.write(first));
  socket.on("data", (data) => (text += data.toString("latin1")));
  socket.on("error", () => undefined);
  atTheEnd(() => socket.destroy());
  const closed = new Promise<string>((resolve) => socket.once("close", () => resolve(text)));
  return { socket, text: () => text, closed };
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port;
const apiPort = (): number => Number(new URL(backend.url).port);

describe("a server with short times", () => {
  const answers: (() => void)[] = [];
  async function open(limits: Partial<ListenLimits>): Promise<number> {
    const server = await listen(
      0,
      "127.0.0.1",
      false,
      (request, response) => {
        if (request.url === "/large") response.end(Buffer.alloc(LARGE));
        else if (request.url === "/later") answers.push(() => response.end("late"));
        else request.resume().once("end", () => response.end("done"));
      },
      { ...LISTEN_LIMITS, checkEveryMs: 20, ...limits },
    );
    atTheEnd(() => {
      server.closeAllConnections();
      server.close();
    });
    return portOf(server);
  }

  test("cuts off who sends no head, half a head, or half a body; not who waits for the answer, or between requests", async () => {
    const [port, patient] = [
      await open({ headersMs: 300, requestMs: 300 }),
      await open({ headersMs: 150, requestMs: 60_000 }),
    ];
    const waiting = raw(port, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    const idle = raw(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    const cut = [
      raw(patient, ""),
      raw(patient, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "),
      raw(port, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"),
    ];
    const drip = setInterval(() => cut.slice(1).forEach(({ socket }) => socket.write("x")), 60);
    for (const { closed } of cut) expect(await closed).toMatch(/^$|408 Request Timeout/);
    clearInterval(drip);
    answers.splice(0).forEach((answer) => answer());
    expect(
      await eventually(
        () => Promise.resolve(waiting.text()),
        (text) => text.includes("late"),
      ),
    ).toContain("200 OK");
    idle.socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    const twice = await eventually(
      () => Promise.resolve(idle.text()),
      (text) => text.split("done").length === 3,
    );
    expect(twice.split("200 OK").length).toBe(3);
  });

  test("cuts off who does not take the answer, and waits for who takes it slowly", async () => {
    const port = await open({ stalledMs: 200 });
    const deaf = connect(port, "127.0.0.1", () => deaf.write("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
    deaf.on("error", () => undefined);
    const slow = connect(port, "127.0.0.1", () => slow.write("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
    let taken = 0;
    slow.on("data", (data) => {
      taken += data.length;
      slow.pause();
      setTimeout(() => slow.resume(), taken < 8 * MIB ? 1 : 0);
    });
    deaf.pause();
    await new Promise((resolve) => setTimeout(resolve, 600));
    deaf.resume();
    let heard = 0;
    deaf.on("data", (data) => (heard += data.length));
    await new Promise((resolve) => deaf.once("close", resolve));
    expect(heard).toBeLessThan(LARGE);
    await eventually(
      () => Promise.resolve(taken),
      (bytes) => bytes > LARGE,
    );
    expect(taken).toBeGreaterThan(LARGE);
    slow.destroy();
  });

  test("has so many connections, and room for another when one ends", async () => {
    const port = await open({ connections: 5 });
    const ask = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const served = (client: Raw): Promise<string> =>
      eventually(
        () => Promise.resolve(client.text()),
        (text) => text !== "",
      );
    const clients = Array.from({ length: 5 }, () => raw(port, ask));
    for (const client of clients) expect(await served(client)).toContain("200 OK");
    expect(await raw(port, ask).closed).toBe("");
    clients[0]?.socket.destroy();
    const next = await eventually(
      async () => {
        const client = raw(port, ask);
        return Promise.race([served(client), client.closed]);
      },
      (text) => text !== "",
    );
    expect(next).toContain("200 OK");
  });

  test("answers so many requests that were sent at once, and cuts off who sends more", async () => {
    const port = await open({ pipelined: 4 });
    const ask = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";
    const fits = raw(port, ask.repeat(4));
    await eventually(
      () => Promise.resolve(answers.length),
      (count) => count === 4,
    );
    answers.splice(0).forEach((answer) => answer());
    const text = await eventually(
      () => Promise.resolve(fits.text()),
      (found) => found.split("late").length === 5,
    );
    expect(text.split("late").length).toBe(5);
    expect(await raw(port, ask.repeat(5)).closed).toBe("");
    answers.length = 0;
  });
});

describe("a request", () => {
  /** The status of a request with a head of its own. */
  async function statusOf(head: string): Promise<number> {
    const answer = await raw(apiPort(), `${head}\r\nHost: localhost\r\nConnection: close\r\n\r\n`).closed;
    return Number(answer.split(" ")[1]);
  }

  test(`has an address of at most ${MAX_URL_BYTES} bytes`, async () => {
    const address = (length: number): string =>
      `GET /version?${"x".repeat(length - "/version?".length)} HTTP/1.1`;
    const statuses = [MAX_URL_BYTES - 1, MAX_URL_BYTES, MAX_URL_BYTES + 1].map((length) =>
      statusOf(address(length)),
    );
    expect(await Promise.all(statuses)).toEqual([200, 200, 414]);
  });

  test(`has at most ${MAX_HEADERS} headers, and none is dropped`, async () => {
    const head = (count: number): string =>
      `GET /version HTTP/1.1\r\n${Array.from({ length: count - 2 }, (_, at) => `X-${at}: y`).join("\r\n")}`;
    const statuses = [MAX_HEADERS - 1, MAX_HEADERS, MAX_HEADERS + 1, 1000].map((count) =>
      statusOf(head(count)),
    );
    expect(await Promise.all(statuses)).toEqual([200, 200, 431, 431]);
  });

  test(`has a head of less than ${LISTEN_LIMITS.headerBytes} bytes, its marks not counted`, async () => {
    // address, names and values of the two headers that are always there
    const others =
      "/version".length + "Host".length + "localhost".length + "Connection".length + "close".length;
    const head = (bytes: number): string => `GET /version HTTP/1.1\r\nX: ${"x".repeat(bytes - others - 1)}`;
    const { headerBytes } = LISTEN_LIMITS;
    const statuses = [headerBytes - 2, headerBytes - 1, headerBytes, headerBytes * 2].map((bytes) =>
      statusOf(head(bytes)),
    );
    expect(await Promise.all(statuses)).toEqual([200, 200, 431, 431]);
  });

  test("has a body of at most 16 MiB and 2000 bytes; one without an end is cut off", async () => {
    const post = (length: number): Promise<Response> =>
      fetch(`${backend.url}/echo`, { method: "POST", body: "x".repeat(length) });
    expect(
      await Promise.all(
        [MAX_BODY - 1, MAX_BODY, MAX_BODY + 1].map(async (length) => (await post(length)).status),
      ),
    ).toEqual([...[200, 200, 400]]);
    const endless = raw(
      apiPort(),
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    const chunk = Buffer.concat([
      Buffer.from(`${MIB.toString(16)}\r\n`),
      Buffer.alloc(MIB, "x"),
      Buffer.from("\r\n"),
    ]);
    let sent = 0;
    const more = (): void => {
      while (!endless.socket.destroyed && sent < 1000 && endless.socket.write(chunk)) sent++;
    };
    endless.socket.on("drain", more);
    endless.socket.once("connect", more);
    await endless.closed;
    expect(sent).toBeLessThan(200);
  });

  test("asks 100 queries at once at most", async () => {
    const call = { path: "values:echo", args: { value: 1 } };
    const ask = (count: number): Promise<Response> =>
      fetch(`${backend.url}/api/query_batch`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ queries: Array<unknown>(count).fill(call) }),
      });
    expect(await Promise.all([99, 100, 101].map(async (count) => (await ask(count)).status))).toEqual([
      200, 200, 400,
    ]);
  });
});

test("the bodies of all requests have a bound together, and room again when one is answered", async () => {
  const waiting: (() => void)[] = [];
  const server = createServer((request, response) => {
    readBody(request, response, MIB, 100_000)
      .then(() => waiting.push(() => response.end("done")))
      .catch((error: unknown) => fail(response, error));
  }).listen(0, "127.0.0.1");
  atTheEnd(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const post = async (length: number): Promise<number> =>
    (await fetch(`http://127.0.0.1:${portOf(server)}/`, { method: "POST", body: "x".repeat(length) })).status;
  const first = post(60_000);
  await eventually(
    () => Promise.resolve(waiting.length),
    (count) => count === 1,
  );
  expect(await post(40_001)).toBe(503);
  const second = post(40_000);
  await eventually(
    () => Promise.resolve(waiting.length),
    (count) => count === 2,
  );
  for (const answer of waiting.splice(0)) answer();
  expect(await Promise.all([first, second])).toEqual([200, 200]);
  const third = post(100_000);
  await eventually(
    () => Promise.resolve(waiting.length),
    (count) => count === 1,
  );
  waiting[0]?.();
  expect(await third).toBe(200);
});
