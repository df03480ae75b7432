/**
 * Starts the backend:
 *
 *     node main.ts --functions DIR_OR_BUNDLE --data DIR --port N --site-port N --admin-key-file F [--host 127.0.0.1]
 *
 * When it answers, one line of JSON on stdout says where: {url, siteUrl, pid, functionsHash, version}. Failures are one line
 * on stderr; exit 2 for settings (arguments, a taken port or folder, functions or data that do not fit), else 1.
 * SIGTERM and SIGINT finish the batch in hand and exit 0; a second one ends the process at once, which costs no data.
 *
 *     node main.ts --check --data DIR
 *
 * looks whether the data is whole (check.ts) and changes nothing: one line of JSON on stdout, exit 0 or 1.
 */
import { existsSync } from "node:fs";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { BundleError, hashOf, loadBundle } from "./bundler.ts";
import { callFromAction } from "./calls.ts";
import { checkFile } from "./check.ts";
import { Duties } from "./duties.ts";
import { FolderTaken, readAdminKey, takeFolder } from "./folder.ts";
import { checkHost, urlOf as requestUrl } from "./access.ts";
import { Host } from "./host.ts";
import { answerApi, fail, infoOf, type Api } from "./http.ts";
import { Reloader } from "./reload.ts";
import { answerSite } from "./site.ts";
import { SyncServer } from "./sync.ts";
import { VERSION } from "./version.ts";

const MAX_PORT = 65_535;
/** Kept-alive connections without a request are closed after this, ms: longer than any client's pause between calls. */
const KEEP_ALIVE_MS = 75_000;

const USAGE = `The local backend: runs a convex/ folder on one SQLite file.

  main.ts --functions DIR_OR_BUNDLE --data DIR --port N --site-port N --admin-key-file F [--host 127.0.0.1] [--watch]
  main.ts --check --data DIR

  --functions DIR_OR_BUNDLE  a convex folder, or a ready bundle of one
  --data DIR                 where the data is; one process at a time
  --port N, --site-port N    of the API and of the HTTP actions; 0 for any free one
  --admin-key-file F         the file's first line is the key; made when there is none
  --host ADDRESS             where to listen (default 127.0.0.1)
  --watch                    take changes of the functions up as they are saved; what cannot be used is told on stderr
  --check                    look whether the data is whole, without changing it: one line of JSON, exit 0 if it is, 1 if not
  --help                     this text
`;

/** Settings that cannot be used. */
class SettingsProblem extends Error {}

type Settings = {
  action: "serve";
  functions: string;
  data: string;
  port: number;
  sitePort: number;
  adminKeyFile: string;
  host: string;
  watch: boolean;
};

function readSettings(args: string[]): Settings | { action: "check"; data: string } | { action: "help" } {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  const names = {
    check: flag,
    help: flag,
    watch: flag,
    functions: text,
    data: text,
    port: text,
    "site-port": text,
    "admin-key-file": text,
    host: text,
  };
  let values: ReturnType<typeof parseArgs<{ options: typeof names }>>["values"];
  try {
    ({ values } = parseArgs({ args, options: names, allowPositionals: false }));
  } catch (error) {
    throw new SettingsProblem((error as Error).message);
  }
  const need = (name: Exclude<keyof typeof names, "check" | "help" | "watch">): string => {
    const value = values[name];
    if (value === undefined || value === "") throw new SettingsProblem(`--${name} is missing`);
    return value;
  };
  const port = (name: "port" | "site-port"): number => {
    const number = Number(need(name));
    if (!Number.isInteger(number) || number < 0 || number > MAX_PORT) {
      throw new SettingsProblem(`--${name} must be a port from 0 to ${MAX_PORT}, not ${need(name)}`);
    }
    return number;
  };
  if (values.help) return { action: "help" };
  if (values.check) return { action: "check", data: resolve(need("data")) };
  return {
    action: "serve",
    functions: resolve(need("functions")),
    data: resolve(need("data")),
    port: port("port"),
    sitePort: port("site-port"),
    adminKeyFile: resolve(need("admin-key-file")),
    host: values.host ?? "127.0.0.1",
    watch: values.watch ?? false,
  };
}

function listen(port: number, host: string, listener: RequestListener): Promise<Server> {
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true }, listener);
  return new Promise((done, failed) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const reason = error.code === "EADDRINUSE" ? "is taken" : `cannot be used (${error.message})`;
      failed(new SettingsProblem(`port ${port} on ${host} ${reason}`));
    });
    server.listen(port, host, () => done(server));
  });
}

function addressOf(server: Server, host: string): string {
  const name = host.includes(":") ? `[${host}]` : host;
  return `http://${name}:${(server.address() as AddressInfo).port}`;
}

function dataFile(folder: string): string {
  return join(folder, "data.sqlite3");
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

function say(problem: string): void {
  process.stderr.write(`heartbeat-backend: ${problem.replaceAll("\n", " ")}\n`);
}

function check(folder: string): void {
  const file = dataFile(folder);
  if (!existsSync(file)) throw new SettingsProblem(`there is no data in ${folder}`);
  process.once("exit", takeFolder(folder));
  const report = checkFile(file);
  process.stdout.write(`${JSON.stringify(report)}\n`);
  process.exitCode = report.ok ? 0 : 1;
}

async function serve(settings: Settings): Promise<void> {
  const release = takeFolder(settings.data);
  process.once("exit", release);
  const adminKey = readAdminKey(settings.adminKeyFile);
  const bundle = await loadBundle(settings.functions);
  const loopback = isLoopback(settings.host);
  let api: Api | null = null;
  const starting = "the backend is starting";
  const server = await listen(settings.port, settings.host, (request, response) => {
    if (api === null) response.writeHead(503).end(starting);
    else void answerApi(api, request, response);
  });
  const site = await listen(settings.sitePort, settings.host, (request, response) => {
    if (api === null) {
      response.writeHead(503).end(starting);
      return;
    }
    try {
      if (loopback) checkHost(request);
      void answerSite(api.host, request, response, requestUrl(request).pathname, infoOf(request));
    } catch (error) {
      fail(response, error);
    }
  });
  const [url, siteUrl] = [addressOf(server, settings.host), addressOf(site, settings.host)];
  const env = { CONVEX_CLOUD_URL: url, CONVEX_SITE_URL: siteUrl };
  const host: Host = new Host(
    { bundle, file: dataFile(settings.data), env },
    {
      committed: (touched) => sync.committed(touched),
      nextDue: (at) => duties.wakeAt(at),
      replaced: () => sync.readSetsLost(),
      called: (target) => callFromAction(host, target),
      broken: (message) => {
        say(message);
        process.exit(1);
      },
    },
  );
  const duties = new Duties(host);
  const sync = new SyncServer(host, adminKey, loopback);
  await host.start().catch((error: unknown) => {
    throw new SettingsProblem((error as Error).message);
  });
  api = { host, adminKey, loopback };
  sync.attach(server);
  duties.start();
  const reloader = settings.watch ? new Reloader(settings.functions, bundle, host, say) : null;
  reloader?.start();
  const stop = (): void => {
    reloader?.stop();
    duties.stop();
    sync.stop();
    server.close();
    site.close();
    void host.stop().then(() => process.exit(0));
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
  const ready = { url, siteUrl, pid: process.pid, functionsHash: hashOf(bundle), version: VERSION };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
}

// what cannot be logged, on a full disk say, must not end the process
process.stderr.on("error", () => undefined);
try {
  const settings = readSettings(process.argv.slice(2));
  if (settings.action === "help") process.stdout.write(USAGE);
  else if (settings.action === "check") check(settings.data);
  else await serve(settings);
} catch (error) {
  say((error as Error).message);
  const settingsFault =
    error instanceof SettingsProblem || error instanceof BundleError || error instanceof FolderTaken;
  process.exit(settingsFault ? 2 : 1);
}
