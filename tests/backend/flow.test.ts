/** What a client may take on a WebSocket: each limit walked up to, onto, and past; and a thousand clients that do nothing. */
import { readFileSync, writeFileSync } from "node:fs";
import { Agent, get } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { WebSocket, WebSocketServer } from "ws";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { monotonicMs } from "../../backend/clock.ts";
import { Inflow, MAX_OPEN_REQUESTS, Outflow } from "../../backend/flow.ts";
import { Peer } from "./peer.ts";
import { atTheEnd, eventually, startBackend, temporaryFolder, type Backend } from "./server.ts";

const MIB = 1024 * 1024;
const MAX_MESSAGE = 16 * MIB + 2000;
/** More than the operating system keeps for a connection, bytes. */
const LARGE = 24 * MIB;

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.end());

describe("a WebSocket client", () => {
  const connected = (): Promise<Peer> => Peer.connect(backend.url, crypto.randomUUID());
  const add = (queryId: number, value: unknown): object => ({
    type: "Add",
    queryId,
    udfPath: "values:echo",
    args: [{ value }],
  });
  const modify = (peer: Peer, base: number, modifications: object[]): void =>
    peer.send({ type: "ModifyQuerySet", baseVersion: base, newVersion: base + 1, modifications });

  test("sends messages of at most 16 MiB and 2000 bytes", async () => {
    const event = (length: number): string => {
      const empty = JSON.stringify({ type: "Event", event: "" });
      return JSON.stringify({ type: "Event", event: "x".repeat(length - empty.length) });
    };
    const peer = await connected();
    for (const length of [MAX_MESSAGE - 1, MAX_MESSAGE]) peer.socket.send(event(length));
    peer.send({ type: "Mutation", requestId: 0, udfPath: "rows:add", args: [{ list: "large", number: 1 }] });
    expect((await peer.wait("MutationResponse"))[0]?.success).toBe(true);
    peer.socket.send(event(MAX_MESSAGE + 1));
    expect(await peer.closed).toBe(1009);
  });

  test("subscribes to 1,000 queries, not to one more, and to another one when it has left one", async () => {
    const peer = await connected();
    modify(
      peer,
      0,
      Array.from({ length: 1000 }, (_, number) => add(number, number)),
    );
    expect((await peer.wait("Transition"))[0]?.modifications).toHaveLength(1000);
    modify(peer, 1, [{ type: "Remove", queryId: 5 }, add(1000, "another")]);
    expect((await peer.wait("Transition", 2))[1]?.modifications).toHaveLength(2);
    modify(peer, 2, [add(1001, "one more")]);
    expect((await peer.wait("FatalError"))[0]?.error).toBe("One client subscribes to at most 1000 queries.");
    await peer.closed;
  });

  test("subscribes with 16 MiB of arguments, not with more", async () => {
    const peer = await connected();
    const length = 16 * MIB - "values:echo".length - '[{"value":""}]'.length;
    modify(peer, 0, [add(0, "x".repeat(length))]);
    expect((await peer.wait("Transition")).length).toBe(1);
    modify(peer, 1, [{ type: "Remove", queryId: 0 }]);
    modify(peer, 2, [add(1, "x".repeat(length - 40))]);
    expect((await peer.wait("Transition", 3)).length).toBe(3);
    modify(peer, 3, [add(2, "x".repeat(100))]);
    expect((await peer.wait("FatalError"))[0]?.error).toContain("at most 16777216 characters");
  });

  test(`has ${MAX_OPEN_REQUESTS} requests under way: the next waits for the end of one, and none is lost`, async () => {
    const peer = await connected();
    const gate = (number: number): void =>
      peer.send({
        type: "Action",
        requestId: number,
        udfPath: "runtime:slowAction",
        args: [{ ms: number === 0 ? 200 : 2500 }],
      });
    for (let number = 0; number < MAX_OPEN_REQUESTS; number++) gate(number);
    const late = { type: "Action", requestId: 1000, udfPath: "values:echoAction", args: [{ value: 1 }] };
    for (let number = 0; number < 500; number++) peer.send({ ...late, requestId: 1000 + number });
    const answers = await peer.wait("ActionResponse", MAX_OPEN_REQUESTS + 500);
    // an echo takes no time: each of them waited for the shortest of the others
    expect(answers[0]?.requestId).toBe(0);
    expect(answers.slice(1, 501).every(({ requestId }) => (requestId as number) >= 1000)).toBe(true);
    expect(new Set(answers.map(({ requestId }) => requestId)).size).toBe(MAX_OPEN_REQUESTS + 500);
    peer.socket.close();
  });

  test.runIf(process.platform === "linux")(
    "that never reads is cut off, and costs a bounded buffer until then",
    async () => {
      const memory = (): number => {
        const [, kilobytes] =
          /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${backend.process.pid}/status`, "utf8")) ?? [];
        return Number(kilobytes) / 1024;
      };
      const peer = await connected();
      await peer.wait("Ping");
      const before = memory();
      peer.socket.pause();
      const value = "x".repeat(MIB);
      for (let requestId = 0; requestId < 150; requestId++) {
        peer.send({ type: "Action", requestId, udfPath: "values:echoAction", args: [{ value }] });
      }
      let most = 0;
      await eventually(
        () => {
          most = Math.max(most, memory() - before);
          return Promise.resolve(peer.socket.bufferedAmount);
        },
        (bytes) => bytes === 0,
      );
      peer.socket.resume();
      await peer.closed;
      expect(peer.of("ActionResponse").length).toBeLessThan(150);
      // what it asks for is in three places while it runs, 128 of it at a time
      expect(most).toBeLessThan(400);
      expect((await backend.call("query", "values:echo", { value: 1 })).value).toBe(1);
    },
  );

  test("that reads slowly gets the newest, not everything that was in between", async () => {
    const peer = await connected();
    const list = "slow";
    modify(peer, 0, [{ type: "Add", queryId: 0, udfPath: "rows:texts", args: [{ list }] }]);
    await peer.wait("Transition");
    peer.socket.pause();
    // a Transition each would be three times as much as a client may leave
    for (let requestId = 0; requestId < 14; requestId++) {
      const args = [{ list, number: requestId, text: "x".repeat(900_000) }];
      peer.send({ type: "Mutation", requestId, udfPath: "rows:add", args });
      const written = async (): Promise<number> =>
        ((await backend.call("query", "rows:first", { list, count: 100 })).value as number[]).length;
      await eventually(written, (count) => count === requestId + 1);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    peer.socket.resume();
    const newest = (): number => {
      const [modification] = (peer.of("Transition").at(-1)?.modifications ?? []) as { value: string[] }[];
      return modification?.value.length ?? 0;
    };
    expect(
      await eventually(
        () => Promise.resolve(newest()),
        (length) => length === 14,
      ),
    ).toBe(14);
    expect(peer.of("MutationResponse").length).toBe(14);
    peer.socket.close();
  });
});

test("a clock that is set neither cuts a WebSocket client off nor delays what it is told", async () => {
  const folder = temporaryFolder();
  const clock = join(folder, "clock");
  const hour = (nth: number): void => writeFileSync(clock, String(Date.UTC(2026, 2, 2, nth)));
  hour(8);
  const other = await startBackend(folder, undefined, 0, [], clock);
  const peer = await Peer.connect(other.url, crypto.randomUUID());
  const query = { type: "Add", queryId: 0, udfPath: "rows:first", args: [{ list: "set", count: 9 }] };
  peer.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [query] });
  await peer.wait("Transition");

  hour(10);
  // by the next one, it has been looked for who is silent
  await new Promise((resolve) => peer.socket.once("ping", resolve));
  await other.call("mutation", "rows:add", { list: "set", number: 1 });
  expect(await peer.wait("Transition", 2)).toHaveLength(2);

  hour(9);
  await other.call("mutation", "rows:add", { list: "set", number: 2 });
  expect(await peer.wait("Transition", 3)).toHaveLength(3);
  await other.end();
});

describe("one end of a WebSocket", () => {
  /** Both ends of a connection. */
  async function pair(): Promise<{ here: WebSocket; there: WebSocket }> {
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
    atTheEnd(() => server.close());
    const here = new Promise<WebSocket>((resolve) => server.once("connection", resolve));
    await new Promise((resolve) => server.once("listening", resolve));
    const there = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
    atTheEnd(() => there.terminate());
    await new Promise((resolve) => there.once("open", resolve));
    return { here: await here, there };
  }

  test("is stalled when nothing was taken of it for a minute, not while nothing waits", async () => {
    const { here, there } = await pair();
    const outflow = new Outflow(here, () => undefined);
    there.pause();
    expect(outflow.stalled(monotonicMs() + 1e9)).toBe(false);
    outflow.send(["x".repeat(LARGE)]);
    const sentAt = monotonicMs();
    expect([59_000, 61_000].map((later) => outflow.stalled(sentAt + later))).toEqual([false, true]);
    there.resume();
    await eventually(
      () => Promise.resolve(here.bufferedAmount),
      (bytes) => bytes === 0,
    );
    expect(outflow.stalled(monotonicMs() + 61_000)).toBe(false);
  });

  test("takes requests until their arguments are 32 MiB, then waits, unread, and keeps their order", async () => {
    const { here, there } = await pair();
    const taken: string[] = [];
    const inflow = new Inflow(here, (text) => taken.push(text));
    here.on("message", (data: Buffer) => inflow.receive(data.toString()));
    inflow.begin(32 * MIB - 1);
    there.send("first");
    await eventually(
      () => Promise.resolve(taken.length),
      (count) => count === 1,
    );
    inflow.begin(1);
    for (const text of ["second", "third"]) there.send(text);
    await eventually(
      () => Promise.resolve(here.isPaused),
      (paused) => paused,
    );
    expect([taken, here.isPaused]).toEqual([["first"], true]);
    inflow.end(1);
    await eventually(
      () => Promise.resolve(taken.length),
      (count) => count === 3,
    );
    expect([taken, here.isPaused]).toEqual([["first", "second", "third"], false]);
  });
});

test("1,000 idle connections are held while others are served as fast as before", async () => {
  /** What the quickest tenth of calls stay within, ms: what else the machine does only makes calls slower. */
  const speed = async (): Promise<number> => {
    const times: number[] = [];
    for (let call = 0; call < 61; call++) {
      const begun = performance.now();
      const written = await backend.call("mutation", "rows:add", { list: "served", number: call });
      times.push(performance.now() - begun);
      expect(written.status).toBe("success");
    }
    return times.sort((left, right) => left - right)[6] as number;
  };
  await speed();
  const alone = await speed();
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: Infinity });
  atTheEnd(() => agent.destroy());
  const kept = (): Promise<unknown> =>
    new Promise((resolve, reject) =>
      get(`${backend.url}/version`, { agent }, (response) => response.resume().once("end", resolve)).once(
        "error",
        reject,
      ),
    );
  await Promise.all(Array.from({ length: 500 }, kept));
  const peers = await Promise.all(
    Array.from({ length: 500 }, async () => {
      const peer = await Peer.connect(backend.url, crypto.randomUUID());
      const subscription = { type: "Add", queryId: 0, udfPath: "rows:some", args: [{ list: "idle" }] };
      peer.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [subscription] });
      return peer;
    }),
  );
  atTheEnd(() => peers.forEach(({ socket }) => socket.terminate()));
  await Promise.all(peers.map((peer) => peer.wait("Transition")));
  const beside = await speed();
  process.stdout.write(
    `1,000 idle connections: ${beside.toFixed(1)} ms a mutation, ${alone.toFixed(1)} ms without them, ${(beside / alone).toFixed(1)} times\n`,
  );
  // what other tests of the run still do to one of the two
  expect(beside / alone).toBeLessThan(4);
  const ports = Object.values(agent.freeSockets).flat().length;
  expect([ports, peers.filter(({ socket }) => socket.readyState === WebSocket.OPEN).length]).toEqual([
    500, 500,
  ]);
  await Promise.all(Array.from({ length: 500 }, kept));
  expect(Object.values(agent.freeSockets).flat().length).toBe(500);
});
