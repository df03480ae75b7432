/** Who is let in: names, origins, keys, files. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer, request, type IncomingMessage } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { WebSocket } from "ws";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fail } from "../../backend/http.ts";
import { ledgerBundle } from "./ledger.ts";
import {
  argumentsFor,
  atTheEnd,
  eventually,
  runToEnd,
  startBackend,
  temporaryFolder,
  type Backend,
} from "./server.ts";

let bundle: string;
let backend: Backend;
/** Listens on all addresses, and lets the pages of one site in. */
let open: Backend;
const SITE = "https://team.example";
beforeAll(async () => {
  bundle = await ledgerBundle();
  [backend, open] = await Promise.all([
    startBackend(temporaryFolder(), bundle),
    startBackend(temporaryFolder(), bundle, 0, ["--host", "0.0.0.0", "--origin", `${SITE}/`]),
  ]);
});
afterAll(() => Promise.all([backend.end(), open.end()]));

type Headers = Record<string, string>;

/** Asks at an address of this machine, under whatever name. */
function ask(
  port: string,
  headers: Headers,
  address = "127.0.0.1",
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const take = (response: IncomingMessage): void => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("end", () => resolve({ status: response.statusCode as number, text }));
    };
    request({ host: address, port, path: "/version", headers }, take).once("error", reject).end();
  });
}

/** Shakes hands. @returns 101, or the status of the refusal. */
function shakeHands(port: string, headers: Headers): Promise<number> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/api/sync`, { headers });
  return new Promise((resolve) => {
    socket.on("error", () => undefined);
    socket.once("unexpected-response", (_request, response) => resolve(response.statusCode ?? 0));
    socket.once("open", () => {
      socket.close();
      resolve(101);
    });
  });
}

const ports = (of: Backend): string[] => [new URL(of.url).port, new URL(of.siteUrl).port];
/** An address of this machine that is not loopback; none on a machine without a network. */
const outside = Object.values(networkInterfaces())
  .flat()
  .find((address) => address?.family === "IPv4" && !address.internal)?.address;

describe("a name", () => {
  test.each([
    "localhost",
    "LOCALHOST:1",
    "localhost.",
    "127.0.0.1",
    "127.1.2.3:80",
    "[::1]:5",
    "app.localhost:3000",
  ])("of this machine, %s, is answered on both ports and on the handshake", async (host) => {
    const [api = "", site = ""] = ports(backend);
    expect((await ask(api, { host })).status).toBe(200);
    expect((await ask(site, { host })).status).toBe(404);
    expect(await shakeHands(api, { host })).toBe(101);
  });

  test.each([
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example:80",
    "0",
    "[::1",
    "10.1.2.3",
    hostname(),
  ])("of another, %j, gets one plain refusal everywhere", async (host) => {
    const [api = "", site = ""] = ports(backend);
    const refusal = await ask(api, { host });
    expect([refusal.status, (JSON.parse(refusal.text) as { code: string }).code]).toEqual([403, "BadHost"]);
    expect(await ask(site, { host })).toEqual(refusal);
    expect(await shakeHands(api, { host })).toBe(403);
    expect(await shakeHands(site, { host })).toBe(403);
    if (host !== "0") expect(refusal.text).not.toContain(host);
  });

  test.runIf(outside)(
    "of a server on all addresses is also the one that was called, and the machine's own",
    async () => {
      const [api = ""] = ports(open);
      for (const host of [`${outside}:${api}`, hostname(), "0.0.0.0", "localhost"]) {
        expect([host, (await ask(api, { host }, outside)).status]).toEqual([host, 200]);
      }
      for (const host of ["evil.example", "10.255.255.1"]) {
        expect([host, (await ask(api, { host }, outside)).status]).toEqual([host, 403]);
      }
      // which was not called
      expect((await ask(api, { host: outside as string })).status).toBe(403);
    },
  );

  test("is missing in a request of HTTP 1.0: refused", async () => {
    const { port } = new URL(backend.url);
    const text = await new Promise<string>((resolve) => {
      const socket = connect(Number(port), "127.0.0.1", () => socket.write("GET /version HTTP/1.0\r\n\r\n"));
      socket.once("data", (data: Buffer) => resolve(data.toString()));
    });
    expect(text).toContain("403 Forbidden");
  });
});

describe("a page", () => {
  test.each([
    "http://localhost:5173",
    "https://127.0.0.1",
    "http://[::1]:1",
    "http://app.localhost:80",
    "tauri://localhost",
  ])("of this machine, %s, may call", async (origin) => {
    const [api = "", site = ""] = ports(backend);
    expect((await ask(api, { origin })).status).toBe(200);
    expect((await ask(site, { origin })).status).toBe(404);
    expect(await shakeHands(api, { origin })).toBe(101);
  });

  test.each([
    SITE,
    "http://evil.example",
    "http://localhost.evil.example",
    "http://localhost@evil.example",
    "null",
    "",
    "x",
  ])(
    "of another, %j, may not, on no way in, and is told by no header that it may read the answer",
    async (origin) => {
      const [api = "", site = ""] = ports(backend);
      for (const port of [api, site]) {
        const refusal = await ask(port, { origin });
        expect([refusal.status, (JSON.parse(refusal.text) as { code: string }).code]).toEqual([
          403,
          "BadOrigin",
        ]);
      }
      expect(await shakeHands(api, { origin })).toBe(403);
      const preflight = await fetch(`${backend.url}/api/query`, { method: "OPTIONS", headers: { origin } });
      expect([preflight.status, preflight.headers.get("access-control-allow-origin")]).toEqual([403, null]);
    },
  );

  test("of a site that --origin names may call, and no other", async () => {
    const [api = ""] = ports(open);
    const call = await fetch(`${open.url.replace("0.0.0.0", "127.0.0.1")}/api/query`, {
      method: "OPTIONS",
      headers: { origin: SITE },
    });
    expect([call.status, call.headers.get("access-control-allow-origin")]).toEqual([204, SITE]);
    expect(await shakeHands(api, { origin: SITE })).toBe(101);
    for (const origin of ["http://team.example", "https://other.example", `${SITE}.evil.example`, "null"]) {
      expect([origin, await shakeHands(api, { origin })]).toEqual([origin, 403]);
    }
  });
});

describe("what goes wrong is told", () => {
  test("on stderr when others can connect, and not when nobody can", () => {
    expect(open.log()).toContain(
      "heartbeat-backend: --host 0.0.0.0: every machine that reaches this one may call",
    );
    expect(open.log()).toContain("nothing is encrypted");
    expect(backend.log()).toBe("");
  });

  test("on stderr, not to the caller, when it is our own failure", async () => {
    const secret = "ENOENT: no such file, open '/home/somebody/secret'";
    const server = createServer((_request, response) => fail(response, new Error(secret))).listen(
      0,
      "127.0.0.1",
    );
    atTheEnd(() => server.close());
    await new Promise((resolve) => server.once("listening", resolve));
    const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    const { code, message } = (await response.json()) as { code: string; message: string };
    expect([response.status, code]).toEqual([500, "InternalServerError"]);
    expect(message).toMatch(
      /^\[Request ID: [0-9a-f]{16}\] The backend could not do this; its log says why\.$/,
    );
  });

  test("without the admin key, which neither an answer nor the log ever shows", async () => {
    const key = backend.adminKey;
    for (const given of [
      key.slice(1),
      `${key}0`,
      key.toUpperCase() === key ? "x" : key.toUpperCase(),
      "",
      `${key} `,
    ]) {
      const response = await fetch(
        `${backend.url}/api/function?adminKey=${encodeURIComponent(given)}&x=${key}`,
        {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: "{}",
        },
      );
      expect([given, response.status]).toEqual([given, 403]);
      expect(await response.text()).not.toContain(key.slice(0, 8));
    }
    await fetch(`${backend.url}/nowhere?adminKey=${key}`).then(async (response) =>
      expect(await response.text()).not.toContain(key),
    );
    expect(backend.log()).not.toContain(key);
  });
});

describe("the files", () => {
  const modes = (folder: string): [string, string][] =>
    readdirSync(folder).map((name) => [name, (statSync(join(folder, name)).mode & 0o777).toString(8)]);

  test("are for their owner alone, also in a folder that others may read, and those that were not become so", async () => {
    const folder = temporaryFolder();
    const data = join(folder, "db");
    mkdirSync(data);
    chmodSync(data, 0o755);
    const first = await startBackend(folder, bundle);
    await first.call("mutation", "moves:transfer", { key: "k", from: "a", to: "b", amount: 1 });
    await first.end("SIGKILL");
    expect(modes(data).filter(([, mode]) => mode !== "600")).toEqual([]);
    for (const name of readdirSync(data)) chmodSync(join(data, name), 0o644);
    const second = await startBackend(folder, bundle);
    expect(modes(data).filter(([, mode]) => mode !== "600")).toEqual([]);
    expect(statSync(join(folder, "admin-key")).mode & 0o777).toBe(0o600);
    await second.end();
  });

  test("that hold a key which others can read are named, with the command", async () => {
    const folder = temporaryFolder();
    const key = join(folder, "admin-key");
    writeFileSync(key, "0123456789\n");
    chmodSync(key, 0o640);
    const started = await startBackend(folder, bundle);
    const said = `heartbeat-backend: other users can read the admin key: chmod 600 '${key}'\n`;
    expect(
      await eventually(
        () => Promise.resolve(started.log()),
        (log) => log !== "",
      ),
    ).toBe(said);
    await started.end();
  });

  test("of another program are left alone", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "db"));
    const file = join(folder, "db", "data.sqlite3");
    const db = new DatabaseSync(file);
    db.exec("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)");
    db.close();
    const before = readFileSync(file);
    const refused = await runToEnd(argumentsFor(folder, bundle));
    expect([refused.code, refused.stderr]).toEqual([
      2,
      `heartbeat-backend: ${file} is a database of another program; nothing in it was changed\n`,
    ]);
    // but for the write-ahead log, which is switched on before anything is read
    const after = new DatabaseSync(file, { readOnly: true });
    expect(after.prepare("SELECT name FROM sqlite_master").all()).toEqual([{ name: "theirs" }]);
    after.close();
    expect(readFileSync(file).length).toBe(before.length);
  });

  test("that are no folder, or no key, end the start with a sentence", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "db"), "");
    const refused = await runToEnd(argumentsFor(folder, bundle));
    expect([refused.code, refused.stderr]).toEqual([
      2,
      expect.stringContaining(`${join(folder, "db")} cannot be used as the data folder: `),
    ]);
    const other = temporaryFolder();
    mkdirSync(join(other, "admin-key"));
    const without = await runToEnd(argumentsFor(other, bundle));
    expect([without.code, without.stderr]).toEqual([
      2,
      expect.stringContaining(`the admin key file ${join(other, "admin-key")} cannot be used: `),
    ]);
    expect(existsSync(join(other, "db", "pid"))).toBe(false);
  });
});
