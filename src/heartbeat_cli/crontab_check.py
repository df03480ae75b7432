"""Where the table, the crontab and the deployment differ, each with the command that mends it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from heartbeat_cli import crontab_agents, crontab_lines, crontab_text
from heartbeat_cli.crontab_lines import Entry, Host
from heartbeat_cli.fleet import Row as Watched
from heartbeat_cli.schedule import Cron, Interval, Row, schedule_text

PAGE = "cron-schedule.md"
INSTALL = "heartbeat cron install"
EDIT = "crontab -e"
APPLY = "heartbeat apply --agents-only"

Kind = Literal["missing", "extra", "schedule", "zone", "command", "block", "backend"]
_REPORTS = r"heartbeat(?:_cli)?['\"]? +(?:run|send) +{}(?![\w-])"
_OPTION = re.compile(r"--only-at ('[^']*'|\S+) --tz (\S+)")


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: `kind`, whom it is about (None: nobody alone), what it is, the command that mends it.

    Of the crontab: `missing` and `extra` lines, another `schedule`, `zone` or `command`, a `block` that is
    not as we write it. `backend`: what the deployment expects is not what the table says.
    """

    kind: Kind
    agent: str | None
    what: str
    command: str


def check(
    rows: Sequence[Row], host: Host, text: bytes | None, agents: Sequence[Watched] | None, now_ms: int
) -> list[Difference]:
    """Every difference, for the rows that concern this host; `text` None is a user without a crontab,
    `agents` None a deployment that was not asked.

    Raises `ScheduleProblem` as `crontab_lines.entries` does, and `CrontabProblem` where the crontab's markers
    are damaged.
    """
    wanted = crontab_lines.entries(rows, host, PAGE, now_ms)
    found = list(_crontab(wanted, host, text or b""))
    if agents is not None:
        found += _deployment(crontab_lines.concerned(rows, host.name), agents)
    return found


def doubles(text: bytes, rows: Sequence[Row], own: str) -> list[Difference]:
    """Lines outside the block `own` that do what a row does: they would run its command, or report, twice."""
    found: list[Difference] = []
    for entry in crontab_text.entries(text):
        if entry.block == own:
            continue
        line = entry.command.decode(*crontab_text.ENCODING)
        plain = entry.block is None
        where = f"line {entry.number} of the crontab{'' if plain else f', in the block of {entry.block},'}"
        for row in rows:
            if row.command and plain and entry.stdin is None and line.strip() == row.command:
                what, mend = f"{where} runs the command of {row.agent} beside the block", INSTALL
            elif row.command and row.command in line:
                what, mend = f"{where} seems to run the command of {row.agent} too: {line}", EDIT
            elif plain and re.search(_REPORTS.format(re.escape(row.agent)), line):
                what, mend = f"{where} reports for {row.agent} too", EDIT
            else:
                continue
            found.append(Difference("extra", row.agent, what, mend))
    return found


def _crontab(wanted: Sequence[Entry], host: Host, text: bytes) -> Iterator[Difference]:
    stands = crontab_text.block_of(text, host.block)
    lines = [line.decode(*crontab_text.ENCODING).removesuffix("\n") for line in stands or []]
    sections = crontab_agents.sections(lines)
    found = list(_rows(wanted, sections))
    names = {entry.row.agent for entry in wanted}
    for agent, section in sections.items():
        if section and agent not in names and agent != crontab_agents.SPOOL_LABEL:
            what = f"the crontab runs {agent}, of which the table says nothing for this host"
            found.append(Difference("extra", agent, what, INSTALL))
    if wanted and not sections.get(crontab_agents.SPOOL_LABEL):
        what = "no line of the crontab delivers what waits in the spool"
        found.append(Difference("missing", None, what, INSTALL))
    yield from found
    if not found and lines != crontab_lines.block(wanted, host):
        yield Difference("block", None, "the block in the crontab is not as it would be written now", INSTALL)
    yield from doubles(text, [entry.row for entry in wanted], host.block)
    for agent, line in crontab_text.held(text, host.block):
        if stands is None:
            said = line.decode(*crontab_text.ENCODING).strip()
            what = f"a line of {agent} is held for a block that is gone, so nothing runs it: {said}"
            yield Difference("missing", agent, what, INSTALL)


def _rows(wanted: Sequence[Entry], sections: dict[str, list[tuple[str, str]]]) -> Iterator[Difference]:
    for entry in wanted:
        agent, stands = entry.row.agent, sections.get(entry.row.agent, [])
        whens, jobs = {when for when, _ in stands}, {job for _, job in stands}
        if not stands:
            yield Difference("missing", agent, f"no line of the crontab runs {agent}", INSTALL)
        elif jobs == {entry.job} and whens != set(entry.whens):
            yield Difference("schedule", agent, _when(agent, whens, entry), INSTALL)
        elif jobs != {entry.job}:
            meant = schedule_text(entry.row.schedule)
            zones = {_only_at(job) for job in jobs}
            if zones != {_only_at(entry.job)}:
                said = ", ".join(sorted(zone or "the host's clock" for zone in zones))
                what = f"the crontab runs {agent} by {said}; the table says {meant}"
                yield Difference("zone", agent, what, INSTALL)
            elif whens != set(entry.whens):
                yield Difference("schedule", agent, _when(agent, whens, entry), INSTALL)
            else:
                what = f"the crontab has another command for {agent} than the table and this installation"
                yield Difference("command", agent, what, INSTALL)


def _when(agent: str, whens: set[str], entry: Entry) -> str:
    meant = schedule_text(entry.row.schedule)
    return f"the crontab runs {agent} at {' and '.join(sorted(whens))}; the table says {meant}"


def _only_at(job: str) -> str | None:
    found = _OPTION.search(job)
    return f"{shlex.split(found[1])[0]} {found[2]}" if found else None


def _deployment(rows: Sequence[Row], agents: Sequence[Watched]) -> Iterator[Difference]:
    by_name = {str(agent.get("agent")): agent for agent in agents}
    for row in rows:
        watched = by_name.get(row.agent)
        if watched is None:
            what = f"the deployment does not watch {row.agent}"
            yield Difference("backend", row.agent, what, APPLY)
            continue
        theirs = _expected(watched.get("schedule"))
        if theirs is not None and theirs != row.schedule:
            what = (
                f"the deployment expects {row.agent} at {schedule_text(theirs)};"
                f" the table says {schedule_text(row.schedule)}"
            )
            yield Difference("backend", row.agent, what, APPLY)


def _expected(wire: object) -> Interval | Cron | None:
    """The schedule as a deployment tells it; None for one that we do not know."""
    match wire:
        case {"kind": "interval", "everyMs": every}:
            return Interval(int(every))
        case {"kind": "cron", "expression": str(expression), "timeZone": str(zone)}:
            return Cron(expression, zone)
    return None
