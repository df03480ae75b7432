import {
  queryGeneric as query,
  type ExpressionOrValue,
  type FilterBuilder,
  type GenericTableInfo,
} from "convex/server";
import { v } from "convex/values";

/** An expression as a tree: [operator, ...operands], ["field", path] or ["value", value]. */
type Tree = [operator: string, ...operands: unknown[]];
type Builder = Record<string, (...operands: ExpressionOrValue<never>[]) => ExpressionOrValue<never>>;

function build(q: FilterBuilder<GenericTableInfo>, [operator, ...operands]: Tree): ExpressionOrValue<never> {
  if (operator === "field") return q.field(operands[0] as never) as ExpressionOrValue<never>;
  if (operator === "value") return operands[0] as never;
  if (operator === "missing") return undefined as never;
  const method = (q as unknown as Builder)[operator] as Builder[string];
  return method(...operands.map((operand) => build(q, operand as Tree)));
}

/** Positions of what passes. */
export const where = query({
  args: { tree: v.any() },
  handler: async (ctx, { tree }) => {
    const found = await ctx.db
      .query("anything")
      .filter((q) => build(q as never, tree as Tree) as never)
      .collect();
    return found.map(({ position }) => position as number);
  },
});

/** Positions of what a range of the index over two fields holds; `range` is a list of [method, field, value]. */
export const inRange = query({
  args: { index: v.string(), range: v.array(v.any()), descending: v.optional(v.boolean()) },
  handler: async (ctx, { index, range, descending }) => {
    const found = await ctx.db
      .query("anything")
      .withIndex(index as never, (q) => {
        let built = q as unknown as Record<string, (field: string, value: unknown) => typeof built>;
        for (const [method, field, value] of range as [string, string, unknown][]) {
          built = (built[method] as (typeof built)[string]).call(built, field, value);
        }
        return built as never;
      })
      .order(descending ? "desc" : "asc")
      .collect();
    return found.map(({ position }) => position as number);
  },
});
