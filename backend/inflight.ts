/**
 * What was handed to a thread and is not answered yet, and what becomes of it when the thread is lost.
 */
import type { DueDuty, FromWorker, HttpAnswer, MutationTask, Outcome, QueryTask } from "./messages.ts";
import { MAX_RUN_MS, type Culprit, type Said } from "./thread.ts";

/** How often something is tried again when its worker was lost without a culprit: the second loss is no accident. */
const MAX_LOSSES = 2;
const LOST = "The worker that ran it had to be replaced";

/** The answer to a mutation, with the timestamp of its commit. */
export type MutationAnswer = { outcome: Outcome; ts: bigint };
/** The answers to a group of queries, and the last commit then; no outcomes when their snapshot is not kept any more. */
export type QueryAnswers = { outcomes: Outcome[] | null; ts: bigint };
/** The duties whose time has come, and when the next one's comes (ms since the epoch). */
export type DueAnswer = { duties: DueDuty[]; nextDue: number | null };

type Resolve<Answer> = (answer: Answer) => void;
type Prepared = Extract<FromWorker, { type: "prepared" }>;

/** A mutation that waits for its batch, or is in one. */
export type Queued = { task: MutationTask; resolve: Resolve<MutationAnswer>; losses: number };

export type InFlight =
  | { type: "batch"; queued: Queued[]; prepared: Prepared | null }
  | {
      type: "queries";
      runs: QueryTask[];
      at: bigint | null;
      resolve: Resolve<QueryAnswers>;
      losses: number;
    }
  | { type: "snapshot"; resolve: Resolve<bigint | null> }
  | { type: "action"; resolve: Resolve<Outcome> }
  | { type: "http"; resolve: Resolve<HttpAnswer | null> }
  | { type: "due"; running: string[]; resolve: Resolve<DueAnswer> }
  | { type: "rest"; resolve: Resolve<void> };

/** What a lost thread left, for when the next one knows what is in the file. */
export type Loss = { entries: [id: number, InFlight][]; culprit: Culprit | null; failure: Outcome };

/** What recovery asks of the host. */
export type Again = {
  /** The batch has ended; these of it are to be queued again. */
  batch: (rest: Queued[]) => void;
  queries: (entry: InFlight & { type: "queries" }) => void;
  /** When duties may be asked for again, ms since the epoch. */
  dueAt: () => number;
  /** The last commit known. */
  ts: () => bigint;
};

/** The answer to one mutation of a batch that is on disk. */
export function preparedAnswer(prepared: Prepared | null, position: number): MutationAnswer {
  return prepared?.outcomes[position] as MutationAnswer;
}

/** Hands an answer to whoever waits for it. */
export function settle(
  entry: InFlight,
  answer: Exclude<Said, { type: "call" | "prepared" | "batch" }>,
): void {
  if (answer.type === "queries" && entry.type === "queries") entry.resolve(answer);
  else if (answer.type === "snapshot" && entry.type === "snapshot") entry.resolve(answer.ts);
  else if (answer.type === "action" && entry.type === "action") entry.resolve(answer.outcome);
  else if (answer.type === "http" && entry.type === "http") entry.resolve(answer.answer);
  else if (answer.type === "due" && entry.type === "due") entry.resolve(answer);
  else if (answer.type === "rest" && entry.type === "rest") entry.resolve();
}

/** Takes entries out of those in flight. */
export function take(inFlight: Map<number, InFlight>, ids: number[]): [id: number, InFlight][] {
  return ids.flatMap((id) => {
    const entry = inFlight.get(id);
    inFlight.delete(id);
    return entry === undefined ? [] : [[id, entry] as [number, InFlight]];
  });
}

/** The function behind a culprit; undefined without one. */
export function pathOf(entries: [number, InFlight][], culprit: Culprit | null): string | undefined {
  if (culprit === null) return undefined;
  const entry = entries.find(([id]) => id === culprit.message)?.[1];
  const task = entry?.type === "batch" ? entry.queued[culprit.position]?.task : undefined;
  if (task?.type === "mutation") return task.call.path;
  return entry?.type === "queries" ? entry.runs[culprit.position]?.call.path : "housekeeping";
}

/** What is said of a function whose thread was lost. @param reason null when it ran too long. */
export function failureOf(reason: string | null, path?: string): Outcome {
  const what = path === undefined ? "This function" : `Function ${path}`;
  return reason === null
    ? {
        ok: false,
        fault: "cut",
        message: `${what} execution timed out (maximum duration: ${MAX_RUN_MS / 1000}s).`,
      }
    : { ok: false, fault: "engine", message: `${what} was stopped: ${LOST} (${reason}).` };
}

/** Ends, or begins again, what a lost thread left. @param storedTs the last commit in the file. */
export function recover(id: number, entry: InFlight, loss: Loss, storedTs: bigint, host: Again): void {
  const { culprit, failure } = loss;
  const guilty = culprit?.message === id ? culprit.position : null;
  const again = (losses: number): boolean => culprit !== null || losses < MAX_LOSSES;
  switch (entry.type) {
    case "batch": {
      if (entry.prepared?.ts === storedTs) {
        host.batch([]);
        entry.queued.forEach(({ resolve }, position) => resolve(preparedAnswer(entry.prepared, position)));
        return;
      }
      const rest = entry.queued.filter((queued, position) => {
        queued.losses++;
        if (position !== guilty && again(queued.losses)) return true;
        queued.resolve({ outcome: failure, ts: host.ts() });
        return false;
      });
      host.batch(rest);
      return;
    }
    case "queries":
      recoverQueries(entry, guilty, again(++entry.losses), failure, host);
      return;
    case "action":
      entry.resolve({
        ok: false,
        fault: "engine",
        message: `${LOST}: the action may have done a part of its work.`,
      });
      return;
    case "http":
    case "snapshot":
      entry.resolve(null);
      return;
    case "rest":
      entry.resolve();
      return;
    case "due":
      entry.resolve({ duties: [], nextDue: host.dueAt() });
  }
}

function recoverQueries(
  entry: InFlight & { type: "queries" },
  guilty: number | null,
  again: boolean,
  failure: Outcome,
  host: Again,
): void {
  const rest = entry.runs.filter((_, position) => position !== guilty && again);
  const merge = ({ outcomes: some, ts }: QueryAnswers): void => {
    entry.resolve({ outcomes: some && entry.runs.map((run) => some[rest.indexOf(run)] ?? failure), ts });
  };
  if (rest.length === 0) merge({ outcomes: [], ts: host.ts() });
  else host.queries({ ...entry, runs: rest, resolve: merge });
}
