"""`heartbeat doctor`: every check, run side by side within one deadline, and what they found.

A check, and who moves it:

    running ──looks──▶ found: ok, warning, problem, with the value and what to type
       │      └──another check's trouble stands in the way──▶ not looked at
       └──the deadline──▶ a problem: whatever it looks at hangs; its thread is left behind

Each check is a small function that is handed what it needs; the facts come from the modules that own them.
None changes anything.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heartbeat_cli import (
    doctor_commands,
    doctor_cron,
    doctor_fleet,
    doctor_functions,
    doctor_here,
    doctor_local,
    doctor_there,
    schedule,
)
from heartbeat_cli.config import Settings
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.doctor_cron import Cron
from heartbeat_cli.doctor_finding import Check, Checks, Finding, NotLooked, Shared, problem
from heartbeat_cli.doctor_fleet import Watched
from heartbeat_cli.doctor_here import Here
from heartbeat_cli.doctor_there import There
from heartbeat_cli.errors import HeartbeatError, ScheduleProblem
from heartbeat_cli.output import shown

if TYPE_CHECKING:
    from rich.text import Text

STATES = ("ok", "warning", "problem")  # in the order of the report: the worst stands where the eye is, last
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
COLUMNS = 80  # of the report, wherever it goes; commands are never broken
NAME_COLUMNS = 16


@dataclass(slots=True)
class Report:
    """What was found, in the order of the checks; `unchecked` are those that could not look, and why."""

    findings: list[tuple[str, Finding]] = field(default_factory=list)
    unchecked: list[tuple[str, str]] = field(default_factory=list)

    def count(self, state: str) -> int:
        """How many findings are in this state."""
        return sum(finding.state == state for _, finding in self.findings)

    def data(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "findings": [
                {"check": name, "state": found.state, "message": found.message, "fix": found.fix}
                for name, found in self.findings
            ],
            "unchecked": [{"check": name, "because": why} for name, why in self.unchecked],
            "totals": {state: self.count(state) for state in STATES},
        }


def all_checks(settings: Settings, deadline: Deadline, now_ms: Callable[[], int]) -> Checks:
    """Every check there is, in the order of the report."""
    waiting = Shared(lambda: doctor_here.waiting(settings))
    page = Shared(lambda: schedule.load(settings.schedule_path))
    there = There(settings, deadline, now_ms, waiting, page)
    yield from doctor_here.checks(Here(settings, now_ms, waiting), there)
    yield from doctor_local.checks(there)
    yield from doctor_there.checks(there)
    yield from doctor_functions.checks(there)
    watched = Watched(there)
    yield from doctor_fleet.checks(watched)
    cron = Cron(settings, deadline, now_ms, page)
    yield from doctor_cron.checks(cron, watched)
    yield from doctor_commands.checks(cron)


class _Running:
    """A check in a thread of its own."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self.found: list[Finding] | None = None
        self.unchecked: str | None = None
        self.bug: BaseException | None = None
        self._check = check
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            self.found = list(self._check())
        except NotLooked as reason:
            self.unchecked = str(reason)
        except ScheduleProblem as error:
            self.found = [
                problem(f"line {line} of the schedule: {trouble}", f"edit line {line}; then heartbeat apply")
                for line, trouble in error.problems
            ]
        except HeartbeatError as error:
            self.found = [problem(str(error), error.hint)]
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            self.found = [problem(f"{what}{error.strerror or error}", None)]
        except BaseException as error:
            self.bug = error

    def wait(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))


def examine(checks: Iterable[tuple[str, Check]], deadline: Deadline) -> Report:
    """Run all checks side by side. Returns by the deadline, whatever hangs."""
    report = Report()
    for check in [_Running(name, check) for name, check in checks]:
        check.wait(deadline.left())
        if check.bug is not None:
            raise check.bug
        if check.unchecked is not None:
            report.unchecked.append((check.name, check.unchecked))
            continue
        late = f"no answer within {deadline.seconds:g} s: what it looks at hangs, or is slow"
        found = [problem(late, "heartbeat doctor --deadline 60")] if check.found is None else check.found
        report.findings += [(check.name, finding) for finding in found]
    return report


def lines(report: Report) -> list[str | Text]:
    """The report for people: the worst last, and after it how many of each there are."""
    told: list[str | Text] = []
    for state in STATES:
        for name, finding in report.findings:
            if finding.state == state:
                told += _told(name, finding)
    for why in dict.fromkeys(why for _, why in report.unchecked):
        names = ", ".join(name for name, because in report.unchecked if because == why)
        told += _wrapped(f"not looked at: {names} ({shown(why)})", COLUMNS)
    totals = ", ".join(_counted(report.count(state), state) for state in reversed(STATES))
    return [*told, totals]


def _counted(number: int, state: str) -> str:
    return f"{number} {state}{'' if number == 1 or state == 'ok' else 's'}"


def _told(name: str, finding: Finding) -> Iterator[str | Text]:
    from rich.text import Text  # noqa: PLC0415 - only people pay for it

    head = f"{finding.state:<8} {name:<{NAME_COLUMNS}}"
    first, *more = _wrapped(shown(finding.message), COLUMNS - len(head))
    yield Text.assemble((head[:8], STYLES[finding.state]), head[8:], first)
    yield from (" " * len(head) + line for line in more)
    if finding.fix is not None:
        # on one line, however long: it is there to be copied
        yield f"{'':<8} -> {finding.fix}"


def _wrapped(text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False) or [""]
