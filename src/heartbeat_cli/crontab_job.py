"""What one crontab line has a shell do. Pure: text in, text out; cron's own escapes come on top of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heartbeat_cli import firing
from heartbeat_cli.durations import duration_text
from heartbeat_cli.schedule import Row

if TYPE_CHECKING:
    from heartbeat_cli.crontab_lines import Host

CRON_LOG = "cron.log"  # beside the log: what our own lines say under cron; nothing (--quiet) when all is well
OnlyAt = tuple[str, str]
"""A cron expression and the zone in which it is meant."""


def deliver(host: Host) -> str:
    """Deliver what waits in the spool."""
    return _call(host, "spool deliver --quiet") + _to_log(host)


def wrapped(row: Row, host: Host, only_at: OnlyAt | None) -> str:
    """The command of a row, watched; where our program is gone, the command alone.

    Raises ValueError for a command that no line can have.
    """
    command = row.command or ""
    if any(char in command for char in "\n\r\0"):
        raise ValueError("the command has a line break in it, which no crontab can have; put it in a script")
    shell = f'{shlex.quote(host.shell)} -c "$1"'
    inside = shell
    if host.restored:
        inside = f"/usr/bin/env {' '.join(map(shlex.quote, host.restored))} {shell}"
    probe = f"{' '.join(map(shlex.quote, host.program))} --version"
    run = _call(host, f"run {row.agent} --quiet{_options(row, only_at)} -- {inside}", "exec ")
    plain = f"exec {shell}" if only_at is None else _only_at(*only_at, f"exec {shell}")
    return f"set -- {shlex.quote(command)}; if {probe} >/dev/null 2>&1; then {run}; else {plain}; fi"


def _only_at(expression: str, zone: str, job: str) -> str:
    """`job`, only at the times of the expression in that zone: told by date(1), where our program is gone."""
    at = firing.parse(expression)
    minute, hour, day, month, weekday = expression.split()
    checks: list[tuple[str, str]] = []
    checks += [("$2", _any(at.minutes))] if minute != "*" else []
    checks += [("$3", _any(at.hours))] if hour != "*" else []
    if at.either_day:
        either = [f"{value:02}.*" for value in at.days] + [f"*.{value}" for value in at.weekdays]
        checks.append(("$4.$6", "|".join(either)))
    else:
        checks += [("$4", _any(at.days))] if day != "*" else []
        checks += [("$6", "|".join(map(str, at.weekdays)))] if weekday != "*" else []
    checks += [("$5", _any(at.months))] if month != "*" else []
    for asked, values in reversed(checks):
        job = f"case {asked} in {values}) {job};; esac"
    return f"set -- \"$1\" $(TZ={shlex.quote(zone)} /bin/date '+%M %H %d %m %w'); {job}"


def _any(values: Sequence[int]) -> str:
    return "|".join(f"{value:02}" for value in values)


def report(row: Row, host: Host, only_at: OnlyAt | None) -> str:
    """A heartbeat of a row that has no command."""
    return _call(host, f"send {row.agent} --quiet{_options(row, only_at)}") + _to_log(host)


def _options(row: Row, only_at: OnlyAt | None) -> str:
    delay = f" --delay {duration_text(row.delay_ms)}" if row.delay_ms else ""
    return delay + (f" --only-at {shlex.quote(only_at[0])} --tz {shlex.quote(only_at[1])}" if only_at else "")


def _call(host: Host, arguments: str, before: str = "") -> str:
    """This program with the settings that it is to have; `before` is a word of the shell."""
    pairs = [("HEARTBEAT_HOME", str(host.home)), *host.variables]
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in pairs)
    return f"{variables} {before}{' '.join(map(shlex.quote, host.program))} {arguments}"


def _to_log(host: Host) -> str:
    return f" >>{shlex.quote(str(host.log_dir / CRON_LOG))} 2>&1"
