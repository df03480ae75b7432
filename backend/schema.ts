/**
 * Brings the stored tables and indexes in line with the app's schema when the backend starts: new tables and indexes are
 * made and filled, indexes that the schema no longer has are dropped, and documents are checked when their table's
 * validator changed. All in one transaction, the engine's: a schema that does not fit changes nothing.
 *
 * A table that leaves the schema keeps its documents, as on Convex.
 */
import type { SchemaJson } from "./functions.ts";
import { indexKey } from "./transaction.ts";
import type { Index, Store, Table } from "./store.ts";
import { compileValidator, type Check, type TableNames, type ValidatorJson } from "./validate.ts";
import type { JsonObject } from "./values.ts";

/** Tables of our own that functions can read: where scheduled functions stand (jobs.ts). */
const SYSTEM_SCHEMA: SchemaJson["tables"] = [
  {
    tableName: "_scheduled_functions",
    indexes: [
      { indexDescriptor: "by_state", fields: ["state.kind", "scheduledTime"] },
      { indexDescriptor: "by_completion", fields: ["completedTime"] },
    ],
    documentType: null,
  },
];

/** The check of each table's documents; without an entry anything goes. */
export type DocumentChecks = Map<string, Check>;

/**
 * Applies the schema (null: the app has none), inside of a transaction.
 *
 * @throws Error that names the first document, and the field, that does not fit.
 */
export function applySchema(store: Store, schema: SchemaJson | null): DocumentChecks {
  const tableNames: TableNames = (number) => store.tableNumbered(number)?.name;
  const checks: DocumentChecks = new Map();
  const wanted = [...SYSTEM_SCHEMA, ...(schema?.tables ?? [])];
  for (const { tableName } of wanted) {
    if (store.table(tableName) === undefined) store.createTable(tableName);
  }
  for (const { tableName, documentType } of wanted) {
    const enforced = schema?.schemaValidation && documentType !== null && documentType.type !== "any";
    const validator = enforced ? documentType : null;
    if (validator !== null) checks.set(tableName, compileValidator(validator, tableNames));
    checkStored(store, store.table(tableName) as Table, validator, checks.get(tableName));
  }
  for (const table of store.tables()) {
    const indexes = wanted.find(({ tableName }) => tableName === table.name)?.indexes ?? [];
    applyIndexes(store, table, indexes);
  }
  return checks;
}

function* documentsOf(store: Store, table: Table): Generator<[number, JsonObject]> {
  for (const row of store.statement(`SELECT seq, doc FROM d${table.number}`).iterate()) {
    const [seq, doc] = row as unknown as [number, string];
    yield [seq, JSON.parse(doc) as JsonObject];
  }
}

function checkStored(
  store: Store,
  table: Table,
  validator: ValidatorJson | null,
  check: Check | undefined,
): void {
  const text = validator === null ? null : JSON.stringify(validator);
  const [stored] = store.rows("SELECT validator FROM tables WHERE number = ?", table.number)[0] as [
    string | null,
  ];
  if (stored === text) return;
  if (check !== undefined) {
    for (const [, document] of documentsOf(store, table)) {
      const { _id, _creationTime, ...fields } = document;
      const refusal = check(fields);
      if (refusal !== null) {
        throw new Error(
          `Document with ID "${String(_id)}" (created ${new Date(_creationTime as number).toISOString()}) in table "${table.name}" does not match the schema: ${refusal}`,
        );
      }
    }
  }
  store.run("UPDATE tables SET validator = ? WHERE number = ?", text, table.number);
}

function applyIndexes(
  store: Store,
  table: Table,
  wanted: { indexDescriptor: string; fields: string[] }[],
): void {
  // npm convex writes the implied last field out
  const fieldsOf = (fields: string[]): string[] => fields.filter((field) => field !== "_creationTime");
  for (const index of [...table.indexes]) {
    const match = wanted.find(({ indexDescriptor }) => indexDescriptor === index.name);
    const same = match && fieldsOf(match.fields).join() === index.fields.map((path) => path.join(".")).join();
    if (!same) store.dropIndex(table, index);
  }
  for (const { indexDescriptor, fields } of wanted) {
    if (!table.indexes.some((index) => index.name === indexDescriptor)) {
      fill(store, table, store.createIndex(table, indexDescriptor, fieldsOf(fields)));
    }
  }
}

function fill(store: Store, table: Table, index: Index): void {
  for (const [seq, document] of documentsOf(store, table)) index.insert.run(indexKey(index, document), seq);
}
