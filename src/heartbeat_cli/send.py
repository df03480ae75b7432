"""One heartbeat from a command line to the deployment: defaults, counts, payload, delivery, log, one line.

    asked for ──▶ composed ──▶ counted ──▶ delivered ──▶ recorded | duplicate    exit 0
        │            │            │            ├───────▶ refused                 exit 1
        │            │            │            └───────▶ unreachable             exit 75
        │            │            └── counts cannot be read, deployment answers: the deployment counts
        │            └── no address, no token: exit 2, nothing sent
        └── cannot be meant: exit 2, nothing sent, nothing logged

What became of a heartbeat that was composed stands in the log, whatever it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from heartbeat_cli import __version__, log, schedule, times
from heartbeat_cli.config import Settings
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable, UsageProblem
from heartbeat_cli.heartbeat import Heartbeat, agent_name, compose, heartbeat_id
from heartbeat_cli.output import shown

RANDOM_BYTES = 10  # of a heartbeat id
SKEW_WORTH_SAYING_MS = times.MINUTE_MS  # rule 1: it harms nothing, but somebody should set that clock
SENDING_AGAIN = "to send it again makes a second heartbeat, which does no harm"
WATCHED = "active"  # the control that needs no mention
# Such an answer came from something that speaks for the deployment: the heartbeat itself may get through
_STILL_REACHABLE = frozenset({"function_missing", "server_error"})


class Caller(Protocol):
    """The part of a connection that sending needs."""

    def query(self, path: str, body_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `client.Connection` has it."""

    def mutation(self, path: str, body_name: str, body: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """As `client.Connection` has it; `body` makes what one attempt sends."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked to be reported; None where nothing was given."""

    agent: str
    status: str | None = None
    summary: str | None = None
    error: str | None = None
    result: str | None = None
    open_tasks: int | None = None
    stale_tasks: int | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A heartbeat that the deployment has: what was sent, what it answered, what else people should know."""

    heartbeat: Heartbeat
    answer: Mapping[str, Any]
    elapsed_ms: int
    notes: tuple[str, ...]


def send(
    report: Report, settings: Settings, connect: Callable[[], Caller], now_ms: Callable[[], int]
) -> Sent:
    """Deliver one heartbeat within the deadline that `connect` starts.

    Raises `UsageProblem` before anything was sent, `Refused` or `Unreachable` after the attempt was logged.
    """
    started = time.monotonic()
    heartbeat, notes = _compose(report, settings, now_ms())
    outcome: dict[str, log.Value] = {}
    problem: str | None = None
    try:
        connection = connect()
        heartbeat = _counted(heartbeat, connection, notes)
        # each attempt tells the instant at which it is made, from which the deployment reckons the age
        answer = connection.mutation(
            "mutations/recordHeartbeat", "heartbeat", lambda: heartbeat.wire(now_ms())
        )
        outcome = {"outcome": answer["outcome"], "health": answer["health"]}
        outcome |= {"open": answer.get("openTasks"), "stale": answer.get("staleTasks")}
    except HeartbeatError as error:
        outcome, problem = {"outcome": error.code, "cause": getattr(error, "cause", None)}, str(error)
        if isinstance(error, Unreachable) and error.maybe_done:
            error.hint = f"{error.hint}; {SENDING_AGAIN}"
        raise
    finally:
        elapsed_ms = round((time.monotonic() - started) * 1000)
        line = _log_line(heartbeat, outcome, problem, elapsed_ms, now_ms())
        trouble = log.append(settings.log_path, line)
        if trouble:
            notes.append(trouble)
    return Sent(heartbeat, answer, elapsed_ms, (*notes, *_worth_saying(answer)))


def _compose(report: Report, settings: Settings, sent_at: int) -> tuple[Heartbeat, list[str]]:
    agent = agent_name(report.agent)
    warnings: list[str] = []
    status = "error" if report.status is None and report.error is not None else report.status
    if status is None:
        status = _status_of_row(agent, settings, warnings) or "ok"
    heartbeat, notes = compose(
        heartbeat_id=heartbeat_id(sent_at, os.urandom(RANDOM_BYTES)),
        agent=agent,
        sent_at=sent_at,
        status=status,
        summary=report.summary,
        error=report.error,
        result=report.result,
        open_tasks=report.open_tasks,
        stale_tasks=report.stale_tasks,
        host=settings.host,
        client_version=__version__,
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


def _counted(heartbeat: Heartbeat, connection: Caller, notes: list[str]) -> Heartbeat:
    if heartbeat.open_tasks is not None:
        return heartbeat
    try:
        counts = connection.query(
            "queries/getAgentTaskCounts", "request", {"agent": heartbeat.agent, "at": heartbeat.sent_at}
        )
    except (Refused, Unreachable) as error:
        if isinstance(error, Unreachable) and error.cause not in _STILL_REACHABLE:
            raise
        notes.append(f"the task counts could not be read ({error}); the deployment counts")
        return heartbeat
    if counts.get("unknownStatuses"):
        words = ", ".join(f"'{word}'" for word in counts["unknownStatuses"])
        notes.append(
            f"tasks with the unknown status {words} count as open; convex/fleet.ts says which there are"
        )
    if counts.get("capped"):
        return heartbeat  # counted by the deployment itself, a count at its limit stays marked as one
    return heartbeat.model_copy(
        update={"open_tasks": int(counts["openTasks"]), "stale_tasks": int(counts["staleTasks"])}
    )


def _log_line(
    heartbeat: Heartbeat, outcome: Mapping[str, log.Value], problem: str | None, elapsed_ms: int, now: int
) -> str:
    counts = {"open": heartbeat.open_tasks, "stale": heartbeat.stale_tasks}
    fields = {
        "agent": heartbeat.agent,
        "outcome": "interrupted",  # unless something better is known
        "health": None,
        **counts,
        **{name: value for name, value in outcome.items() if value is not None},
        "status": heartbeat.status,
        "result": heartbeat.result,
        "elapsed_ms": elapsed_ms,
        "id": heartbeat.heartbeat_id,
    }
    texts = {"problem": problem, "summary": heartbeat.summary, "error": heartbeat.error}
    return log.line(now, fields, texts)


def _worth_saying(answer: Mapping[str, Any]) -> list[str]:
    notes = []
    skew = answer.get("skewMs") or 0
    if abs(skew) > SKEW_WORTH_SAYING_MS:
        side = "behind" if skew > 0 else "ahead of"
        notes.append(
            f"this host's clock is {times.span(abs(skew))} {side} the deployment's, whose clock decides"
        )
    return notes


def line(sent: Sent, deployment: str, now: int) -> str:
    """`hint ok (working) · 12 open, 3 stale · due 06:00 UTC · http://127.0.0.1:7210`."""
    answer, health = sent.answer, shown(str(sent.answer["health"]))
    status = sent.heartbeat.status.lower()
    said = "" if status == health or (status, health) == ("error", "failing") else f" ({shown(status)})"
    parts = [f"{sent.heartbeat.agent} {health}{said}"]
    if answer.get("healthBefore") == "degraded" and health != "degraded":
        parts.append("was degraded until now")
    if answer["outcome"] == "duplicate":
        parts.append("duplicate: it was recorded before")
    if answer.get("reason") and health == "degraded":
        parts.append(shown(str(answer["reason"])))
    parts.append(_counts(answer))
    control = answer.get("control", WATCHED)
    if control != WATCHED:
        parts.append(shown(str(control)))
    elif answer.get("dueAt") is not None:
        parts.append(f"due {times.clock(answer['dueAt'], now)}")
    if answer.get("linked") is False:
        parts.append("not linked")
    return " · ".join([*(part for part in parts if part), deployment])


def _counts(answer: Mapping[str, Any]) -> str:
    if answer.get("openTasks") is None:
        return ""
    plus = "+" if answer.get("countsCapped") else ""
    return f"{int(answer['openTasks'])}{plus} open, {int(answer.get('staleTasks') or 0)} stale"
