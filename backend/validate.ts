/**
 * Convex validators (the JSON that `validator.json` of npm convex exports), compiled once into checks over encoded values.
 * Sentences and order of checks are those of crates/common/src/schemas/validator.rs, so that a refusal reads the same here
 * and on Convex.
 */
import { decodeId } from "./ids.ts";
import { compareValues } from "./keys.ts";
import { int64Of, kindOf, show, type Json, type JsonObject } from "./values.ts";

type ObjectJson = { type: "object"; value: Record<string, { fieldType: ValidatorJson; optional: boolean }> };

/** A validator as the convex package exports it. */
export type ValidatorJson =
  | { type: "null" | "number" | "bigint" | "commitTs" | "boolean" | "string" | "bytes" | "any" }
  | { type: "id"; tableName: string }
  | { type: "literal"; value: Json }
  | { type: "array"; value: ValidatorJson }
  | { type: "record"; keys: ValidatorJson; values: { fieldType: ValidatorJson; optional: boolean } }
  | { type: "union"; value: ValidatorJson[] }
  | ObjectJson;

/** Tells the name of a table by its number; undefined for a number never given out. */
export type TableNames = (number: number) => string | undefined;

/** Why a value was refused: the sentence, and where in the value, innermost step first. */
class Mismatch {
  readonly path: string[] = [];
  readonly write: (context: string) => string;

  constructor(write: (context: string) => string) {
    this.write = write;
  }

  at(step: string): this {
    this.path.push(step);
    return this;
  }

  toString(): string {
    return this.write(this.path.length > 0 ? `Path: ${[...this.path].reverse().join("")}` : "");
  }
}

type Test = (value: Json) => Mismatch | null;

/** A compiled validator: null when the value fits, else Convex's sentence. */
export type Check = (value: Json) => string | null;

const KIND_OF_TYPE: Record<string, string> = {
  null: "null",
  number: "float64",
  bigint: "int64",
  commitTs: "int64",
  boolean: "boolean",
  string: "string",
  bytes: "bytes",
};

/** Compiles a validator. `tableNames` is asked at check time: tables may be made later. */
export function compileValidator(validator: ValidatorJson, tableNames: TableNames): Check {
  const test = compile(validator, tableNames);
  return (value) => test(value)?.toString() ?? null;
}

function noMatch(value: Json, validator: ValidatorJson): Mismatch {
  return new Mismatch(
    (context) =>
      `Value does not match validator.\n${context}\nValue: ${show(value)}\nValidator: ${describe(validator)}`,
  );
}

function compile(validator: ValidatorJson, tableNames: TableNames): Test {
  switch (validator.type) {
    case "any":
      return () => null;
    case "id":
      return compileId(validator, tableNames);
    case "literal":
      return (value) =>
        compareValues(value, validator.value) === 0
          ? null
          : new Mismatch(
              (context) =>
                `\`${show(value)}\` does not match literal validator \`v.literal(${describeLiteral(validator.value)})\`.${context}`,
            );
    case "array": {
      const item = compile(validator.value, tableNames);
      return (value) => {
        if (!Array.isArray(value)) return noMatch(value, validator);
        for (let index = 0; index < value.length; index++) {
          const mismatch = item(value[index] as Json);
          if (mismatch !== null) return mismatch.at(`[${index}]`);
        }
        return null;
      };
    }
    case "record": {
      const keys = compile(validator.keys, tableNames);
      const values = compile(validator.values.fieldType, tableNames);
      return (value) => {
        if (kindOf(value) !== "object") return noMatch(value, validator);
        for (const [key, item] of Object.entries(value as JsonObject)) {
          const mismatch = keys(key)?.at(".keys()") ?? values(item)?.at(".values()");
          if (mismatch) return mismatch;
        }
        return null;
      };
    }
    case "union":
      return compileUnion(validator, tableNames);
    case "object":
      return compileObject(validator, tableNames);
    default: {
      const kind = KIND_OF_TYPE[validator.type];
      if (kind === undefined) throw new Error(`Unknown validator type ${validator.type}`);
      return (value) => (kindOf(value) === kind ? null : noMatch(value, validator));
    }
  }
}

function compileId(validator: { type: "id"; tableName: string }, tableNames: TableNames): Test {
  return (value) => {
    const id = typeof value === "string" ? decodeId(value) : null;
    const found = id === null ? undefined : tableNames(id.table);
    if (found === undefined) return noMatch(value, validator);
    if (found === validator.tableName) return null;
    const source = found.startsWith("_")
      ? `from a system table, which does not match the table name in validator`
      : `from table \`${found}\`, which does not match the table name in validator`;
    return new Mismatch(
      (context) => `Found ID "${value as string}" ${source} \`v.id("${validator.tableName}")\`.${context}`,
    );
  };
}

function compileUnion(validator: { type: "union"; value: ValidatorJson[] }, tableNames: TableNames): Test {
  const members = validator.value.map((member) => compile(member, tableNames));
  if (members.length === 1) return members[0] as Test;
  return (value) => {
    for (const member of members) {
      if (member(value) === null) return null;
    }
    return noMatch(value, validator);
  };
}

function compileObject(validator: ObjectJson, tableNames: TableNames): Test {
  const fields = Object.keys(validator.value)
    .sort()
    .map((name) => {
      const field = validator.value[name] as ObjectJson["value"][string];
      return { name, optional: field.optional, test: compile(field.fieldType, tableNames) };
    });
  const known = new Set(fields.map((field) => field.name));
  const refuse = (sentence: string, value: JsonObject): Mismatch =>
    new Mismatch(
      (context) => `${sentence}\n${context}\nObject: ${show(value)}\nValidator: ${describe(validator)}`,
    );
  return (value) => {
    if (kindOf(value) !== "object") return noMatch(value, validator);
    const object = value as JsonObject;
    for (const field of fields) {
      if (Object.hasOwn(object, field.name)) {
        const mismatch = field.test(object[field.name] as Json);
        if (mismatch !== null) return mismatch.at(`.${field.name}`);
      } else if (!field.optional) {
        return refuse(
          `Object is missing the required field \`${field.name}\`. Consider wrapping the field validator in ` +
            "`v.optional(...)` if this is expected.",
          object,
        );
      }
    }
    for (const name in object) {
      if (!known.has(name)) {
        return refuse(`Object contains extra field \`${name}\` that is not in the validator.`, object);
      }
    }
    return null;
  };
}

function describeLiteral(value: Json): string {
  return kindOf(value) === "int64" ? `${int64Of(value as JsonObject)}n` : JSON.stringify(value);
}

/** A validator as source text: `v.object({a: v.string()})`. */
export function describe(validator: ValidatorJson): string {
  switch (validator.type) {
    case "id":
      return `v.id("${validator.tableName}")`;
    case "number":
      return "v.float64()";
    case "bigint":
      return "v.int64()";
    case "literal":
      return `v.literal(${describeLiteral(validator.value)})`;
    case "array":
      return `v.array(${describe(validator.value)})`;
    case "record":
      return `v.record(${describe(validator.keys)}, ${describe(validator.values.fieldType)})`;
    case "union":
      return `v.union(${validator.value.map(describe).join(", ")})`;
    case "object": {
      const fields = Object.keys(validator.value)
        .sort()
        .map((name) => {
          const field = validator.value[name] as ObjectJson["value"][string];
          const text = describe(field.fieldType);
          return `${name}: ${field.optional ? `v.optional(${text})` : text}`;
        });
      return `v.object({${fields.join(", ")}})`;
    }
    default:
      return `v.${validator.type}()`;
  }
}
