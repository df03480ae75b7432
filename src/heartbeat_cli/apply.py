"""Registering the schedule's agents: planned on the deployment, shown, and only then done.

parsed ──dry run──▶ planned ──▶ nothing to change
   │         │          └─asked─▶ applied
   │         └─▶ refused: each problem with the line it is about, nothing written
   └─▶ the table cannot be read: each line, nothing sent
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from heartbeat_cli import contract, times
from heartbeat_cli.contact import DEPLOY
from heartbeat_cli.errors import ScheduleProblem
from heartbeat_cli.fleet import LINK, NOT_LINKED
from heartbeat_cli.output import shown
from heartbeat_cli.schedule import Row, schedule_text

BATCH = 200  # agents in one mutation: the backend's limit, which keeps it well inside a transaction's
SOURCE_LIMIT = 1000  # characters

Change = Mapping[str, Any]


class Caller(Protocol):
    """The part of a connection that applying needs."""

    def query(self, path: str, body_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `client.Connection` has it."""

    def mutation(self, path: str, body_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `client.Connection` has it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What applying changes, or changed: one change for each row, and the agents no longer listed.

    `stopped_at`: the monitor there had been stopped then (epoch ms), and applying starts it again.
    """

    changes: list[Change]
    unlisted: list[str]
    stopped_at: int | None = None

    @property
    def changed(self) -> list[Change]:
        """Those that change something."""
        return [change for change in self.changes if change["change"] != "unchanged"]


def source(host: str, home: Path) -> str:
    """Who registers: what this source registered and no longer lists is told from another host's."""
    return f"{host}:{home.absolute()}"[:SOURCE_LIMIT]


def understood(connection: Caller, rows: Sequence[Row]) -> tuple[list[Row], str | None]:
    """The rows as the deployment's functions understand them, and what to tell where they are too old for all
    of it.
    """
    if all(row.fail_after is None for row in rows):
        return list(rows), None
    known = connection.query("queries/getMonitorStatus", "request", {}).get("contractVersion")
    if isinstance(known, int) and known >= contract.FAIL_AFTER_SINCE:
        return list(rows), None
    note = f"the functions there do not know the column 'fail after' yet: it is left out; {DEPLOY}"
    return [replace(row, fail_after=None) for row in rows], note


def submit(  # noqa: PLR0913 - what is submitted, and for whom
    connection: Caller, rows: Sequence[Row], listed: Sequence[str], page: Path, source: str, *, dry_run: bool
) -> Outcome:
    """Have the deployment judge (`dry_run`) or apply these rows of `page`, in batches.

    The last batch names every agent that the page lists, also those that concern other hosts only.

    Raises `ScheduleProblem` with the line of every row that the deployment refuses: of a dry run nothing is
    ever written, and each batch of the other kind is written whole or not at all.
    """
    changes: list[Change] = []
    unlisted: list[str] = []
    problems: list[tuple[int, str]] = []
    stopped_at: int | None = None
    for start in range(0, len(rows) or 1, BATCH):
        batch = rows[start : start + BATCH]
        body: dict[str, Any] = {"source": source, "agents": [row.wire() for row in batch], "dryRun": dry_run}
        if start + BATCH >= len(rows):
            body["listed"] = list(listed)
        answer = connection.mutation("mutations/applySchedule", "schedule", body)
        if answer["outcome"] == "refused":
            problems += _with_lines(answer["problems"], batch)
            if not dry_run:
                break
            continue
        asked = {row.agent for row in batch}
        changes += [change for change in answer["changes"] if change["agent"] in asked]
        unlisted += answer["unlisted"]
        stopped_at = answer.get("stoppedAt", stopped_at)
    if problems:
        problems.sort()
        raise ScheduleProblem(f"the deployment refuses {page}", problems, hint="nothing was changed")
    return Outcome(changes, unlisted, stopped_at)


def _with_lines(problems: Sequence[Mapping[str, Any]], batch: Sequence[Row]) -> list[tuple[int, str]]:
    lines = {row.agent: row.line for row in batch}
    return [
        (lines.get(problem["agent"], 0), f"{problem['agent']}, {problem['field']}: {problem['message']}")
        for problem in problems
    ]


def lines(outcome: Outcome, rows: Sequence[Row], now: int) -> list[str]:
    """The diff for people: what is added (+), changed (~), the same (=), who left the file (?), and who
    stands in it and is not watched (!).
    """
    by_name = {row.agent: row for row in rows}
    width = max((len(change["agent"]) for change in outcome.changed), default=0)
    wide = max(
        (len(schedule_text(by_name[change["agent"]].schedule)) for change in outcome.changed), default=0
    )
    found = []
    for change in outcome.changed:
        row = by_name[change["agent"]]
        if change["change"] == "added":
            first = change.get("firstDueAt")
            mark, more = "+", "" if first is None else f"first expected {times.clock(first, now)}"
        else:
            mark, more = "~", f"({shown(', '.join(change['fields']))})"
        found.append(
            f"  {mark} {row.agent:<{width}}  {shown(schedule_text(row.schedule)):<{wide}}  {more}".rstrip()
        )
    if outcome.stopped_at is not None:
        since = times.ago(outcome.stopped_at, now)
        found.append(f"  ! the sweep there was stopped {since}: applying starts it again")
    unchanged = len(outcome.changes) - len(outcome.changed)
    if unchanged:
        found.append(f"  = {unchanged} unchanged")
    lost = [shown(str(change["agent"])) for change in outcome.changes if change.get("linked") is False]
    if lost:
        found += [f"  ! not linked: {', '.join(lost)}: {NOT_LINKED};", f"    {LINK}"]
    found += [
        f"  ! {agent} is {control}, not watched: heartbeat agents resume {agent}"
        for agent, control in _not_watched(outcome)
    ]
    found += [
        f"  ? {name} left the schedule and is still watched; to end that: heartbeat agents retire {name}"
        for name in map(shown, outcome.unlisted)
    ]
    return found


def _not_watched(outcome: Outcome) -> list[tuple[str, str]]:
    """Agents of the file that are paused or retired, which applying does not change."""
    return [
        (shown(str(change["agent"])), shown(str(change["control"])))
        for change in outcome.changes
        if change.get("control")
    ]
