/**
 * What starts and finishes of runs say: which runs are open, which finished last, from when a report answers. Pure; imports only the rules of
 * schedules.
 */
import { gapAt } from "./expected";
import type { LastRun, OpenRun, Phase, Schedule, Status } from "./validators";

const HOUR_MS = 60 * 60_000;

/** The least that a run may take before it is overrunning, where the schedule does not say. */
const MIN_MAX_RUN_MS = HOUR_MS;

/** Open runs remembered per agent; more than ten at once is a loop that loses its finishes. The oldest are forgotten. */
export const MAX_OPEN_RUNS = 10;

/** What a row knows of its agent's runs. */
export type Runs = {
  schedule: Schedule;
  maxRunMs?: number;
  answeredFromAt?: number;
  openRuns: OpenRun[];
  lastRun?: LastRun;
  lastReport?: { at: number };
};

/** What a heartbeat changes of it. */
type Changes = Partial<Pick<Runs, "answeredFromAt" | "openRuns" | "lastRun">>;

/** What a heartbeat tells of a run; every instant on the backend's clock. */
export type HeardRun = {
  runId: string;
  phase: Phase;
  startedAt?: number;
  finishedAt?: number;
  durationMs?: number;
  exitCode?: number;
  status?: Status;
  /** what is stored of the run's other phase, where the row alone does not know it (see `otherHalfOf`) */
  otherHalf?: { livenessAt: number; startedAt?: number };
};

/** Which phase of the run must be looked up in history before `started` and `finished` can judge; undefined when the row itself knows. */
export function otherHalfOf(runs: Runs, run: { runId: string; phase: Phase }): Phase | undefined {
  if (run.phase === "start") return runs.lastRun?.runId === run.runId ? undefined : "finish";
  return runs.openRuns.some((open) => open.runId === run.runId) ? undefined : "start";
}

/** The instant that a report answers from: a finish from when its run started, as well as that is known. */
export function answeredFrom(runs: Runs, livenessAt: number, run: HeardRun | undefined): number {
  if (run === undefined) return livenessAt;
  const open = runs.openRuns.find((one) => one.runId === run.runId);
  const from = open?.answeredFromAt ?? run.otherHalf?.livenessAt ?? run.startedAt ?? livenessAt;
  return Math.min(from, livenessAt);
}

/** What a start changes: the expected instant is answered, and the run is open unless it is known to be over. */
export function started(runs: Runs, livenessAt: number, run: HeardRun): Changes {
  const { runId } = run;
  const startedAt = run.startedAt ?? livenessAt;
  const answeredFromAt = Math.max(runs.answeredFromAt ?? 0, livenessAt);
  if (runs.lastRun?.runId === runId) {
    return { answeredFromAt, lastRun: { ...runs.lastRun, startedAt } };
  }
  const deadlineAt = startedAt + (runs.maxRunMs ?? defaultMaxRunMs(runs.schedule, livenessAt));
  const over = run.otherHalf !== undefined || deadlineAt <= (runs.lastReport?.at ?? 0);
  if (over || runs.openRuns.some((open) => open.runId === runId)) return { answeredFromAt };
  const opened = { runId, startedAt, answeredFromAt: livenessAt, deadlineAt };
  return { answeredFromAt, openRuns: latest([...runs.openRuns, opened]) };
}

function latest(openRuns: OpenRun[]): OpenRun[] {
  return openRuns
    .sort((a, b) => a.startedAt - b.startedAt || (a.runId < b.runId ? -1 : 1))
    .slice(-MAX_OPEN_RUNS);
}

/** The runs of which two know that they are open, as the first knows them, without those that are `over`, or should be by the newest report. */
export function stillOpen(
  here: OpenRun[],
  there: OpenRun[],
  over: ReadonlySet<string>,
  reportedAt: number,
): OpenRun[] {
  const others = there.filter((run) => !here.some(({ runId }) => runId === run.runId));
  return latest(
    [...here, ...others].filter(({ runId, deadlineAt }) => !over.has(runId) && deadlineAt > reportedAt),
  );
}

/** What a report changes besides health: its own run ends, and with it those that should have ended before it. */
export function finished(runs: Runs, livenessAt: number, run: HeardRun | undefined): Changes {
  const answered = answeredFrom(runs, livenessAt, run);
  const changes: Changes = {
    answeredFromAt: Math.max(runs.answeredFromAt ?? 0, answered),
    openRuns: runs.openRuns.filter((open) => open.runId !== run?.runId && open.deadlineAt > livenessAt),
  };
  if (run === undefined) return changes;
  const { runId, durationMs, exitCode, status, finishedAt = livenessAt } = run;
  if (isBefore({ runId, finishedAt }, runs.lastRun)) return changes;
  const open = runs.openRuns.find((one) => one.runId === runId);
  const startedAt = open?.startedAt ?? run.otherHalf?.startedAt ?? run.startedAt;
  return { ...changes, lastRun: { runId, startedAt, finishedAt, durationMs, exitCode, status } };
}

/** Whether a run finished before the last one that is known. */
export function isBefore(run: { runId: string; finishedAt?: number }, last: LastRun | undefined): boolean {
  const [at, lastAt] = [run.finishedAt ?? 0, last?.finishedAt ?? 0];
  return at < lastAt || (at === lastAt && run.runId < (last?.runId ?? ""));
}

/** How long a run took, ms: as its host measured it, or by its two ends. */
export function lasted({ durationMs, startedAt, finishedAt }: Omit<LastRun, "runId">): number | undefined {
  if (durationMs !== undefined || startedAt === undefined || finishedAt === undefined) return durationMs;
  return Math.max(0, finishedAt - startedAt);
}

/** A run may take as long as the gap it fills, an hour at least. */
function defaultMaxRunMs(schedule: Schedule, startedAt: number): number {
  return Math.max(MIN_MAX_RUN_MS, gapAt(schedule, startedAt));
}
