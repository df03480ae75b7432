/** Subscriptions: when their queries run, and what is sent to whom. What ran is told by the lines that the functions log. */
import { ConvexClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Peer } from "./peer.ts";
import { eventually, runsOf, startBackend, type Backend } from "./server.ts";

type Modification = { type: string; queryId: number; value?: unknown; errorMessage?: string };

const first = makeFunctionReference<"query", { list: string; count: number }, number[]>("rows:first");
const add = makeFunctionReference<"mutation", { list: string; number: number }>("rows:add");
/** A shared query runs again at most this often, ms (backend/watches.ts). */
const RERUN_EVERY_MS = 250;

let backend: Backend;
const open: { close: () => unknown }[] = [];
beforeAll(async () => {
  backend = await startBackend();
});
afterEach(async () => {
  for (const connection of open.splice(0)) await connection.close();
});
afterAll(() => backend.end());

async function connect(): Promise<Peer> {
  const peer = await Peer.connect(backend.url, crypto.randomUUID());
  open.push({ close: () => peer.socket.terminate() });
  return peer;
}

/** Subscribes to one query each, as the first thing of the connection. */
function subscribe(peer: Peer, udfPath: string, args: object): Promise<unknown> {
  const modifications = [{ type: "Add", queryId: 0, udfPath, args: [args] }];
  peer.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications });
  return peer.wait("Transition");
}

function updates(peer: Peer): Modification[] {
  return peer.of("Transition").flatMap(({ modifications }) => modifications as Modification[]);
}

function write(list: string, number: number): Promise<unknown> {
  return backend.call("mutation", "rows:add", { list, number });
}

function runs(line: string): Promise<number> {
  return runsOf(backend, line);
}

describe("a subscribed query", () => {
  test("runs once for all who ask the same, and its change goes to each of them", async () => {
    const peers = await Promise.all([0, 1, 2, 3, 4].map(connect));
    await Promise.all(peers.map((peer) => subscribe(peer, "rows:first", { list: "shared", count: 3 })));
    expect(await runs("first of shared")).toBe(1);
    await write("shared", 1);
    for (const peer of peers) {
      await eventually(
        () => Promise.resolve(updates(peer)),
        (found) => found.length > 1,
      );
      expect(updates(peer).map(({ value }) => value)).toEqual([[], [1]]);
    }
    expect(await runs("first of shared")).toBe(2);
  });

  test("runs apart for other arguments, and for another identity", async () => {
    const [anybody, other, admin] = [await connect(), await connect(), await connect()];
    admin.send({ type: "Authenticate", baseVersion: 0, tokenType: "Admin", value: backend.adminKey });
    await subscribe(anybody, "rows:first", { list: "apart", count: 1 });
    await subscribe(other, "rows:first", { list: "apart", count: 2 });
    await subscribe(admin, "rows:first", { list: "apart", count: 1 });
    expect(await runs("first of apart")).toBe(3);
  });

  test("does not run for writes elsewhere, and is not run for a newcomer either", async () => {
    const peer = await connect();
    await subscribe(peer, "rows:first", { list: "quiet", count: 3 });
    await write("elsewhere", 1);
    await backend.call("mutation", "notes:add", { text: "another table" });
    const newcomer = await connect();
    await subscribe(newcomer, "rows:first", { list: "quiet", count: 3 });
    expect(updates(newcomer).map(({ value }) => value)).toEqual([[]]);
    expect(await runs("first of quiet")).toBe(1);
    expect(peer.of("Transition").length).toBe(1);
  });

  test("that runs again without another result sends nothing", async () => {
    const peer = await connect();
    await write("some", 1);
    await subscribe(peer, "rows:some", { list: "some" });
    await write("some", 2);
    await eventually(
      () => runs("some of some"),
      (count) => count > 1,
    );
    expect(await runs("some of some")).toBe(2);
    expect(peer.of("Transition").length).toBe(1);
  });

  test("that fails says so, and recovers when its data does", async () => {
    const peer = await connect();
    await subscribe(peer, "rows:atMostOne", { list: "one" });
    await write("one", 1);
    await write("one", 2);
    const failed = await eventually(
      () => Promise.resolve(updates(peer)),
      (found) => found.at(-1)?.type === "QueryFailed",
    );
    expect(failed.at(-1)?.errorMessage).toContain("unique() query returned more than one result");
    await backend.call("mutation", "rows:remove", { list: "one", number: 1 });
    const recovered = await eventually(
      () => Promise.resolve(updates(peer)),
      (found) => found.at(-1)?.type === "QueryUpdated",
    );
    expect(recovered.at(-1)?.value).toBe(2);
  });

  test("runs a few times under many writes, and ends at the last one", async () => {
    const peer = await connect();
    await subscribe(peer, "rows:first", { list: "busy", count: 1000 });
    const startedAt = Date.now();
    for (let number = 0; number < 300; number++) await write("busy", number);
    await eventually(
      () => Promise.resolve(updates(peer).at(-1)?.value as number[]),
      (numbers) => numbers.length === 300,
    );
    const most = 2 + (Date.now() - startedAt) / RERUN_EVERY_MS;
    expect(await runs("first of busy")).toBeLessThanOrEqual(most);
    expect(updates(peer).at(-1)?.value).toEqual(Array.from({ length: 300 }, (_, number) => number));
  });

  test("is up to date at once for who has written: its mutation resolves with the result in hand", async () => {
    const client = new ConvexClient(backend.url);
    open.push(client);
    let shown: number[] = [];
    client.onUpdate(first, { list: "own", count: 100 }, (numbers) => (shown = numbers));
    const startedAt = Date.now();
    for (let number = 0; number < 20; number++) {
      await client.mutation(add, { list: "own", number });
      expect(shown).toEqual(Array.from({ length: number + 1 }, (_, position) => position));
    }
    // whoever had to wait for the others' pause each time would need 5 s
    expect(Date.now() - startedAt).toBeLessThan((20 * RERUN_EVERY_MS) / 2);
  });

  test("of a function that is not there, or not public, fails and is not asked again", async () => {
    const peer = await connect();
    await subscribe(peer, "rows:nothing", {});
    expect(updates(peer)[0]?.errorMessage).toContain("Could not find public function for 'rows:nothing'");
  });
});

describe("a connection", () => {
  test("gets the changes of one commit in one Transition", async () => {
    const peer = await connect();
    const modifications = [1, 2, 3].map((count) => ({
      ...{ type: "Add", queryId: count, udfPath: "rows:first", args: [{ list: "together", count }] },
    }));
    peer.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications });
    await peer.wait("Transition");
    await write("together", 1);
    await peer.wait("Transition", 2);
    expect(peer.of("Transition").map(({ modifications: found }) => (found as unknown[]).length)).toEqual([
      3, 3,
    ]);
  });

  test("is told that a query was removed, and nothing of it afterwards", async () => {
    const peer = await connect();
    await subscribe(peer, "rows:first", { list: "gone", count: 1 });
    const removal = [{ type: "Remove", queryId: 0 }];
    peer.send({ type: "ModifyQuerySet", baseVersion: 1, newVersion: 2, modifications: removal });
    await peer.wait("Transition", 2);
    expect(updates(peer).at(-1)).toEqual({ type: "QueryRemoved", queryId: 0 });
    await write("gone", 1);
    expect(await runs("first of gone")).toBe(1);
  });

  test("asks all its queries anew when it becomes somebody else", async () => {
    const peer = await connect();
    await subscribe(peer, "notes:secret", {});
    expect(updates(peer)[0]?.type).toBe("QueryFailed");
    peer.send({ type: "Authenticate", baseVersion: 0, tokenType: "Admin", value: backend.adminKey });
    await peer.wait("Transition", 2);
    expect(updates(peer).at(-1)).toMatchObject({ type: "QueryUpdated", value: "for the admin" });
    peer.send({ type: "Authenticate", baseVersion: 1, tokenType: "None" });
    await peer.wait("Transition", 3);
    expect(updates(peer).at(-1)?.type).toBe("QueryFailed");
  });

  test("gets a large result whole, beside others", async () => {
    const peer = await connect();
    const value = "é".repeat(100_000);
    const modifications = ["small", value, "smaller"].map((text, queryId) => ({
      ...{ type: "Add", queryId, udfPath: "values:echo", args: [{ value: text }] },
    }));
    peer.send({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications });
    await peer.wait("Transition");
    expect(updates(peer).map((update) => update.value)).toEqual(["small", value, "smaller"]);
  });
});
