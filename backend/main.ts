/**
 * Starts the backend:
 *
 *     node main.ts --functions DIR_OR_BUNDLE --data DIR --port N --site-port N --admin-key-file F [--host A] [--origin O …]
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
import type { RequestListener, Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { BundleError, hashOf, loadBundle } from "./bundler.ts";
import { callFromAction } from "./calls.ts";
import { checkFile } from "./check.ts";
import { Duties } from "./duties.ts";
import { FolderProblem, othersMayRead, readAdminKey, takeFolder } from "./folder.ts";
import { Gate, isLoopback, urlOf as requestUrl } from "./access.ts";
import { Host } from "./host.ts";
import { answerApi, fail, infoOf, type Api } from "./http.ts";
import { listen } from "./listen.ts";
import { Reloader } from "./reload.ts";
import { answerSite } from "./site.ts";
import { SyncServer } from "./sync.ts";
import { VERSION } from "./version.ts";

const MAX_PORT = 65_535;
/** Whatever this process makes is for its user alone. */
const PRIVATE_UMASK = 0o077;

const USAGE = `The local backend: runs a convex/ folder on one SQLite file.

  main.ts --functions DIR_OR_BUNDLE --data DIR --port N --site-port N --admin-key-file F [--host A] [--origin O …] [--watch]
  main.ts --check --data DIR

  --functions DIR_OR_BUNDLE  a convex folder, or a ready bundle of one
  --data DIR                 where the data is; one process at a time
  --port N, --site-port N    of the API and of the HTTP actions; 0 for any free one
  --admin-key-file F         the file's first line is the key; made when there is none
  --host ADDRESS             where to listen (default 127.0.0.1: only this machine can connect)
  --origin ORIGIN            let pages of another machine call, such as https://team.example; '*' lets all; may be repeated
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
  origins: string[];
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
    origin: { type: "string", multiple: true } as const,
  };
  let values: ReturnType<typeof parseArgs<{ options: typeof names }>>["values"];
  try {
    ({ values } = parseArgs({ args, options: names, allowPositionals: false }));
  } catch (error) {
    throw new SettingsProblem((error as Error).message);
  }
  const need = (name: Exclude<keyof typeof names, "check" | "help" | "watch" | "origin">): string => {
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
    origins: values.origin ?? [],
    watch: values.watch ?? false,
  };
}

/** A server on a port of the settings. */
function open(
  port: number,
  settings: Settings,
  webSockets: boolean,
  listener: RequestListener,
): Promise<Server> {
  return listen(port, settings.host, webSockets, listener).catch((error: unknown) => {
    throw new SettingsProblem((error as Error).message);
  });
}

function addressOf(server: Server, host: string): string {
  const name = host.includes(":") ? `[${host}]` : host;
  return `http://${name}:${(server.address() as AddressInfo).port}`;
}

function dataFile(folder: string): string {
  return join(folder, "data.sqlite3");
}

function say(problem: string): void {
  process.stderr.write(`heartbeat-backend: ${problem.replaceAll("\n", " ")}\n`);
}

/** Tells what the settings open to others. */
function warn(settings: Settings): void {
  const { host, adminKeyFile } = settings;
  if (!isLoopback(host)) {
    say(
      `--host ${host}: every machine that reaches this one may call the public functions, and whoever listens on the way reads ` +
        "along, tokens and the admin key too: nothing is encrypted. Without --host only this machine can connect.",
    );
  }
  if (othersMayRead(adminKeyFile)) {
    say(`other users can read the admin key: chmod 600 '${adminKeyFile}'`);
  }
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
  warn(settings);
  const bundle = await loadBundle(settings.functions);
  const gate = new Gate(settings.host, settings.origins);
  let api: Api | null = null;
  const starting = "the backend is starting";
  const server = await open(settings.port, settings, true, (request, response) => {
    if (api === null) response.writeHead(503).end(starting);
    else void answerApi(api, request, response);
  });
  const site = await open(settings.sitePort, settings, false, (request, response) => {
    if (api === null) {
      response.writeHead(503).end(starting);
      return;
    }
    try {
      gate.admit(request);
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
  const sync = new SyncServer(host, adminKey, gate);
  await host.start().catch((error: unknown) => {
    throw new SettingsProblem((error as Error).message);
  });
  api = { host, adminKey, gate };
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

process.umask(PRIVATE_UMASK);
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
    error instanceof SettingsProblem || error instanceof BundleError || error instanceof FolderProblem;
  process.exit(settingsFault ? 2 : 1);
}
