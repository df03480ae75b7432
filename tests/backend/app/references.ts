import { makeFunctionReference } from "convex/server";

type Named = { name: string };

/** The app's functions as they call each other (what `_generated/api` would hold). */
export const references = {
  addNote: makeFunctionReference<"mutation", { text: string }, string>("notes:add"),
  act: makeFunctionReference<"action", Named>("jobs:act"),
  count: makeFunctionReference<"query", Named, number>("runtime:count"),
  inner: makeFunctionReference<"mutation", Named & { fail: boolean }, string>("runtime:inner"),
  run: makeFunctionReference<"mutation", Named & { fail?: boolean }>("jobs:run"),
  tick: makeFunctionReference<"mutation", Named>("jobs:tick"),
};
