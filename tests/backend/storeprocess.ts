/**
 * A process around the engine and a file, for the model test to kill: `node storeprocess.ts FILE`. Each line on stdin is a
 * request, and is answered by a line on stdout; a transaction's answer is written when its commit is on disk.
 */
import { createInterface } from "node:readline";
import { Engine } from "../../backend/engine.ts";
import type { App, Definition } from "../../backend/functions.ts";
import { Stream } from "../../backend/query.ts";
import type { Transaction } from "../../backend/transaction.ts";
import type { Json, JsonObject } from "../../backend/values.ts";
import { rangeOf, TABLE, type Operation, type Request } from "./storemodel.ts";

const info = { ip: null, userAgent: null, requestId: "" };

/** The documents' ids by their `k`. */
function idsOf(tx: Transaction): Map<number, string> {
  const source = { type: "FullTableScan", tableName: TABLE, order: "asc" } as const;
  const stream = new Stream(tx, { source, operators: [] });
  const ids = new Map<number, string>();
  for (let text = stream.next(); text !== null; text = stream.next()) {
    const { _id, k } = JSON.parse(text) as { _id: string; k: number };
    ids.set(k, _id);
  }
  return ids;
}

function perform(tx: Transaction, operations: Operation[], answers: Json[]): void {
  for (const operation of operations) {
    const id = "k" in operation ? (idsOf(tx).get(operation.k) as string) : "";
    switch (operation.type) {
      case "insert":
        tx.insert(TABLE, { k: operation.k, ...operation.fields });
        break;
      case "patch":
        tx.patch(id, TABLE, operation.changes);
        break;
      case "replace":
        tx.replace(id, TABLE, { k: operation.k, ...operation.fields });
        break;
      case "remove":
        tx.remove(id, TABLE);
        break;
      case "read": {
        const stream = new Stream(tx, rangeOf(operation));
        const found: JsonObject[] = [];
        for (let text = stream.next(); text !== null; text = stream.next()) {
          const { _id, ...fields } = JSON.parse(text) as JsonObject;
          delete fields._creationTime;
          if (tx.get(_id as string, TABLE, false) !== text)
            throw new Error(`${String(_id)} is read as another one`);
          found.push(fields);
        }
        answers.push(found);
        break;
      }
      case "nested": {
        const savepoint = tx.savepoint();
        perform(tx, operation.operations, answers);
        if (operation.kept) tx.release(savepoint);
        else tx.rollback(savepoint);
      }
    }
  }
}

/** One mutation that does what it is told, and fails when it is told so. */
const transact: Definition = {
  ...{ path: "transact", kind: "mutation", internal: false, checkArgs: null, checkReturns: null },
  validators: { args: { type: "any" }, returns: { type: "any" } },
  invoke: async (args, run) => {
    const [{ text }] = JSON.parse(args) as [{ text: string }];
    const { operations, fail } = JSON.parse(text) as Request & { type: "transact" };
    const answers: Json[] = [];
    perform(run.tx as Transaction, operations, answers);
    if (fail) throw new Error("as told");
    return JSON.stringify(answers);
  },
};

const [, , file = ""] = process.argv;
let engine: Engine | null = null;
let requests = 0;

function open(indexes: { indexDescriptor: string; fields: string[] }[]): void {
  engine?.close();
  engine = new Engine(file, Date.now, () => undefined);
  const tables = [{ tableName: TABLE, indexes, documentType: null }];
  const app: App = {
    functions: new Map([["transact", transact]]),
    schema: { tables, schemaValidation: true },
    crons: {},
    router: null,
  };
  engine.start(app, false);
}

async function answer(request: Request): Promise<unknown> {
  if (request.type === "open") {
    open(request.indexes);
    return null;
  }
  // as a text: marks of removed fields are no arguments
  const args = JSON.stringify([{ text: JSON.stringify(request) }]);
  const call = { path: "transact", args, info, scheduledId: null };
  let outcome: unknown = null;
  const batch = await (engine as Engine).runBatch(++requests, [{ type: "mutation", call }], (prepared) => {
    outcome = prepared.outcomes[0]?.outcome;
  });
  return batch.failure ?? outcome;
}

for await (const line of createInterface(process.stdin)) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line) as Request))}\n`);
}
