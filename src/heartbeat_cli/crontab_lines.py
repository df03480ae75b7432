"""The crontab lines of a schedule: what a host's cron runs so that the agents run and report. Pure.

A row with a command (HB is our program):
    set -- 'CMD'; if HB --version …; then exec HB run AGENT … -- SH -c "$1"; else exec SH -c "$1"; fi
so that CMD runs, once, also where our program is gone. A row without one sends a heartbeat, which proves that
cron runs and no more. One more line delivers what waits in the spool.

A line stands on nothing that cron does not give: absolute paths, no reliance on PATH, every % and backslash
as cron reads it, no secret in it. What a command writes goes where it went before: to cron, which mails it.
"""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from heartbeat_cli import crontab_agents, crontab_job, crontab_text, crontab_zones, firing, times
from heartbeat_cli.crontab_agents import SPOOL_LABEL
from heartbeat_cli.durations import duration_text
from heartbeat_cli.errors import CrontabProblem, ScheduleProblem
from heartbeat_cli.schedule import Interval, Row, schedule_text

if TYPE_CHECKING:
    from heartbeat_cli.config import Settings

HOUR_MINUTES = 60
DAY_HOURS = 24
DAY_MINUTES = DAY_HOURS * HOUR_MINUTES
COMMAND_LIMIT = 998  # bytes after the five fields: Debian's cron refuses more (MAX_COMMAND of its cron.h)
SPOOL_WHEN = "*/5 * * * *"
PROVES = "proves that cron runs, not that the agent works"
SHELL = "/bin/sh"  # of cron, where a crontab names none
# Shells known to read our lines; for any other the block has lines of its own that set the usual one
READS_LINES = frozenset({"sh", "bash", "dash"})
# What a crontab may set that changes what our lines do
UNSETTLING = {
    "CRON_TZ": "cronie then keeps that zone for the lines below it; Debian's cron does not know it",
    "RANDOM_DELAY": "cronie then starts the lines below it late",
    "PYTHONPATH": "our program may then not start, and commands run without it",
    "PYTHONHOME": "our program may then not start, and commands run without it",
    "CONVEX_URL": "the lines below it then report there",
}
OUR_VARIABLES = "HEARTBEAT_"


@dataclass(frozen=True, slots=True)
class Host:
    """The host whose crontab it is: how it calls us, where home and log are, which zone its cron keeps.

    `program` is an argument list of absolute paths; `variables` are what our settings need and cron lacks.
    `shell` runs the commands, and `bracket` says that it cannot read our lines. `restored` are arguments of
    env(1) that give a command the environment it would have without us. `reports` are the agents that its
    token may report for (None: all), `runs` those whose command the crontab runs all the same.
    """

    name: str
    program: Sequence[str]
    home: Path
    log_dir: Path
    zone: tzinfo
    variables: Sequence[tuple[str, str]] = ()
    shell: str = SHELL
    bracket: bool = False
    restored: Sequence[str] = ()
    reports: frozenset[str] | None = None
    runs: frozenset[str] = frozenset()

    @property
    def block(self) -> str:
        """The name of this home's block in the crontab."""
        return shlex.quote(str(self.home))


@dataclass(frozen=True, slots=True)
class Entry:
    """The lines of one row: the five fields of each, and the job that all of them start."""

    row: Row
    whens: tuple[str, ...]
    job: str

    @property
    def lines(self) -> list[str]:
        """As they stand in a crontab."""
        return [f"{when} {self.job}" for when in self.whens]


def program() -> list[str]:
    """How to call this very installation from anywhere, as absolute paths.

    The interpreter alone would put the working directory, under cron the user's home, on its module path: -P.
    """
    script = Path(sys.executable).with_name("heartbeat")
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-P", "-m", "heartbeat_cli"]


def system_zone(etc: Path = Path("/etc")) -> tzinfo:
    """The zone that this host's cron keeps; UTC if none is set. It may have no name."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - as where it is used

    local = etc / "localtime"
    try:
        with local.open("rb") as file:
            return ZoneInfo.from_file(file, key=local.resolve().as_posix().rpartition("/zoneinfo/")[2])
    except (OSError, ValueError):
        return UTC


def host_of(settings: Settings, text: bytes | None, etc: Path = Path("/etc")) -> Host:
    """This host as lines in this crontab need it: what is set above them is known.

    Raises `CrontabProblem` when the crontab's markers are damaged, or the home folder fits in no line.
    """
    home = settings.home
    if "\n" in f"{home}{settings.log_path}{sys.executable}":
        raise CrontabProblem(
            f"the folder {str(home)!r} has a line break in its name, which no crontab can have"
        )
    text = text or b""
    name = shlex.quote(str(home))
    above = crontab_text.variables(text, crontab_text.block_begins(text, name))
    shell = above.get("SHELL", SHELL)
    found_by_cron = {
        "XDG_CONFIG_HOME": above.get("XDG_CONFIG_HOME", f"{_cron_home(above)}/.config"),
        "XDG_DATA_HOME": above.get("XDG_DATA_HOME", f"{_cron_home(above)}/.local/share"),
    }
    ours = {
        "XDG_CONFIG_HOME": str(settings.config_dir.parent),
        "XDG_DATA_HOME": str(settings.data_dir.parent),
    }
    lacking = {name: value for name, value in ours.items() if value != found_by_cron[name]}
    others = [pair for pair in settings.variables() if pair[0] not in ours]
    restored = [
        word for name in lacking for word in ([f"{name}={above[name]}"] if name in above else ["-u", name])
    ]
    return Host(
        name=settings.host,
        program=program(),
        home=home,
        log_dir=settings.log_path.parent,
        zone=system_zone(etc),
        variables=[*lacking.items(), *others],
        shell=shell,
        bracket=Path(shell).name not in READS_LINES,
        restored=sorted(restored, key=lambda word: "=" in word),
        reports=crontab_agents.reported(settings, above),
        runs=frozenset(crontab_agents.running(text, name)),
    )


def concerned(rows: Sequence[Row], host_name: str) -> list[Row]:
    """The rows that concern this host."""
    return [row for row in rows if row.host is None or row.host == host_name]


def lined(rows: Sequence[Row], host: Host) -> list[Row]:
    """The rows that get lines: of those that concern this host, the ones that its token may report for, and
    the ones that it runs already.
    """
    agents = None if host.reports is None else host.reports | host.runs
    return [row for row in concerned(rows, host.name) if agents is None or row.agent in agents]


def unreported(rows: Sequence[Row], host: Host) -> list[str]:
    """What a person should know of the other rows that concern this host."""
    others = [row.agent for row in concerned(rows, host.name) if row.agent not in (host.reports or ())]
    if host.reports is None or not others:
        return []
    without = ", ".join(agent for agent in others if agent not in host.runs)
    going = ", ".join(agent for agent in others if agent in host.runs)
    why = "for which the token that is kept here may not report"
    return [
        *([f"no lines for {without}, {why}: the table is to name their host"] if without else []),
        *([f"the crontab goes on running {going}, {why}"] if going else []),
        f"  if they are to run on {host.name}, it needs another token (heartbeat token create --agents)",
    ]


def entries(rows: Sequence[Row], host: Host, page: str, now_ms: int) -> list[Entry]:
    """The crontab lines of every row that is to have some here, in the order of the table.

    Raises `ScheduleProblem` naming `page` and the line of each row that no crontab can keep, with what to
    write instead.
    """
    found: list[Entry] = []
    problems: list[tuple[int, str]] = []
    for row in lined(rows, host):
        try:
            found.append(_entry(row, host, now_ms))
        except ValueError as problem:
            problems.append((row.line, str(problem)))
    if problems:
        raise ScheduleProblem(
            f"the crontab cannot keep {page}",
            problems,
            hint="nothing was changed; --agents-only leaves cron out",
        )
    return found


def block(found: Sequence[Entry], host: Host) -> list[str]:
    """The lines of the block, each row's under a comment that names it; none for no rows."""
    if not found:
        return []
    lines = ["# made from cron-schedule.md by heartbeat cron install: edit that, not this"]
    if host.bracket:
        lines.append(f"SHELL={SHELL}")
    for entry in found:
        lines.append(f"# {entry.row.agent}" + ("" if entry.row.command else f": {PROVES}"))
        lines += entry.lines
    lines += [f"# {SPOOL_LABEL}", f"{SPOOL_WHEN} {crontab_text.escaped(crontab_job.deliver(host))}"]
    if host.bracket:
        lines.append(f"SHELL={host.shell}")
    return lines


def warnings(text: bytes | None, host: Host) -> list[str]:
    """What of the crontab a person should know, because it changes what our lines do, or they change it."""
    text = text or b""
    begins = crontab_text.block_begins(text, host.block)
    above = crontab_text.variables(text, begins)
    told = [f"the crontab sets {name}: {UNSETTLING[name]}" for name in above if name in UNSETTLING]
    told += [
        f"the crontab sets {name}, which our lines then obey"
        for name in above
        if name.startswith(OUR_VARIABLES) and name not in {"HEARTBEAT_HOME", *dict(host.variables)}
    ]
    if text and not text.endswith(b"\n"):
        told.append(
            "the crontab has no newline at its end, for which cron ignores all of it; it gets one, and runs"
        )
    return told


def moved(text: bytes | None, after: bytes, host: Host) -> list[str]:
    """Lines that the block takes over although other variables were set where they stood."""
    text = text or b""
    wrapped = {line for _, line in crontab_text.held(after, host.block)}
    above = crontab_text.variables(text, crontab_text.block_begins(text, host.block))
    told = []
    for number, line in enumerate(crontab_text.lines_of(text), start=1):
        if line in wrapped or line + b"\n" in wrapped:
            there = crontab_text.variables(text, number)
            other = sorted(name for name in {*above, *there} if above.get(name) != there.get(name))
            if other:
                told.append(
                    f"line {number} of the crontab ran with another {', '.join(other)} than our block has"
                )
    return told


def _cron_home(above: Mapping[str, str]) -> str:
    """The HOME that cron gives."""
    try:
        import os  # noqa: PLC0415
        import pwd  # noqa: PLC0415 - not on Windows

        return above.get("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):
        return above.get("HOME", "/")


def _entry(row: Row, host: Host, now_ms: int) -> Entry:
    """Raises ValueError with what to write instead."""
    only_at: tuple[str, str] | None = None
    if isinstance(row.schedule, Interval):
        whens = _every(row.schedule)
    else:
        expression, zone = row.schedule.expression, row.schedule.zone
        meant = firing.parse(expression)
        year = datetime.fromtimestamp(now_ms / 1000, UTC).year
        days = expression.split(maxsplit=2)[2]
        shifted = crontab_zones.whens(meant, days, firing.zone_of(zone), host.zone, year)
        whens = [expression] if shifted is None else shifted
        only_at = None if shifted is None else (expression, zone)
    job = crontab_text.escaped(
        (crontab_job.wrapped if row.command else crontab_job.report)(row, host, only_at)
    )
    size = len(job.encode("utf-8", "surrogateescape"))
    if size > COMMAND_LIMIT:
        raise ValueError(
            f"cron takes commands of at most {COMMAND_LIMIT} bytes, and this one has {size} with what we add;"
            " put it in a script"
        )
    return Entry(row, tuple(whens), job)


def _every(schedule: Interval) -> list[str]:
    """The five fields of each line of an interval that divides a day."""
    minutes, rest = divmod(schedule.every_ms, times.MINUTE_MS)
    if rest or minutes == 0 or DAY_MINUTES % minutes:
        near = [each for each in range(1, DAY_MINUTES + 1) if DAY_MINUTES % each == 0]
        less = max((each for each in near if each * times.MINUTE_MS < schedule.every_ms), default=1)
        more = min((each for each in near if each * times.MINUTE_MS > schedule.every_ms), default=DAY_MINUTES)
        instead = " or ".join(
            f"every {duration_text(each * times.MINUTE_MS)}" for each in sorted({less, more})
        )
        raise ValueError(
            f"'{schedule_text(schedule)}' does not divide a day, and cron goes by the clock;"
            f" write {instead}, or the five fields of a cron expression"
        )
    if HOUR_MINUTES % minutes == 0 and minutes < HOUR_MINUTES:
        return ["* * * * *" if minutes == 1 else f"*/{minutes} * * * *"]
    hours, odd = divmod(minutes, HOUR_MINUTES)
    if not odd:
        hour = {1: "*", DAY_HOURS: "0"}.get(hours, f"*/{hours}")
        return [f"0 {hour} * * *"]
    by_minute: dict[int, list[int]] = defaultdict(list)
    for at in range(0, DAY_MINUTES, minutes):
        by_minute[at % HOUR_MINUTES].append(at // HOUR_MINUTES)
    return [f"{minute} {','.join(map(str, hours))} * * *" for minute, hours in sorted(by_minute.items())]
