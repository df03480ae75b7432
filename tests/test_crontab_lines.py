"""The lines of a schedule: safe under cron, true to the table, and run by a real shell as cron would."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TABLE, Cli, Inside
from heartbeat_cli import crontab_lines, crontab_text
from heartbeat_cli.crontab_lines import Host
from heartbeat_cli.errors import ScheduleProblem
from heartbeat_cli.schedule import Cron, Interval, Row
from heartbeat_cli.times import HOUR_MS, MINUTE_MS

NOW = 1_795_420_800_000  # 2026-11-23T08:00:00Z
HB = "/opt/venv/bin/heartbeat"


def host(**more: Any) -> Host:
    given: dict[str, Any] = {
        "name": "box1",
        "program": [HB],
        "home": Path("/srv/fleet"),
        "log_dir": Path("/srv/fleet/logs"),
        "zone": UTC,
    }
    return Host(**(given | more))


def row(schedule: Cron | Interval | None = None, **more: Any) -> Row:
    return Row(line=5, agent="hint", schedule=schedule or Cron("0 */6 * * *", "UTC"), **more)


def lines(found: Row, **more: Any) -> list[str]:
    [entry] = crontab_lines.entries([found], host(**more), "cron-schedule.md", NOW)
    return entry.lines


def refusal(found: Row, **more: Any) -> str:
    with pytest.raises(ScheduleProblem) as problem:
        lines(found, **more)
    assert str(problem.value).startswith("the crontab cannot keep cron-schedule.md, line 5: ")
    return str(problem.value)


def test_a_row_without_a_command_reports_and_says_what_that_proves() -> None:
    entries = crontab_lines.entries([row()], host(), "cron-schedule.md", NOW)
    assert crontab_lines.block(entries, host()) == [
        "# made from cron-schedule.md by heartbeat cron install: edit that, not this",
        "# hint: proves that cron runs, not that the agent works",
        f"0 */6 * * * HEARTBEAT_HOME=/srv/fleet {HB} send hint --quiet >>/srv/fleet/logs/cron.log 2>&1",
        "# the spool: what could not be delivered",
        f"*/5 * * * * HEARTBEAT_HOME=/srv/fleet {HB} spool deliver --quiet >>/srv/fleet/logs/cron.log 2>&1",
    ]


def test_a_row_with_a_command_runs_it_watched_or_alone() -> None:
    assert lines(row(command="/opt/hint.sh --all", delay_ms=90_000)) == [
        f"0 */6 * * * set -- '/opt/hint.sh --all'; if {HB} --version >/dev/null 2>&1;"
        f' then HEARTBEAT_HOME=/srv/fleet exec {HB} run hint --quiet --delay 1m30s -- /bin/sh -c "$1";'
        ' else exec /bin/sh -c "$1"; fi'
    ]


def test_a_row_of_another_zone_is_started_at_its_times_in_ours_and_checks_again() -> None:
    [line] = lines(row(Cron("15 8 * * 1", "UTC"), command="x"), zone=ZoneInfo("Europe/Berlin"))
    assert line.startswith("15 9,10 * * 1 set -- x; ")
    assert "--only-at '15 8 * * 1' --tz UTC -- /bin/sh" in line
    alone = (
        r"else set -- \"$1\" $(TZ=UTC /bin/date '+\%M \%H \%d \%m \%w'); case $2 in 15) case $3 in 08)"
        r" case $6 in 1) exec /bin/sh -c \"$1\";; esac;; esac;; esac; fi"
    )
    assert line.endswith(alone.replace('\\"', '"'))
    [report] = lines(row(Cron("15 8 * * *", "UTC")), zone=ZoneInfo("Europe/Berlin"))
    assert "send hint --quiet --only-at '15 8 * * *' --tz UTC >>" in report


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
    found = lines(row(Interval(minutes * MINUTE_MS)), zone=ZoneInfo("Asia/Tokyo"))
    assert [" ".join(line.split()[:5]) for line in found] == expected


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


@pytest.mark.parametrize(
    ("ms", "instead"),
    [
        (7 * HOUR_MS, "write every 6h or every 8h, or the five fields"),
        (48 * HOUR_MS, "write every 1d, or"),
        (30_000, "write every 1m, or"),
        (90_000, "write every 1m or every 2m, or"),
        (50 * MINUTE_MS, "write every 48m or every 1h, or"),
    ],
)
def test_an_interval_that_cron_cannot_keep_is_refused_with_what_to_write_instead(
    ms: int, instead: str
) -> None:
    assert "does not divide a day" in refusal(row(Interval(ms))) and instead in refusal(row(Interval(ms)))


def test_every_row_that_no_crontab_can_keep_is_told_with_its_line() -> None:
    rows = [
        Row(3, "a", Interval(7 * HOUR_MS)),
        Row(4, "b", Cron("99 8 * * *", "UTC")),
        Row(5, "c", Cron("0 8 * * *", "Mars/Base")),
        Row(6, "d", Cron("0 8 * * *", "UTC"), command="x" * 990),
        Row(7, "e", Cron("0 8 * * *", "UTC"), command="a\rb"),
        Row(8, "f", Cron("0 8 * * *", "UTC")),
        Row(9, "g", Interval(7 * HOUR_MS), host="box2"),
    ]
    with pytest.raises(ScheduleProblem) as problem:
        crontab_lines.entries(rows, host(), "cron-schedule.md", NOW)
    assert [line for line, _ in problem.value.problems] == [3, 4, 5, 6, 7]
    said = " ".join(text for _, text in problem.value.problems)
    for words in ("minute field '99'", "zone 'Mars/Base'", "at most 998 bytes", "put it in a script"):
        assert words in said


def test_a_row_of_another_host_is_left_out() -> None:
    rows = [row(host="box2"), row(host="box1")]
    assert len(crontab_lines.entries(rows, host(), "cron-schedule.md", NOW)) == 1
    assert crontab_lines.block([], host()) == []


def test_the_program_is_this_installation_by_its_absolute_path() -> None:
    assert Path(crontab_lines.program()[0]).parent == Path(sys.executable).parent
    done = subprocess.run(
        [*crontab_lines.program(), "--version"], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.startswith("heartbeat ")


def test_the_zone_of_the_host_is_read_as_debian_keeps_it(tmp_path: Path) -> None:
    assert crontab_lines.system_zone(tmp_path) is UTC
    local = tmp_path / "localtime"
    local.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert str(crontab_lines.system_zone(tmp_path)) == "Europe/Berlin"
    data = local.read_bytes()
    local.unlink()
    local.write_bytes(data)  # a copy has no name, and the same rules
    summer = datetime(2026, 7, 1, tzinfo=crontab_lines.system_zone(tmp_path))
    assert summer.utcoffset() == timedelta(hours=2)
    local.write_bytes(b"nonsense")
    assert crontab_lines.system_zone(tmp_path) is UTC


# --- what the crontab sets above our lines ---


@pytest.mark.parametrize(
    ("text", "shell", "bracket"),
    [
        (b"", "/bin/sh", False),
        (b"SHELL=/bin/bash\n", "/bin/bash", False),
        (b"SHELL=/usr/bin/fish\n", "/usr/bin/fish", True),
        (
            b"SHELL=/bin/bash\n# heartbeat: begin HOME\n# heartbeat: end HOME\nSHELL=/bin/fish\n",
            "/bin/bash",
            False,
        ),
    ],
)
def test_a_command_has_the_shell_that_the_crontab_gives_it(
    cli: Cli, inside: Inside, text: bytes, shell: str, bracket: bool
) -> None:
    cli.write_schedule("| agent | schedule | command |\n|---|---|---|\n| hint | 0 8 * * * | echo hi |\n")
    (cli.folder / "crontab-of-this-home").write_bytes(text.replace(b"HOME", str(cli.home).encode()))
    found = inside("cron", "print").out
    assert f'{shell} -c "$1"; else exec {shell} -c "$1"; fi' in found
    assert ("\nSHELL=/bin/sh\n# hint\n" in found) == bracket
    assert (f"\nSHELL={shell}\n# heartbeat: end" in found) == bracket


def test_another_home_of_cron_does_not_move_our_files_nor_the_commands(cli: Cli, inside: Inside) -> None:
    cli.write_schedule("| agent | schedule | command |\n|---|---|---|\n| hint | 0 8 * * * | echo hi |\n")
    cli.env |= {"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": str(cli.folder / ".local/share")}
    (cli.folder / "crontab-of-this-home").write_text(f"HOME={cli.folder}\n")
    found = inside("cron", "print").out
    assert f"HEARTBEAT_HOME={cli.home} XDG_CONFIG_HOME=/c HEARTBEAT_" in found and "XDG_DATA" not in found
    assert '-- /usr/bin/env -u XDG_CONFIG_HOME /bin/sh -c "$1"' in found
    (cli.folder / "crontab-of-this-home").write_text(f"HOME={cli.folder}\nXDG_CONFIG_HOME=/d\n")
    assert '-- /usr/bin/env XDG_CONFIG_HOME=/d /bin/sh -c "$1"' in inside("cron", "print").out


def test_what_the_crontab_sets_to_our_harm_is_told(cli: Cli, inside: Inside) -> None:
    cli.write_schedule(TABLE.replace("summary ", "command").replace("audit", "echo a"))
    (cli.folder / "crontab-of-this-home").write_text(
        "HEARTBEAT_URL=https://a\nCRON_TZ=UTC\nMAILTO=me\n0 1 * * * echo a\nPATH=/bin\n"
    )
    said = inside("cron", "install", "--dry-run").err
    for words in (
        "the crontab sets HEARTBEAT_URL, which our lines then obey",
        "the crontab sets CRON_TZ: cronie then",
        "line 4 of the crontab ran with another PATH than our block has",
    ):
        assert words in said
    assert "MAILTO" not in said


# --- run by a shell ---

RECORDER = """#!/usr/bin/env python3
import json, os, sys
if sys.argv[1:] == ["--version"]:
    sys.exit(0)
with open(os.environ["HEARTBEAT_HOME"] + "/call", "w") as file:
    json.dump(sys.argv[1:], file)
if "--" in sys.argv:
    rest = sys.argv[sys.argv.index("--") + 1:]
    os.execvp(rest[0], rest)
sys.exit(75)
"""


@pytest.fixture
def odd_home(tmp_path: Path) -> Path:
    home = tmp_path / "it's 100% a $HOME \\% of a\\\\b"
    (home / "logs").mkdir(parents=True)
    program = home / "heart beat"
    program.write_text(RECORDER)
    program.chmod(0o755)
    return home


def run(line: str, shell: str = "/bin/sh", **more: Any) -> subprocess.CompletedProcess[str]:
    """As cron hands it to the shell."""
    command, stdin = crontab_text.as_run(line.split(maxsplit=5)[5].encode())
    assert stdin is None
    return subprocess.run(
        [shell, "-c", command.decode()], env={}, cwd="/", capture_output=True, text=True, check=False, **more
    )


COMMANDS = [
    ("exit 3 # with a comment", 3, ""),
    ("printf '%s\\n' a 'quoted %' \\\\ \"$((1+1))\"; false", 1, "a\nquoted %\n\\\n2\n"),
    ("echo a & wait; echo 'b", 2, ""),
    ("cat", 0, "what is piped"),
    ("kill -TERM $$", -15, ""),
]


@pytest.mark.parametrize(("command", "code", "out"), COMMANDS)
@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_shell_runs_the_command_once_as_it_is_whether_we_are_there_or_not(  # noqa: PLR0913, PLR0917
    odd_home: Path, command: str, code: int, out: str, gone: bool, shell: str
) -> None:
    program = odd_home / "heart beat"
    where = host(program=[str(program)], home=odd_home, log_dir=odd_home / "logs")
    [line] = crontab_lines.entries([row(command=command)], where, "page", NOW)[0].lines
    if gone:
        program.unlink()
    done = run(line, shell, input="what is piped")
    assert done.returncode == code, done.stderr
    assert done.stdout == out or "'b" in command
    if not gone:
        call = json.loads((odd_home / "call").read_text())
        assert call == ["run", "hint", "--quiet", "--", "/bin/sh", "-c", command]


def test_a_report_finds_its_home_and_its_words_go_to_the_log(odd_home: Path) -> None:
    program = odd_home / "heart beat"
    where = host(program=[str(program)], home=odd_home, log_dir=odd_home / "logs")
    [line] = crontab_lines.entries([row()], where, "page", NOW)[0].lines
    assert run(line).returncode == 75
    assert json.loads((odd_home / "call").read_text()) == ["send", "hint", "--quiet"]
    program.unlink()
    assert run(line).stdout == "" and "not found" in (odd_home / "logs" / "cron.log").read_text()


@pytest.mark.parametrize(("command", "out"), [("echo ran", "ran\n"), ("exit 7", "")])
def test_alone_a_row_of_another_zone_runs_at_its_own_times_only(command: str, out: str) -> None:
    there = ZoneInfo("Asia/Tokyo")
    # a fire is in this minute, or the next if that begins before the shell looks
    now = datetime.now(there)
    soon = now + timedelta(seconds=20)
    minutes = ",".join(str(minute) for minute in sorted({now.minute, soon.minute}))
    hours = ",".join(str(hour) for hour in sorted({now.hour, soon.hour}))
    weekdays = ",".join(sorted({str(day.isoweekday() % 7) for day in (now, soon)}))
    due = lines(row(Cron(f"{minutes} {hours} * * {weekdays}", "Asia/Tokyo"), command=command))
    assert "--only-at" in due[0]
    assert (run(due[0]).stdout, run(due[0]).returncode) == (out, 7 if not out else 0)
    for expression in (
        f"{(now.minute + 30) % 60} {hours} * * *",
        f"{minutes} {(now.hour + 12) % 24} * * *",
        f"{minutes} {hours} * * {(now.isoweekday() + 3) % 7}",
        f"{minutes} {hours} * {(now.month + 5) % 12 + 1} *",
        f"{minutes} {hours} {(now.day + 14) % 28 + 1} * {(now.isoweekday() + 3) % 7}",
    ):
        [line, *_] = lines(row(Cron(expression, "Asia/Tokyo"), command=command))
        done = run(line)
        assert (done.stdout, done.returncode) == ("", 0), expression
    either = f"{minutes} {hours} {now.day},{soon.day} * {(now.isoweekday() + 3) % 7}"
    assert run(lines(row(Cron(either, "Asia/Tokyo"), command=command))[0]).stdout == out


@given(
    st.text(st.sampled_from("\\%a '\"$`!;&|#~\u00e9"), min_size=1, max_size=12).map(str.strip).filter(bool)
)
def test_the_shell_gets_the_command_of_the_table_exactly(command: str) -> None:
    [line] = lines(row(command=command))
    given, stdin = crontab_text.as_run(line.split(maxsplit=5)[5].encode())
    assert stdin is None
    words = given.decode().partition("; if ")[0] if ";" not in command else None
    if words is not None:
        done = subprocess.run(
            ["/bin/sh", "-c", words + '; printf %s "$1"'], capture_output=True, text=True, check=True
        )
        assert done.stdout == command
