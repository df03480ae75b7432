/**
 * A function file that is laid into a copy of convex/ to measure it (see cost.ts). It counts what the functions of that deployment read and
 * write, whoever runs them: clients, crons, subscriptions that run again.
 *
 * Counted is what Convex bills as database I/O: each document as often as it is read, the one that a write replaces too, and each that is
 * written; and index keys, which a transaction's own metrics leave out: that of each document that an index led to, and of a written one the
 * keys in all indexes of its table, changed or not. Source: get-convex/convex-backend at 94a42c3, crates/database/src/reads.rs
 * (record_read_document), query/index_range.rs, transaction.rs (patch_inner), committer.rs (track_commit), crates/indexing/src/index_registry.rs
 * (index_updates), crates/common/src/index.rs (IndexKey::size). And as storage each document once, and once more for each index of its table
 * (crates/database/src/snapshot_manager.rs, get_document_and_index_storage).
 */
import { internalMutationGeneric, internalQueryGeneric, makeFunctionReference } from "convex/server";
import { getConvexSize, getDocumentSize, jsonToConvex, v, type JSONValue, type Value } from "convex/values";
import schema from "../convex/schema";
import type { Tally } from "./month.ts";

type Document = Record<string, Value>;
type Args = { table: string; id: string; queryId: number; query: { source: { indexName?: string } } };
type Host = {
  syscall: (operation: string, args: string) => string;
  asyncSyscall: (operation: string, args: string) => Promise<string>;
};

/** Beside its fields a key has the creation time, 9 bytes, and the id as text; where it is written, the id once more in binary. */
const KEY_REST_BYTES = 9 + 34;
const WRITTEN_ID_BYTES = 20;

const tally: Tally = {
  runs: 0,
  documentsRead: 0,
  bytesRead: 0,
  documentsWritten: 0,
  bytesWritten: 0,
  keyBytes: 0,
  storedBytes: 0,
};

/** What we read ourselves to see what was written; the transaction's metrics have it. */
const own = { documentsRead: 0, bytesRead: 0 };

/** The fields of each index; Convex's own are not here and are not counted. */
const indexes = new Map<string, string[]>();
type Exported = {
  tables: { tableName: string; indexes: { indexDescriptor: string; fields: string[] }[] }[];
};
for (const table of (JSON.parse((schema as unknown as { export(): string }).export()) as Exported).tables) {
  for (const { indexDescriptor, fields } of table.indexes) {
    indexes.set(`${table.tableName}.${indexDescriptor}`, fields);
  }
}

function keySize(index: string, document: Document): number {
  const fields = indexes.get(index);
  if (fields === undefined) return 0;
  const sizes = fields.map((path) => {
    const value = path.split(".").reduce<Value | undefined>((at, name) => (at as Document)?.[name], document);
    return value === undefined ? 0 : getConvexSize(value);
  });
  return sizes.reduce((sum, size) => sum + size, KEY_REST_BYTES);
}

function read(json: JSONValue, index?: string): void {
  if (json === null) return;
  const document = jsonToConvex(json) as Document;
  tally.documentsRead += 1;
  tally.bytesRead += getDocumentSize(document);
  if (index !== undefined) tally.keyBytes += keySize(index, document);
}

function written(table: string, before: JSONValue, after: JSONValue): void {
  tally.documentsWritten += 1;
  const ofTable = [...indexes.keys()].filter((index) => index.startsWith(`${table}.`));
  const copies = 1 + ofTable.length;
  if (before !== null) tally.storedBytes -= copies * getDocumentSize(jsonToConvex(before) as Document);
  if (after === null) return;
  const document = jsonToConvex(after) as Document;
  const size = getDocumentSize(document);
  tally.bytesWritten += size;
  tally.storedBytes += copies * size;
  for (const index of ofTable) tally.keyBytes += keySize(index, document) + WRITTEN_ID_BYTES;
}

const globals = globalThis as unknown as { Convex: Host };
const host = globals.Convex;

async function look(id: string, table: string): Promise<JSONValue> {
  const json = JSON.parse(await host.asyncSyscall("1.0/get", JSON.stringify({ id, table }))) as JSONValue;
  if (json !== null) {
    own.documentsRead += 1;
    own.bytesRead += getDocumentSize(jsonToConvex(json) as Document);
  }
  return json;
}

/** The index of each range that is being read. A sub-transaction counts anew; our functions read a range to its end before they start one. */
const ranges = new Map<number, string | undefined>();

globals.Convex = {
  syscall(operation, text) {
    const answer = host.syscall(operation, text);
    if (operation === "1.0/queryStream") {
      const { indexName } = (JSON.parse(text) as Args).query.source;
      if (indexName === "heartbeatTokens.by_tokenHash") tally.runs += 1;
      ranges.set((JSON.parse(answer) as Args).queryId, indexName);
    }
    return answer;
  },
  async asyncSyscall(operation, text) {
    const args = JSON.parse(text) as Args;
    const replaces = ["1.0/shallowMerge", "1.0/replace", "1.0/remove"].includes(operation);
    const before = replaces ? await look(args.id, args.table) : null;
    read(before);
    const answer = await host.asyncSyscall(operation, text);
    const said = JSON.parse(answer) as { value: JSONValue; page: JSONValue[]; _id: string };
    if (operation === "1.0/get") read(said as unknown as JSONValue);
    if (operation === "1.0/queryStreamNext") read(said.value, ranges.get(args.queryId));
    if (operation === "1.0/queryPage") {
      for (const document of said.page) read(document, args.query.source.indexName);
    }
    if (replaces || operation === "1.0/insert") {
      written(args.table, before, await look(replaces ? args.id : said._id, args.table));
    }
    return answer;
  },
};

/** What was counted since the functions were loaded. */
export const total = internalQueryGeneric({ args: {}, handler: () => tally });

/** Runs a function; it is not taken back. @returns what was counted, which the transaction's metrics must confirm. */
export const measured = internalMutationGeneric({
  args: { path: v.string(), args: v.any() },
  handler: async (ctx, { path, args }) => {
    const [before, ownBefore] = [{ ...tally }, { ...own }];
    if (path.startsWith("queries/")) await ctx.runQuery(makeFunctionReference<"query">(path), args);
    else await ctx.runMutation(makeFunctionReference<"mutation">(path), args);
    const metrics = await ctx.meta.getTransactionMetrics();
    const counted = { ...tally };
    for (const name of Object.keys(tally) as (keyof Tally)[]) counted[name] -= before[name];
    for (const name of ["documentsRead", "bytesRead", "documentsWritten", "bytesWritten"] as const) {
      const ours = name in own ? own[name as keyof typeof own] - ownBefore[name as keyof typeof own] : 0;
      if (metrics[name].used !== counted[name] + ours) {
        throw new Error(
          `${path}: ${name} is ${metrics[name].used}, of which ${ours} ours; counted ${counted[name]}`,
        );
      }
    }
    return counted;
  },
});
