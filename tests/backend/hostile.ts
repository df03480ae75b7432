/** What no client sends: JSON texts, requests, frames and messages, made from a seed. */
import { oneOf, type Random } from "./random.ts";

const DEEP = [100, 3000, 200_000];
/** Numbers at the edges, as they stand in a JSON text. */
const NUMBERS = [
  "0",
  "-0",
  "1e308",
  "1e999",
  "-1e999",
  "9007199254740993",
  "4294967296",
  "-1",
  "0.1",
  "5e-324",
  "1E400",
];
const NAMES = [
  "__proto__",
  "constructor",
  "toString",
  "$integer",
  "$float",
  "$bytes",
  "$commitTs",
  "_id",
  "a",
  "",
  "é",
  "\\u0000",
];
const BASE64 = ["", "AAAAAAAAAAA=", "AAAAAAAA+H8=", "!", "AA", "/////////38="];
const TEXTS = [
  '""',
  '"\\u0000"',
  '"\\ud800"',
  '"\\udfff\\ud83d"',
  '"😀"',
  '"__proto__"',
  '"x"',
  '"../../etc/passwd"',
];

/** A JSON text, often a broken one. */
export function jsonText(random: Random, depth = 4): string {
  switch (random(depth > 0 ? 10 : 5)) {
    case 0:
      return oneOf(random, NUMBERS);
    case 1:
      return oneOf(random, TEXTS);
    case 2:
      return oneOf(random, ["null", "true", "false", "NaN", "undefined", "{", "[1,", '"', ""]);
    case 3:
      return `"${"x".repeat(random(3000))}"`;
    case 4:
      return JSON.stringify(idText(random));
    case 5:
      return `{"${oneOf(random, ["$integer", "$float", "$bytes"])}":${JSON.stringify(oneOf(random, BASE64))}}`;
    case 6: {
      if (random(4) > 0) return "[]";
      const deep = oneOf(random, DEEP);
      return random(2) === 0
        ? "[".repeat(deep) + "]".repeat(deep)
        : `${'{"a":'.repeat(deep)}1${"}".repeat(deep)}`;
    }
    case 7:
      return `[${Array.from({ length: random(4) }, () => jsonText(random, depth - 1)).join(",")}]`;
    default: {
      const field = (): string => {
        const name = random(20) === 0 ? "k".repeat(random(200_000)) : oneOf(random, NAMES);
        return `"${name}":${jsonText(random, depth - 1)}`;
      };
      return `{${Array.from({ length: random(5) }, field).join(",")}}`;
    }
  }
}

/** A text that looks like an id, of no document. */
export function idText(random: Random): string {
  const letters = "0123456789abcdefghjkmnpqrstvwxyz!";
  return Array.from({ length: 28 + random(12) }, () => letters[random(letters.length)]).join("");
}

/** A text that looks like a cursor or a journal. */
export function cursorText(random: Random): string {
  const part = (): string => oneOf(random, ["null", '"AA"', "5", "-1", "1e300", "{}", '"end"', "[]"]);
  const written = `{"query":${part()},"key":${part()},"seq":${part()}}`;
  return random(3) === 0 ? written : Buffer.from(written).toString("base64url");
}

/** Functions of the app, and what is none. None of these changes a document that is there. */
export function pathText(random: Random): string {
  const known = [
    "values:echo",
    "values:put",
    "values:get",
    "values:between",
    "values:fail",
    "notes:add",
    "notes:crash",
  ];
  const other = [
    "notes:page",
    "notes:remove",
    "notes:secret",
    "limits:into",
    "rows:page",
    "jobs:state",
    "values:echoAction",
  ];
  const none = [
    "",
    ":",
    "a:b:c",
    "../x",
    "__proto__",
    "constructor:call",
    "_system/cli/tableData",
    "x".repeat(5000),
    "http",
  ];
  return oneOf(random, random(4) === 0 ? none : [...known, ...other]);
}

/** Arguments that fit a function nearly, as JSON text. */
export function argumentsText(random: Random): string {
  const [cursor, text] = [JSON.stringify(cursorText(random)), jsonText(random, 2)];
  return oneOf(random, [
    `{"value":${jsonText(random)}}`,
    `{"document":${jsonText(random)}}`,
    `{"data":${jsonText(random)}}`,
    `{"id":${JSON.stringify(idText(random))}}`,
    `{"size":${oneOf(random, NUMBERS)},"cursor":${cursor}}`,
    `{"list":"hostile","cursor":${cursor},"endCursor":${cursor},"numItems":${oneOf(random, NUMBERS)}}`,
    `{"lower":[${text}],"upper":[${text}],"inclusive":true}`,
    `{"table":${text}}`,
    jsonText(random),
  ]);
}

/** The body of a call over HTTP. */
export function bodyText(random: Random): string {
  const args = random(3) === 0 ? `[${argumentsText(random)}]` : argumentsText(random);
  const format =
    random(4) === 0
      ? `,"format":${oneOf(random, ['"json"', '"xml"', '"__proto__"', '{"toString":1}', "5"])}`
      : "";
  const call = `{"path":${JSON.stringify(pathText(random))},"args":${args}${format}}`;
  const ts = oneOf(random, ['"AAAAAAAAAAA="', '"//////////8="', "5", '""', '"é"']);
  return oneOf(random, [
    call,
    call,
    call,
    `{"queries":[${call},${call}]}`,
    `${call.slice(0, -1)},"ts":${ts}}`,
    jsonText(random),
  ]);
}

/** Damages a text now and then, into bytes that may be no text. */
export function damage(random: Random, text: string): Buffer {
  const bytes = Buffer.from(text);
  if (random(4) === 0 && bytes.length > 0) bytes[random(bytes.length)] = random(256);
  return random(8) === 0 ? bytes.subarray(0, random(bytes.length + 1)) : bytes;
}

const ROUTES = [
  "query",
  "mutation",
  "action",
  "function",
  "query_ts",
  "query_at_ts",
  "query_batch",
  "run/values/echo",
];

function urlText(random: Random): string {
  const args = encodeURIComponent(argumentsText(random)).slice(0, 4000);
  return oneOf(random, [
    ...ROUTES.map((route) => `/api/${route}`),
    `/api/query?path=values:echo&args=${args}`,
    `/api/run/${encodeURIComponent(pathText(random)).slice(0, 4000)}/%2e%2e`,
    "/api/run/%E0%A4%A/x",
    "/api/query?adminKey=wrong",
    "/http/mirror",
    "/http/%00?%",
    "/echo",
    "//",
    "/../../etc/passwd",
    "http://evil.example/",
    "*",
    `/${"a".repeat(random(40_000))}`,
  ]);
}

/** The bytes of a request, or of what is none. */
export function requestBytes(random: Random): Buffer {
  const body = damage(random, bodyText(random));
  const method = oneOf(random, [
    "POST",
    "POST",
    "POST",
    "GET",
    "PUT",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "G@T",
    "post",
    "",
  ]);
  const version = oneOf(random, [
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "HTTP/9.9",
    "x",
  ]);
  const lengths = [body.length, body.length, body.length, body.length + 5, -1, "0x10", 1e30];
  const framing =
    random(5) === 0 ? "Transfer-Encoding: chunked" : `Content-Length: ${oneOf(random, lengths)}`;
  const headers = [
    `Host: ${oneOf(random, ["localhost", "127.0.0.1", "localhost", "evil.example", "", "[::1", "localhost:x"])}`,
    framing,
    `Content-Type: ${oneOf(random, ["application/json", "application/json", "text/plain", "application/vnd+json;x", ""])}`,
  ];
  const more = [
    `Authorization: ${oneOf(random, ["Convex", "Convex x", "Convex a|b", "Bearer a.b.c", "Convex :e30", "Basic x", ""])}`,
    `Convex-Client: ${oneOf(random, ["npm-1.48.0", "x", "-", "npm-999999999999999999999.x"])}`,
    `Origin: ${oneOf(random, ["http://localhost:5173", "null", "http://evil.example", "x", "http://[::1"])}`,
    `X-Long: ${"x".repeat(random(40_000))}`,
    "X-Zero: a\0b",
    "Expect: 100-continue",
    "Content-Length: 3",
    "Connection: Upgrade\r\nUpgrade: websocket",
    "no colon",
  ];
  for (let count = random(3); count > 0; count--) headers.push(oneOf(random, more));
  const chunked =
    random(2) === 0 ? `${body.length.toString(16)}\r\n${body.toString()}\r\n0\r\n\r\n` : "zz\r\n";
  const head = `${method} ${urlText(random)} ${version}\r\n${headers.join("\r\n")}\r\nConnection: close\r\n\r\n`;
  const whole = Buffer.concat([Buffer.from(head), framing.startsWith("T") ? Buffer.from(chunked) : body]);
  return random(10) === 0 ? damage(random, whole.toString("latin1")) : whole;
}

/** A message of the WebSocket protocol, with a field or two that no client sends. */
export function messageText(random: Random): string {
  const number = (): string => (random(3) === 0 ? jsonText(random, 1) : String(random(4)));
  const path = (): string => (random(6) === 0 ? jsonText(random, 1) : JSON.stringify(pathText(random)));
  const args = (): string => (random(5) === 0 ? jsonText(random) : `[${argumentsText(random)}]`);
  const journal = (): string => (random(2) === 0 ? "null" : JSON.stringify(cursorText(random)));
  const change = (): string =>
    oneOf(random, [
      `{"type":"Add","queryId":${number()},"udfPath":${path()},"args":${args()},"journal":${journal()}}`,
      `{"type":"Remove","queryId":${number()}}`,
      jsonText(random, 2),
    ]);
  const token = oneOf(random, ['"Admin"', '"User"', '"None"', "5"]);
  return oneOf(random, [
    `{"type":"Connect","sessionId":${number()},"maxObservedTimestamp":${jsonText(random, 1)}}`,
    `{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[${change()},${change()}]}`,
    `{"type":"ModifyQuerySet","baseVersion":${number()},"newVersion":${number()},"modifications":${jsonText(random, 2)}}`,
    `{"type":"Mutation","requestId":${number()},"udfPath":${path()},"args":${args()}}`,
    `{"type":"Mutation","udfPath":"notes:add","args":[{"text":"hostile"}]}`,
    `{"type":"Action","requestId":${number()},"udfPath":${path()},"args":${args()}}`,
    `{"type":"Authenticate","baseVersion":0,"tokenType":${token},"value":${jsonText(random, 1)}}`,
    `{"type":${jsonText(random, 1)}}`,
    jsonText(random),
  ]);
}

/** The bytes of a frame of a client, masked with zeros when at all. */
export function frameBytes(random: Random): Buffer {
  const payload = damage(random, messageText(random));
  const opcode = oneOf(random, [1, 1, 1, 2, 0, 8, 9, 10, 3, 15]);
  const first = (random(4) === 0 ? 0 : 0x80) | (random(12) === 0 ? 0x70 : 0) | opcode;
  const length = random(8) === 0 ? 2 ** (16 + random(30)) : payload.length;
  const mask = random(8) === 0 ? 0 : 0x80;
  const head = Buffer.alloc(10);
  head[0] = first;
  head[1] = mask | 127;
  head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, Buffer.alloc(mask === 0 ? 0 : 4), payload]);
}
