/**
 * `.filter(...)` of a query: the expression that npm convex serialises, compiled into a function over a document
 * (meaning and sentences of crates/common/src/query.rs). Comparisons are Convex's order of values, across types too.
 */
import { compareValues } from "./keys.ts";
import {
  encodeFloat64,
  encodeInt64,
  fieldAt,
  fitsInt64,
  float64Of,
  int64Of,
  kindOf,
  show,
  type Json,
  type JsonObject,
} from "./values.ts";

type Evaluate = (document: JsonObject) => Json | undefined;

/** Tells whether a document passes. @throws Error with Convex's sentence when the expression cannot be evaluated. */
export type Filter = (document: JsonObject) => boolean;

const COMPARISONS: Record<string, (order: number) => boolean> = {
  $eq: (order) => order === 0,
  $neq: (order) => order !== 0,
  $lt: (order) => order < 0,
  $lte: (order) => order <= 0,
  $gt: (order) => order > 0,
  $gte: (order) => order >= 0,
};

type Arithmetic = {
  verb: string;
  ints: (left: bigint, right: bigint) => bigint;
  floats: (left: number, right: number) => number;
};

const ARITHMETIC: Record<string, Arithmetic> = {
  $add: { verb: "add", ints: (left, right) => left + right, floats: (left, right) => left + right },
  $sub: { verb: "subtract", ints: (left, right) => left - right, floats: (left, right) => left - right },
  $mul: { verb: "multiply", ints: (left, right) => left * right, floats: (left, right) => left * right },
  $div: { verb: "divide", ints: (left, right) => left / right, floats: (left, right) => left / right },
  $mod: { verb: "mod", ints: (left, right) => left % right, floats: (left, right) => left % right },
};

/** Compiles the JSON of an expression. @throws Error for an operator that Convex does not have. */
export function compileFilter(expression: Json): Filter {
  const evaluate = compile(expression);
  return (document) => truth(evaluate(document));
}

function truth(value: Json | undefined): boolean {
  if (typeof value !== "boolean") throw new Error(`Expected a boolean, got ${show(value)} in a filter.`);
  return value;
}

function compile(expression: Json): Evaluate {
  if (kindOf(expression) !== "object") throw new Error(`Invalid filter expression ${show(expression)}.`);
  const node = expression as JsonObject;
  const operator = Object.keys(node)[0] ?? "";
  const operand = node[operator] as Json;
  if (operator === "$field") {
    const path = (operand as string).split(".");
    return (document) => fieldAt(document, path);
  }
  if (operator === "$literal") {
    const missing = typeof operand === "object" && operand !== null && "$undefined" in operand;
    return () => (missing ? undefined : operand);
  }
  if (operator === "$not") {
    const inner = compile(operand);
    return (document) => !truth(inner(document));
  }
  if (operator === "$neg") return compileNegation(compile(operand));
  if (!Array.isArray(operand)) throw new Error(`Unknown filter operator ${operator}.`);
  const parts = operand.map(compile);
  if (operator === "$and") return (document) => parts.every((part) => truth(part(document)));
  if (operator === "$or") return (document) => parts.some((part) => truth(part(document)));
  const [left, right] = parts as [Evaluate, Evaluate];
  const comparison = COMPARISONS[operator];
  if (comparison !== undefined) {
    return (document) => comparison(compareValues(left(document), right(document)));
  }
  const arithmetic = ARITHMETIC[operator];
  if (arithmetic === undefined) throw new Error(`Unknown filter operator ${operator}.`);
  return (document) => calculate(arithmetic, left(document), right(document));
}

function calculate(arithmetic: Arithmetic, left: Json | undefined, right: Json | undefined): Json {
  const kinds = [kindOf(left), kindOf(right)];
  if (kinds[0] === "float64" && kinds[1] === "float64") {
    return encodeFloat64(
      arithmetic.floats(float64Of(left as number | JsonObject), float64Of(right as number | JsonObject)),
    );
  }
  if (kinds[0] !== "int64" || kinds[1] !== "int64") {
    throw new Error(
      `Cannot ${arithmetic.verb} ${show(left)} (type ${kinds[0]}) and ${show(right)} (type ${kinds[1]})`,
    );
  }
  const divisor = int64Of(right as JsonObject);
  if (divisor === 0n && (arithmetic.verb === "divide" || arithmetic.verb === "mod")) {
    throw new Error(`Cannot ${arithmetic.verb} ${show(left)} by zero`);
  }
  const result = arithmetic.ints(int64Of(left as JsonObject), divisor);
  if (!fitsInt64(result)) {
    throw new Error(
      `Cannot ${arithmetic.verb} ${show(left)} and ${show(right)}: the result is out of range for Int64`,
    );
  }
  return encodeInt64(result);
}

function compileNegation(inner: Evaluate): Evaluate {
  return (document) => {
    const value = inner(document);
    const kind = kindOf(value);
    if (kind === "float64") return encodeFloat64(-float64Of(value as number | JsonObject));
    if (kind !== "int64") throw new Error(`Cannot negate ${show(value)} (type ${kind})`);
    const result = -int64Of(value as JsonObject);
    if (!fitsInt64(result)) {
      throw new Error(`Cannot negate ${show(value)}: the result is out of range for Int64`);
    }
    return encodeInt64(result);
  };
}
