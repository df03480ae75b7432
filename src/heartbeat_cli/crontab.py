"""Crontab lines of the schedule: what a host's cron runs so that the agents report. Pure: rows in, lines out.

A line stands on nothing that cron does not give: absolute paths of program and home, no reliance on PATH,
every % escaped (cron reads an unescaped one as a line break), no secret in it. It never runs at an hour that
was not meant: a row whose time zone is not the host's is printed as a comment with the reason, because
Debian's cron knows only the host's zone; so is a row that no line can express.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heartbeat_cli import times
from heartbeat_cli.schedule import Cron, Interval, Row, schedule_text

HOUR_MINUTES = 60
DAY_HOURS = 24
DAY_MINUTES = DAY_HOURS * HOUR_MINUTES
LINE_LIMIT = 998  # characters: Debian's cron drops what is longer (MAX_COMMAND of its cron.h)
CRON_LOG = "cron.log"  # beside the log: what send says under cron; nothing (--quiet) when all is well
_UTC_NAMES = frozenset(
    f"{area}{name}" for area in ("", "Etc/") for name in ("UTC", "UCT", "Zulu", "Universal", "GMT")
)
# Only what cron can read as its fields goes to the front of a line: MAILTO=…, @reboot or # would be obeyed
_FIELDS = re.compile(r"[\d*/,-]+( [\d*/,-]+){2}( [a-zA-Z\d*/,-]+){2}", re.ASCII)
PROVES = "proves that cron runs, not that the agent works"


@dataclass(frozen=True, slots=True)
class Host:
    """The host whose crontab it is: how it calls us, where home and log are, which zone its cron keeps.

    `program` is an argument list of absolute paths; `variables` are what our settings need and cron lacks.
    """

    name: str
    program: Sequence[str]
    home: Path
    log_dir: Path
    zone: str | None
    variables: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """The lines of one row. `warning` says why they are only comments, or none at all; else it is None."""

    row: Row
    lines: tuple[str, ...]
    warning: str | None = None


def program() -> list[str]:
    """How to call this very installation from anywhere, as absolute paths.

    The interpreter alone would put the working directory, under cron the user's home, on its module path: -P.
    """
    script = Path(sys.executable).with_name("heartbeat")
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-P", "-m", "heartbeat_cli"]


def system_zone(etc: Path = Path("/etc")) -> str | None:
    """The IANA name of the zone that this host's cron keeps; UTC if none is set, None if it has no name."""
    local = etc / "localtime"
    if not local.exists() and not local.is_symlink():
        return "UTC"
    target = local.resolve().as_posix()
    if "/zoneinfo/" in target:
        return re.sub(r"^(posix|right)/", "", target.partition("/zoneinfo/")[2])
    try:
        return (etc / "timezone").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def entries(rows: Sequence[Row], host: Host) -> list[Entry]:
    """The crontab lines of every row that concerns this host, in the order of the table."""
    return [_entry(row, host) for row in rows if row.host is None or row.host == host.name]


def block(found: Sequence[Entry], host: Host) -> list[str]:
    """All of it as it goes into a crontab, each row under a comment that names it."""
    lines = [f"# heartbeat: {_one_line(str(host.home))}"]
    for entry in found:
        row = entry.row
        label = "" if row.command else f": {PROVES}"
        lines.append(f"# {row.agent}{label}")
        if entry.warning:
            lines.append(f"# {entry.warning}")
        lines += [f"# {line}" for line in entry.lines] if entry.warning else entry.lines
    return lines


def _entry(row: Row, host: Host) -> Entry:
    job = _escape(_job(row, host))
    lines = tuple(f"{when} {job}" for when in _when(row.schedule))
    longest = max((len(line.encode("utf-8")) for line in lines), default=0)
    if not lines and isinstance(row.schedule, Cron):
        return Entry(row, (), f"not active: '{row.schedule.expression}' is no cron expression")
    if not lines:
        every = f"'{schedule_text(row.schedule)}' does not divide a day, and cron goes by the clock"
        return Entry(
            row, (), f"not active: {every}; write a divisor of 24 h, as every 6h, or a cron expression"
        )
    if longest > LINE_LIMIT:
        return Entry(
            row,
            (),
            f"not active: cron takes lines of at most {LINE_LIMIT} bytes, and this one has {longest};"
            " put the command in a script",
        )
    return Entry(row, lines, _zone_warning(row.schedule, host.zone))


def _when(schedule: Interval | Cron) -> list[str]:
    """The five fields of each line; none for an interval that no clock keeps, and for what are no fields."""
    if isinstance(schedule, Cron):
        return [schedule.expression] if _FIELDS.fullmatch(schedule.expression) else []
    minutes, rest = divmod(schedule.every_ms, times.MINUTE_MS)
    if rest or minutes == 0 or DAY_MINUTES % minutes:
        return []
    if HOUR_MINUTES % minutes == 0 and minutes < HOUR_MINUTES:
        return ["* * * * *" if minutes == 1 else f"*/{minutes} * * * *"]
    hours, odd = divmod(minutes, HOUR_MINUTES)
    if not odd:
        field = {1: "*", DAY_HOURS: "0"}.get(hours, f"*/{hours}")
        return [f"0 {field} * * *"]
    by_minute: dict[int, list[int]] = defaultdict(list)
    for at in range(0, DAY_MINUTES, minutes):
        by_minute[at % HOUR_MINUTES].append(at // HOUR_MINUTES)
    return [f"{minute} {','.join(map(str, hours))} * * *" for minute, hours in sorted(by_minute.items())]


def _zone_warning(schedule: Interval | Cron, host_zone: str | None) -> str | None:
    if isinstance(schedule, Interval) or _same_zone(schedule.zone, host_zone):
        return None
    return (
        f"not active: '{schedule.expression}' is meant in {_one_line(schedule.zone)}, but this host's cron"
        f" keeps {host_zone or 'a zone without a name'}; write the row in that zone"
    )


def _same_zone(zone: str, host_zone: str | None) -> bool:
    return zone == host_zone or (zone in _UTC_NAMES and host_zone in _UTC_NAMES)


def _job(row: Row, host: Host) -> str:
    """The shell command: a bare report, or the agent's own command and a report of how it ended.

    The command runs once, whatever becomes of the report, and its exit code stays the job's.
    """
    log = shlex.quote(str(host.log_dir / CRON_LOG))
    send = f"{_call(host)} send {row.agent} --quiet"
    if row.command is None:
        return f"{send} >>{log} 2>&1"
    return (
        f"/bin/sh -c {shlex.quote(row.command)}; s=$?;"
        f' if [ $s -eq 0 ]; then {send}; else {send} --error "exit $s"; fi >>{log} 2>&1; exit $s'
    )


def _call(host: Host) -> str:
    variables = [f"{name}={shlex.quote(value)}" for name, value in host.variables]
    return " ".join(
        [f"HEARTBEAT_HOME={shlex.quote(str(host.home))}", *variables, *map(shlex.quote, host.program)]
    )


def _escape(job: str) -> str:
    return _one_line(job).replace("%", r"\%")


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
