"""Crontab lines: safe under cron, true to the schedule, and run by a real shell as cron would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heartbeat_cli import crontab
from heartbeat_cli.crontab import Host
from heartbeat_cli.schedule import Cron, Interval, Row
from heartbeat_cli.times import HOUR_MS, MINUTE_MS


def host(**more: Any) -> Host:
    given: dict[str, Any] = {
        "name": "box1",
        "program": ["/opt/venv/bin/heartbeat"],
        "home": Path("/srv/fleet"),
        "log_dir": Path("/srv/fleet/logs"),
        "zone": "UTC",
    }
    return Host(**(given | more))


def row(schedule: Cron | Interval | None = None, **more: Any) -> Row:
    return Row(line=5, agent="hint", schedule=schedule or Cron("0 */6 * * *", "UTC"), **more)


def lines(found: Row, **more: Any) -> tuple[str, ...]:
    [entry] = crontab.entries([found], host(**more))
    return entry.lines


def test_a_row_without_a_command_reports_and_says_what_that_proves() -> None:
    [entry] = crontab.entries([row()], host())
    assert crontab.block([entry], host()) == [
        "# heartbeat: /srv/fleet",
        "# hint: proves that cron runs, not that the agent works",
        "0 */6 * * * HEARTBEAT_HOME=/srv/fleet /opt/venv/bin/heartbeat send hint --quiet"
        " >>/srv/fleet/logs/cron.log 2>&1",
    ]


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (1, ["* * * * *"]),
        (5, ["*/5 * * * *"]),
        (60, ["0 * * * *"]),
        (360, ["0 */6 * * *"]),
        (1440, ["0 0 * * *"]),
        (90, ["0 0,3,6,9,12,15,18,21 * * *", "30 1,4,7,10,13,16,19,22 * * *"]),
        (480, ["0 */8 * * *"]),
    ],
)
def test_an_interval_that_divides_a_day_goes_by_the_clock(minutes: int, expected: list[str]) -> None:
    times_of_day = [" ".join(line.split()[:5]) for line in lines(row(Interval(minutes * MINUTE_MS)))]
    assert times_of_day == expected


@pytest.mark.parametrize("minutes", [divisor for divisor in range(1, 1441) if 1440 % divisor == 0])
def test_the_lines_of_an_interval_fire_exactly_at_its_multiples(minutes: int) -> None:
    fires = []
    for line in lines(row(Interval(minutes * MINUTE_MS))):
        minute, hour = line.split()[:2]
        fires += [h * 60 + m for h in _values(hour, 24) for m in _values(minute, 60)]
    assert sorted(fires) == list(range(0, 1440, minutes))


def _values(field: str, end: int) -> list[int]:
    if field.startswith("*"):
        return list(range(0, end, int(field.removeprefix("*").removeprefix("/") or 1)))
    return [int(part) for part in field.split(",")]


@pytest.mark.parametrize("ms", [7 * HOUR_MS, 48 * HOUR_MS, 30_000, 90_000, 1441 * MINUTE_MS])
def test_an_interval_that_cron_cannot_keep_is_only_a_comment(ms: int) -> None:
    first, second = crontab.entries([row(Interval(ms)), row()], host())
    assert (
        first.lines == () and "not active" in str(first.warning) and "a divisor of 24 h" in str(first.warning)
    )
    assert second.warning is None
    assert crontab.block([first], host())[2].startswith("# not active: 'every ")


def test_a_percent_sign_does_not_cut_the_line() -> None:
    [line] = lines(row(command="date +%Y%m%d"), home=Path("/srv/100%"))
    assert line.replace(r"\%", "").count("%") == 0
    assert r"date +\%Y\%m\%d" in line and r"HEARTBEAT_HOME=/srv/100\% " in line


def test_a_row_of_another_host_is_left_out() -> None:
    assert crontab.entries([row(host="box2")], host()) == []
    assert len(crontab.entries([row(host="box1")], host())) == 1


@pytest.mark.parametrize(
    ("zone", "host_zone", "active"),
    [
        ("UTC", "UTC", True),
        ("UTC", "Etc/UTC", True),
        ("Europe/Berlin", "Europe/Berlin", True),
        ("UTC", "Europe/London", False),
        ("Europe/Berlin", "UTC", False),
        ("UTC", None, False),
    ],
)
def test_a_row_in_another_zone_than_the_hosts_is_only_a_comment(
    zone: str, host_zone: str | None, active: bool
) -> None:
    [entry] = crontab.entries([row(Cron("15 8 * * *", zone))], host(zone=host_zone))
    block = crontab.block([entry], host(zone=host_zone))
    assert (entry.warning is None) == active
    assert all(line.startswith("#") for line in block) != active


def test_an_interval_knows_no_zone() -> None:
    assert crontab.entries([row(Interval(HOUR_MS))], host(zone="Asia/Tokyo"))[0].warning is None


def test_a_line_longer_than_cron_takes_is_only_a_comment() -> None:
    [entry] = crontab.entries([row(command="x" * 990)], host())
    assert entry.lines == () and "at most 998 bytes" in str(entry.warning)


def test_the_program_is_this_installation_by_its_absolute_path() -> None:
    assert Path(crontab.program()[0]).parent == Path(sys.executable).parent
    done = subprocess.run(
        [*crontab.program(), "--version"], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.startswith("heartbeat ")


def test_the_zone_of_the_host_is_read_as_debian_keeps_it(tmp_path: Path) -> None:
    assert crontab.system_zone(tmp_path) == "UTC"
    zone = tmp_path / "zoneinfo" / "Europe" / "Berlin"
    zone.parent.mkdir(parents=True)
    zone.touch()
    (tmp_path / "localtime").symlink_to(zone)
    assert crontab.system_zone(tmp_path) == "Europe/Berlin"
    (tmp_path / "localtime").unlink()
    (tmp_path / "localtime").touch()
    assert crontab.system_zone(tmp_path) is None
    (tmp_path / "timezone").write_text("Asia/Tokyo\n")
    assert crontab.system_zone(tmp_path) == "Asia/Tokyo"


RECORDER = """#!/bin/sh
echo "$HEARTBEAT_HOME|$*" >>"$HEARTBEAT_HOME/calls"
exit 75
"""


@pytest.fixture
def odd_home(tmp_path: Path) -> Path:
    home = tmp_path / "it's 100% a $HOME"
    (home / "logs").mkdir(parents=True)
    program = home / "heart beat"
    program.write_text(RECORDER)
    program.chmod(0o755)
    return home


@pytest.mark.parametrize(
    ("command", "code", "reported"),
    [
        (None, 75, "send hint --quiet"),
        ("true", 0, "send hint --quiet"),
        ("exit 3 # with a comment", 3, "send hint --quiet --error exit 3"),
        ("echo a 'quoted %' \\\\ $((1+1)) >&2; false", 1, "send hint --quiet --error exit 1"),
    ],
)
def test_a_shell_runs_the_line_from_an_empty_environment(
    odd_home: Path, command: str | None, code: int, reported: str
) -> None:
    where = host(program=[str(odd_home / "heart beat")], home=odd_home, log_dir=odd_home / "logs")
    [line] = crontab.entries([row(command=command)], where)[0].lines
    job = line.split(maxsplit=5)[5].replace(r"\%", "%")  # as cron hands it to the shell
    done = subprocess.run(
        ["/bin/sh", "-c", job], env={}, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert (odd_home / "calls").read_text() == f"{odd_home}|{reported}\n"
    assert done.stdout == ""
