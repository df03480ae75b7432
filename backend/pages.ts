/**
 * `.paginate(...)`: one page of a range. A cursor is the position of the last row looked at, with a mark of its query;
 * "end" after the last page. The journal keeps the cursor at which a page of a subscription ended, so that it ends there again
 * when it runs anew: pages neither overlap nor leave gaps while rows come and go.
 */
import { LIMITS, MAX_ARRAY_LENGTH, MAX_PAGE } from "./limits.ts";
import { fingerprint, Stream, type Position } from "./query.ts";
import type { SerializedQuery } from "./ranges.ts";
import type { Run } from "./runtime.ts";
import type { Transaction } from "./transaction.ts";
import type { JsonObject } from "./values.ts";

/** What npm convex sends for a page. */
export type PageRequest = {
  query: SerializedQuery;
  cursor: string | null;
  endCursor: string | null;
  pageSize: number;
  maximumRowsRead: number | null;
  maximumBytesRead: number | null;
};

type Cursor = { query: string; key: string | null; seq: number | null };

/** The share of a limit beyond which a page is said to be worth splitting (crates/database/src/query/index_range.rs). */
const SOFT_SHARE = 0.75;

function writeCursor(query: string, position: Position | null): string {
  const cursor: Cursor = {
    query,
    key: position?.key ? Buffer.from(position.key).toString("base64url") : null,
    seq: position?.seq ?? null,
  };
  return Buffer.from(JSON.stringify(cursor)).toString("base64url");
}

/** The position of a cursor; null at the end of the range. */
function readCursor(text: string, query: string): Position | null {
  const cursor = parseCursor(text);
  if (cursor === null) throw new Error(`InvalidCursor: "${text}" is not a cursor of this backend.`);
  if (cursor.query !== query) {
    throw new Error(
      "InvalidCursor: Tried to run a query starting from a cursor, but it looks like this cursor is from a different query.",
    );
  }
  if (cursor.seq === null) return null;
  return { key: cursor.key === null ? null : Buffer.from(cursor.key, "base64url"), seq: cursor.seq };
}

function parseCursor(text: string): Cursor | null {
  try {
    const { query, key, seq } = JSON.parse(Buffer.from(text, "base64url").toString()) as Cursor;
    const position = key === null || typeof key === "string";
    return position && (seq === null || Number.isSafeInteger(seq)) ? { query, key, seq } : null;
  } catch {
    return null;
  }
}

/**
 * Reads a page.
 *
 * @returns the JSON text that npm convex expects.
 * @throws Error with Convex's sentence for a bad request, a cursor of another query, or a second page in one function.
 */
export function readPage(run: Run, tx: Transaction, request: PageRequest): string {
  if (request.pageSize === 0) throw new Error("Must request at least 1 document while paginating");
  if (request.pageSize > MAX_PAGE) throw new Error(`Requested too many items: ${request.pageSize}`);
  if (request.maximumRowsRead === 0 || request.maximumBytesRead === 0) {
    throw new Error("maximumRowsRead and maximumBytesRead must be greater than 0");
  }
  if (run.journal.next !== null) {
    throw new Error(
      "This query or mutation function ran multiple paginated queries. Convex only supports a single paginated query in each function.",
    );
  }
  const mark = fingerprint(request.query);
  const start = request.cursor === null ? undefined : readCursor(request.cursor, mark);
  const endText = request.endCursor ?? run.journal.previous;
  const bounded = endText !== null;
  const end = bounded ? readCursor(endText, mark) : null;
  const part = { after: start ?? null, until: end, ...(bounded ? UNLIMITED : limitsOf(request)) };
  const stream =
    start === null ? null : new Stream(tx, request.query, { ...part, expected: request.pageSize });
  const { documents, middle } =
    stream === null ? NOTHING : fillPage(stream, bounded ? Infinity : request.pageSize);
  const isDone = stream === null || stream.done;
  const position = bounded ? end : isDone ? null : stream.position;
  const continueCursor = writeCursor(mark, position);
  run.journal.next = continueCursor;
  const result: JsonObject = {
    isDone: position === null,
    continueCursor,
    splitCursor: middle === null ? null : writeCursor(mark, middle),
    pageStatus: stream === null ? null : statusOf(stream, documents.length, request),
  };
  return `{"page":[${documents.join(",")}],${JSON.stringify(result).slice(1)}`;
}

type Page = { documents: string[]; middle: Position | null };

const NOTHING: Page = { documents: [], middle: null };

/** A page with an end goes to it, whatever the limits say: pages must not leave gaps. */
const UNLIMITED = { maxRows: Infinity, maxBytes: Infinity };

function limitsOf(request: PageRequest): typeof UNLIMITED {
  return { maxRows: request.maximumRowsRead ?? Infinity, maxBytes: request.maximumBytesRead ?? Infinity };
}

function fillPage(stream: Stream, size: number): Page {
  const documents: string[] = [];
  const positions: (Position | null)[] = [];
  while (documents.length < size) {
    const document = stream.next();
    if (document === null) break;
    documents.push(document);
    positions.push(stream.position);
  }
  stream.close();
  const middle = positions.length > 2 ? (positions[Math.floor(positions.length / 2)] ?? null) : null;
  return { documents, middle };
}

function statusOf(stream: Stream, length: number, request: PageRequest): string | null {
  if (stream.limited) return "SplitRequired";
  const { maxRows, maxBytes } = limitsOf(request);
  const near =
    stream.rowsRead > SOFT_SHARE * Math.min(maxRows, LIMITS.documentsRead) ||
    stream.bytesRead > SOFT_SHARE * Math.min(maxBytes, LIMITS.bytesRead) ||
    length > SOFT_SHARE * MAX_ARRAY_LENGTH;
  return near ? "SplitRecommended" : null;
}
