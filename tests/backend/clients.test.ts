/** npm convex's WebSocket client, unchanged, and the protocol itself where the client hides it. */
import { ConvexClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { ConvexError } from "convex/values";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import WebSocket from "ws";
import { Peer, type Message } from "./peer.ts";
import { eventually, startBackend, temporaryFolder, type Backend } from "./server.ts";

const add = makeFunctionReference<"mutation">("notes:add");
const refuse = makeFunctionReference<"mutation">("notes:refuse");
const crash = makeFunctionReference<"mutation">("notes:crash");
const withStars = makeFunctionReference<"query", { from: number; to: number }, string[]>("notes:withStars");
const echo = makeFunctionReference<"query">("values:echo");
const echoAction = makeFunctionReference<"action">("values:echoAction");

let backend: Backend;
const clients: { close: () => unknown }[] = [];
beforeAll(async () => {
  backend = await startBackend();
});
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
});
afterAll(() => backend.end());

function connect(): ConvexClient {
  const client = new ConvexClient(backend.url);
  clients.push(client);
  return client;
}

async function peer(session = crypto.randomUUID() as string): Promise<Peer> {
  const peer = await Peer.connect(backend.url, session);
  clients.push({ close: () => peer.socket.terminate() });
  return peer;
}

describe("npm ConvexClient", () => {
  test("queries, mutates and acts, with values of every kind", async () => {
    const client = connect();
    const value = {
      int: 5n,
      float: 2.5,
      whole: 2,
      text: "é\0",
      list: [null, true],
      bytes: new Uint8Array([1]).buffer,
    };
    expect(await client.query(echo, { value })).toEqual(value);
    expect(await client.action(echoAction, { value })).toEqual(value);
    expect(await client.mutation(add, { text: "one" })).toMatch(/^[0-9a-z]{32}$/);
  });

  test("sees its own write as soon as its mutation resolves", async () => {
    const client = connect();
    const seen: number[] = [];
    client.onUpdate(withStars, { from: 100, to: 200 }, (texts) => void seen.push(texts.length));
    await eventually(
      () => Promise.resolve(seen.length),
      (count) => count > 0,
    );
    await client.mutation(add, { text: "own", stars: 150 });
    expect(seen.at(-1)).toBe(1);
  });

  test("is told what others write, and not what it does not read", async () => {
    const client = connect();
    const seen: string[][] = [];
    client.onUpdate(withStars, { from: 300, to: 400 }, (texts) => void seen.push(texts));
    await eventually(
      () => Promise.resolve(seen.length),
      (count) => count > 0,
    );
    await backend.call("mutation", "notes:add", { text: "elsewhere", stars: 1000 });
    await backend.call("mutation", "notes:add", { text: "here", stars: 350 });
    await eventually(
      () => Promise.resolve(seen.length),
      (count) => count > 1,
    );
    expect(seen).toEqual([[], ["here"]]);
  });

  test("gets ConvexErrors with their data, structured and text, and plain errors", async () => {
    const client = connect();
    for (const data of [{ code: "x", list: [1n] }, "just text"]) {
      const error = await client.mutation(refuse, { data }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ConvexError);
      expect((error as ConvexError<string>).data).toEqual(data);
    }
    await expect(client.mutation(crash, {})).rejects.toThrow("broken on purpose");
    await expect(client.query(makeFunctionReference<"query">("no:where"), {})).rejects.toThrow(
      "Could not find",
    );
  });

  test("finishes every mutation exactly once, in order, when the backend is killed amid them", async () => {
    const folder = temporaryFolder();
    const first = await startBackend(folder);
    const { port } = new URL(first.url);
    const client = new ConvexClient(first.url);
    clients.push(client);
    const sent = Array.from({ length: 1000 }, (_, number) => `m${number}`);
    let answered = 0;
    const mutations = sent.map((text) => client.mutation(add, { text }).then(() => answered++));
    await Promise.race(mutations);
    await first.end("SIGKILL");
    expect(answered).toBeLessThan(sent.length);
    const second = await startBackend(folder, undefined, Number(port));
    await Promise.all(mutations);
    const notes = (await second.call("query", "notes:list")).value as { text: string }[];
    expect(notes.map(({ text }) => text)).toEqual(sent);
    await client.close();
    await second.end();
  });

  test("shows an optimistic result until the real one is there, and never goes back", async () => {
    const client = connect();
    const from = { from: 700, to: 800 };
    const seen: string[][] = [];
    client.onUpdate(withStars, from, (texts) => void seen.push(texts));
    await eventually(
      () => Promise.resolve(seen.length),
      (count) => count > 0,
    );
    const send = (text: string): Promise<unknown> =>
      client.mutation(
        add,
        { text, stars: 750 },
        {
          optimisticUpdate: (store) => {
            const texts = store.getQuery(withStars, from) ?? [];
            store.setQuery(withStars, from, [...texts, `${text}?`]);
          },
        },
      );
    await Promise.all(["a", "b", "c"].map(send));
    expect(seen.at(-1)).toEqual(["a", "b", "c"]);
    const lengths = seen.map((texts) => texts.length);
    expect(lengths).toEqual([...lengths].sort((left, right) => left - right));
    expect(seen).toContainEqual(["a?", "b?", "c?"]);
  });
});

describe("the protocol", () => {
  test("is answered with a Ping at once", async () => {
    const client = await peer();
    expect((await client.wait("Ping"))[0]).toEqual({ type: "Ping" });
  });

  test("sends a Transition after every answer to a mutation, failed ones too, without gaps in the versions", async () => {
    const client = await peer();
    client.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [] });
    await client.wait("Transition");
    for (const [requestId, udfPath] of ["notes:add", "notes:refuse", "no:where"].entries()) {
      client.send({ type: "Mutation", requestId, udfPath, args: [requestId === 0 ? { text: "t" } : {}] });
      await client.wait("Transition", requestId + 2);
    }
    const answers = client.messages.filter(
      ({ type }) => type === "MutationResponse" || type === "Transition",
    );
    expect(answers.map(({ type }) => type).slice(1)).toEqual(
      Array.from({ length: 3 }, () => ["MutationResponse", "Transition"]).flat(),
    );
    expect(client.of("MutationResponse").map(({ success }) => success)).toEqual([true, false, false]);
    const transitions = client.of("Transition");
    transitions.slice(1).forEach((transition, position) => {
      expect(transition.startVersion).toEqual(transitions[position]?.endVersion);
    });
  });

  test("runs a repeated request of a session once, and gives the same answer again", async () => {
    const session = crypto.randomUUID();
    const mutation = { type: "Mutation", requestId: 7, udfPath: "notes:add", args: [{ text: "once only" }] };
    const answers: unknown[] = [];
    for (let attempt = 0; attempt < 2; attempt++) {
      const client = await peer(session);
      client.send(mutation);
      answers.push((await client.wait("MutationResponse"))[0]);
    }
    expect(answers[1]).toEqual(answers[0]);
    const notes = (await backend.call("query", "notes:list")).value as { text: string }[];
    expect(notes.filter(({ text }) => text === "once only").length).toBe(1);
  });

  test("opens internal functions to the admin key, closes on a wrong one", async () => {
    const client = await peer();
    const internal = { type: "Mutation", requestId: 0, udfPath: "notes:addInternal", args: [{ text: "i" }] };
    client.send({ type: "Authenticate", baseVersion: 0, tokenType: "Admin", value: backend.adminKey });
    client.send(internal);
    expect((await client.wait("MutationResponse"))[0]).toMatchObject({ success: true });
    client.send({ type: "Authenticate", baseVersion: 1, tokenType: "Admin", value: "wrong" });
    expect((await client.wait("AuthError"))[0]).toMatchObject({ baseVersion: 1, authUpdateAttempted: true });
    await client.closed;
  });

  test("ends with a FatalError on a version that does not fit", async () => {
    const client = await peer();
    client.send({ type: "ModifyQuerySet", baseVersion: 5, newVersion: 6, modifications: [] });
    expect((await client.wait("FatalError"))[0]?.error).toContain("Base version 5");
    await client.closed;
  });

  test("tells the subscriber of a query that never ends so, once, and serves the others on", async () => {
    const client = await peer();
    const modifications = [{ type: "Add", queryId: 0, udfPath: "runtime:endlessQuery", args: [{}] }];
    client.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications } as Message);
    const [transition] = await client.wait("Transition");
    expect(JSON.stringify(transition)).toContain("execution timed out (maximum duration: 1s)");
    expect((await backend.call("mutation", "notes:add", { text: "go on" })).status).toBe("success");
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(client.of("Transition").length).toBe(1);
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "null"],
    ["an unknown type", '{"type":"Nothing"}'],
    ["no list of modifications", '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1}'],
    [
      "a timestamp of another century",
      '{"type":"Connect","sessionId":"s","maxObservedTimestamp":"/////////38="}',
    ],
  ])("ends for a client that sends %s, and for nobody else", async (_name, text) => {
    const other = await peer();
    const client = await peer();
    client.socket.send(text);
    expect((await client.wait("FatalError")).length).toBe(1);
    await client.closed;
    other.send({ type: "Mutation", requestId: 0, udfPath: "notes:add", args: [{ text: "alive" }] });
    expect((await other.wait("MutationResponse"))[0]).toMatchObject({ success: true });
  });

  test("is not spoken elsewhere, nor to strangers' names", async () => {
    for (const [path, headers] of [
      ["/api/nothing", {}],
      ["/api/sync", { host: "evil.example" }],
    ] as const) {
      const socket = new WebSocket(backend.url.replace("http", "ws") + path, { headers });
      const error = await new Promise<Error>((resolve) => socket.once("error", resolve));
      expect(error.message).toMatch(/40[34]/);
    }
  });
});
