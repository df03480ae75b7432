import { makeFunctionReference } from "convex/server";

type Keyed = { key: string };

/** The app's functions as they call each other (what `_generated/api` would hold). */
export const references = {
  settle: makeFunctionReference<"mutation", Keyed>("moves:settle"),
  notify: makeFunctionReference<"action", Keyed>("moves:notify"),
  noted: makeFunctionReference<"mutation", Keyed>("moves:noted"),
  tick: makeFunctionReference<"mutation">("moves:tick"),
  keep: makeFunctionReference<"mutation", Keyed & { kind: string }, string>("faults:keep"),
  shout: makeFunctionReference<"mutation", Keyed & { words: string }>("faults:shout"),
};
