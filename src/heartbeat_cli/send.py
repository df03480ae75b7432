"""One heartbeat from a command line to the deployment: kept first, then delivered, then told.

    asked for ──▶ composed ──▶ spooled ──▶ its turn ──▶ counted ──▶ delivered ──▶ recorded | duplicate  exit 0
        │            │            │           │            │            ├──────▶ refused for good: aside   1
        │            │            │           └────────────┴────────────┴──────▶ stays spooled         0 (75)
        │            │            └── cannot be kept: delivered all the same (0, warned), or lost          1
        │            └── no address, no token: nothing sent                                                2
        └── cannot be meant: nothing sent, nothing logged                                                  2

Its turn comes when older heartbeats for the same deployment have been delivered, by this process or by the
one that is at it. What became of a heartbeat that was composed stands in the log, whatever it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heartbeat_cli import __version__, log, schedule
from heartbeat_cli.clock import Moment
from heartbeat_cli.config import Settings
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.deliver import FOR_GOOD, RECORD, Caller, Delivery, answered, done
from heartbeat_cli.errors import (
    HeartbeatError,
    Lost,
    Refused,
    Spooled,
    SpoolProblem,
    Unreachable,
    UsageProblem,
)
from heartbeat_cli.heartbeat import Heartbeat, Run, agent_name, compose, heartbeat_id
from heartbeat_cli.scrub import scrubbed
from heartbeat_cli.send_told import worth_saying
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Entry, Trouble
from heartbeat_cli.tokens import fingerprint

RANDOM_BYTES = 10  # of a heartbeat id
SENDING_AGAIN = "to send it again makes a second heartbeat, which does no harm"
SET_ASIDE = "it is set aside (heartbeat spool list), and tried again after the next heartbeat apply"
OLDER_SHARE = 1 / 2  # of the deadline: then its own is tried, whatever still waits
BUSY_SHARE = 1 / 4  # of the deadline, for a process that keeps the spool's file locked
TURN_POLL_S = 0.02  # how often to look whether it is its turn: a delivery takes some milliseconds
LEAST_TURN_S = 0.5  # of the deadline that must be left: a turn that comes later is of no use


@dataclass(slots=True)
class Report:
    """What was asked to be reported; None where nothing was given.

    `run`: the end of a run that it tells of; then the deployment counts the tasks. `at`: the moment it is
    about, if that is not now. `heartbeat_id`: its id, if somebody else may send the same.
    """

    agent: str
    status: str | None = None
    summary: str | None = None
    error: str | None = None
    result: str | None = None
    open_tasks: int | None = None
    stale_tasks: int | None = None
    run: Run | None = None
    at: Moment | None = None
    heartbeat_id: str | None = None


@dataclass(slots=True)
class Sent:
    """A heartbeat that is recorded, or will be: the `answer` of the deployment that has it, or the `problem`
    for which it waits in the spool. `notes`: what else people should know.
    """

    heartbeat: Heartbeat
    notes: list[str]
    answer: Mapping[str, Any] | None = None
    problem: HeartbeatError | None = None
    elapsed_ms: int = 0


def send(  # noqa: PLR0913 - what it works with
    report: Report,
    settings: Settings,
    deadline: Deadline,
    connect: Callable[[Deadline], Caller],
    now: Callable[[], Moment],
    *,
    kept: Callable[[], None] | None = None,
) -> Sent:
    """Keep one heartbeat, then deliver what waits for its deployment, and it; all within the deadline.

    `kept` is called once it is on the disk. Raises `UsageProblem` before anything was kept or sent; after the
    attempt was logged `Refused` when the deployment will never take it (it is set aside), `Lost` when it
    could be neither delivered nor kept.
    """
    return _logged(report, settings, now, lambda attempt: attempt.run(connect, kept), deadline)


def keep(
    report: Report, settings: Settings, now: Callable[[], Moment], problem: HeartbeatError | None
) -> Sent:
    """Only keep one heartbeat, for whoever delivers next; `problem` is why, where there is one.

    Raises as `send` does, `Lost` where it cannot be kept.
    """
    deadline = Deadline(settings.deadline_s)
    return _logged(report, settings, now, lambda attempt: attempt.keep(problem), deadline)


def _logged(
    report: Report,
    settings: Settings,
    now: Callable[[], Moment],
    work: Callable[[_Attempt], None],
    deadline: Deadline,
) -> Sent:
    began, moment = time.monotonic(), report.at or now()
    heartbeat, notes = _compose(report, settings, moment.wall_ms)
    sent = Sent(heartbeat, notes)
    failure: HeartbeatError | None = None
    try:
        work(_Attempt(sent, settings, deadline, moment, now))
    except HeartbeatError as error:
        failure = error
        raise
    finally:
        sent.elapsed_ms = round((time.monotonic() - began) * 1000)
        mishap = log.append(settings.log_path, _log_line(sent, failure, now().wall_ms))
        if mishap:
            notes.append(mishap)
        if failure is not None:
            failure.notes = notes
    return sent


class _Attempt:
    """One `send`, from the spool to the answer; what is known of it by now stands in `sent`."""

    def __init__(
        self, sent: Sent, settings: Settings, deadline: Deadline, moment: Moment, now: Callable[[], Moment]
    ) -> None:
        self._sent = sent
        self._now = now
        self._url = settings.deployment()
        self._deadline = deadline
        self._spool = Spool(settings.data_dir, busy_s=settings.deadline_s * BUSY_SHARE)
        token = fingerprint(settings.needed_token())
        self._entry = Entry.new(sent.heartbeat.body(), settings.spooled_as(), token, moment)
        self._unkept: SpoolProblem | None = None
        self._reached = False

    def keep(self, problem: HeartbeatError | None) -> None:
        """Only into the spool; `problem` is why. Raises `Lost`."""
        try:
            self._spool.add(self._entry)
        except SpoolProblem as unkept:
            raise Lost(f"{self._entry.agent} cannot be kept: {unkept}", hint=unkept.hint) from None
        self._sent.problem = problem or Spooled("it was only kept")

    def run(self, connect: Callable[[Deadline], Caller], kept: Callable[[], None] | None) -> None:
        """Fills in `sent`; raises what `send` raises."""
        try:
            self._spool.add(self._entry)
        except SpoolProblem as problem:
            self._unkept = problem
        else:
            if kept is not None:
                kept()
        try:
            if self._my_turn():
                self._deliver(connect(self._deadline))
            else:
                self._by_another()
        except (Refused, Unreachable) as error:
            self._undelivered(error)
        finally:
            self._spool.done()
        if self._unkept is not None:
            self._sent.notes.append(f"delivered, but it could not be kept first: {self._unkept}")

    def _my_turn(self) -> bool:
        """Wait for the process that delivers. False when it has delivered this one, or tried to, has made it
        one for another deployment, or takes too long.
        """
        try:
            while not self._spool.alone():
                if self._unkept is None:
                    entry = self._spool.find(self._entry.heartbeat_id)
                    if entry is None or entry.tries or self._deadline.left() < LEAST_TURN_S:
                        return False
                elif self._deadline.left() < self._deadline.seconds / 2:
                    return True  # nobody else can deliver it
                time.sleep(TURN_POLL_S)
            if self._unkept is not None:
                return True
            entry = self._spool.find(self._entry.heartbeat_id)
            return entry is not None and entry.deployment == self._entry.deployment
        except SpoolProblem as problem:
            if self._unkept is None:
                self._sent.notes.append(str(problem))
            return True

    def _deliver(self, caller: Caller) -> None:
        enough = self._deadline.seconds * (1 - OLDER_SHARE)
        older = Delivery(
            self._spool,
            self._entry.deployment,
            self._entry.fingerprint,
            caller,
            self._now,
            may_go_on=lambda: self._deadline.left() > enough,
            but=self._entry.heartbeat_id,
        )
        try:
            older.run()
        except SpoolProblem as problem:
            if self._unkept is None:
                self._sent.notes.append(str(problem))
        except Unreachable as error:
            if not answered(error):
                raise  # otherwise what failed with the others may do with ours
        finally:
            self._reached = older.reached
            self._sent.notes += older.told(self._url)
        notes: list[str] = []
        counts = self._counts(caller, notes)
        try:
            answer = caller.mutation(RECORD, "heartbeat", lambda: self._entry.wire(self._now()) | counts)
            self._sent.answer = done(answer, RECORD)
        except (Refused, Unreachable) as error:
            self._spool.hurry()
            if answered(error) or getattr(error, "maybe_done", False):
                blamed = error
                self._book(lambda: older.failed(self._entry, blamed))
            raise
        self._book(lambda: self._spool.forget(self._entry))
        self._book(lambda: self._spool.contact(self._entry.deployment, self._now().wall_ms, None))
        self._sent.notes += [*notes, *worth_saying(self._sent.answer)]

    def _counts(self, caller: Caller, notes: list[str]) -> dict[str, int]:
        """What to add to the heartbeat; nothing where it has its counts, or the deployment is to count."""
        heartbeat = self._sent.heartbeat
        if heartbeat.open_tasks is not None or heartbeat.run is not None:
            return {}
        body = {"agent": heartbeat.agent, "at": heartbeat.sent_at}
        try:
            counts = caller.query("queries/getAgentTaskCounts", "request", body)
        except (Refused, Unreachable) as error:
            if not answered(error):
                raise
            notes.append(f"the task counts could not be read ({error}); the deployment counts")
            return {}
        if counts.get("unknownStatuses"):
            words = ", ".join(f"'{word}'" for word in counts["unknownStatuses"])
            notes.append(
                f"tasks with the unknown status {words} count as open; convex/fleet.ts says which there are"
            )
        if counts.get("capped") or counts.get("mirrored"):
            return {}  # counted by the deployment itself, it stays marked as at its limit, or as of when
        return {"openTasks": int(counts["openTasks"]), "staleTasks": int(counts["staleTasks"])}

    def _by_another(self) -> None:
        """What became of it in the hands of the process that delivers."""
        busy = Spooled(f"another process is still delivering after {self._deadline.seconds:g} s")
        try:
            entry = self._spool.leave(self._entry.heartbeat_id)
            if entry is None:
                self._sent.answer = self._spool.answer(self._entry.heartbeat_id)
                if self._sent.answer is None:
                    raise Lost(f"{self._entry.agent} was taken out of the spool (heartbeat spool drop)")
                return
        except SpoolProblem:  # it is in there all the same
            self._sent.problem = busy
            return
        if entry.state == "aside":
            raise Refused(entry.reason or "refused", code=entry.code)
        if entry.deployment != self._entry.deployment:
            self._sent.problem = Spooled(f"it goes to {entry.deployment} now (heartbeat connect)")
            return
        self._sent.problem = Spooled(entry.reason) if entry.tries and entry.reason else busy

    def _undelivered(self, error: Refused | Unreachable) -> None:
        self._spool.hurry()
        if not answered(error) and not self._reached:
            away = Trouble(error.code, str(error))
            self._book(lambda: self._spool.contact(self._entry.deployment, self._now().wall_ms, away))
        if self._unkept is not None:
            again = isinstance(error, Unreachable) and error.maybe_done
            raise Lost(
                f"{self._entry.agent} is neither delivered nor kept: {error}; and {self._unkept}",
                hint="; ".join(
                    filter(None, [error.hint, self._unkept.hint, SENDING_AGAIN if again else None])
                ),
            ) from None
        if error.code in FOR_GOOD:
            error.hint = error.hint or SET_ASIDE
            raise error
        self._sent.problem = error

    def _book(self, write: Callable[[], None]) -> None:
        """Bookkeeping that can fail without harm: an entry that stays is delivered again, as a duplicate."""
        if self._unkept is None:
            try:
                write()
            except SpoolProblem as problem:
                self._sent.notes.append(str(problem))


def _compose(report: Report, settings: Settings, sent_at: int) -> tuple[Heartbeat, list[str]]:
    agent = agent_name(report.agent)
    warnings: list[str] = []
    status = "error" if report.status is None and report.error is not None else report.status
    if status is None:
        status = _status_of_row(agent, settings, warnings) or "ok"
    heartbeat, notes = compose(
        heartbeat_id=report.heartbeat_id or heartbeat_id(sent_at, os.urandom(RANDOM_BYTES)),
        agent=agent,
        sent_at=sent_at,
        status=status,
        # what a job prints when it fails may be its whole environment, our token with it
        summary=report.summary and scrubbed(report.summary),
        error=report.error and scrubbed(report.error),
        result=report.result,
        open_tasks=report.open_tasks,
        stale_tasks=report.stale_tasks,
        host=settings.host,
        client_version=__version__,
        run=report.run,
    )
    return heartbeat, warnings + notes


def _status_of_row(agent: str, settings: Settings, warnings: list[str]) -> str | None:
    """The status that the schedule gives this agent. A bad row is a warning: the heartbeat matters more."""
    if not os.path.isfile(settings.schedule_path):  # noqa: PTH113 - pathlib raises where it may not look
        return None
    try:
        row = schedule.load_own_row(settings.schedule_path, agent)
    except UsageProblem as problem:
        warnings.append(f"{problem}; going on without its defaults")
    else:
        return row.status if row else None
    return None


def _log_line(sent: Sent, failure: HeartbeatError | None, now: int) -> str:
    heartbeat, answer, run = sent.heartbeat, sent.answer or {}, sent.heartbeat.run
    problem = failure or sent.problem
    outcome = answer.get("outcome", "interrupted")
    if problem is not None:
        outcome = "spooled" if failure is None else problem.code
    fields: dict[str, log.Value] = {
        "agent": heartbeat.agent,
        "outcome": outcome,
        "cause": getattr(problem, "cause", None),
        "health": answer.get("health"),
        "open": answer.get("openTasks", heartbeat.open_tasks),
        "stale": answer.get("staleTasks", heartbeat.stale_tasks),
        "status": heartbeat.status,
        "result": heartbeat.result,
        "run": run.phase if run else None,
        "exit": run.exit_code if run else None,
        "elapsed_ms": sent.elapsed_ms,
        "id": heartbeat.heartbeat_id,
    }
    texts = {
        "problem": str(problem) if problem else None,
        "summary": heartbeat.summary,
        "error": heartbeat.error,
    }
    return log.line(now, fields, texts)
