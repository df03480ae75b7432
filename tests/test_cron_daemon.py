"""What `heartbeat apply` writes into a crontab, run by the real cron daemon of Debian; taken out again."""

from __future__ import annotations

import random
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import crond
from conftest import HEARTBEAT, REPOSITORY, Inside, Local
from crond import World
from heartbeat_cli import crontab_text

pytestmark = crond.NEEDED

POLL_S = 0.3
MINUTES = 10  # of cron, in which something is to have happened
APART = 1 / 6  # of a minute at least, between two starts on a busy machine; those of one minute are at once
GIVEN_BY_CRON = {"HOME", "LOGNAME", "PATH", "SHELL", "PWD", "LANG", "MAILTO"}
THEIRS = b"""# caf\xe9: not UTF-8\r
MAILTO=somebody
* * * * * %s
0 0 1 1 * /opt/backup --all \\%% # once a year
"""


def within(seconds: float, condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Installation:
    """A copy of this one that can be deleted, as `python -m venv` and pip make it."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "bin" / "heartbeat"

    @classmethod
    def make(cls, folder: Path) -> Installation:
        (folder / "bin").mkdir(parents=True)
        python = folder / "bin" / "python3"
        python.symlink_to(Path(sys.executable).resolve())
        (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = folder / "lib" / version / "site-packages"
        site.mkdir(parents=True)
        (site / "real.pth").write_text(f"{REPOSITORY / 'src'}\n{sysconfig.get_path('purelib')}\n")
        found = cls(folder)
        found.program.write_text(f"#!{python}\n" + HEARTBEAT.read_text().partition("\n")[2])
        found.program.chmod(0o755)
        return found


def lines_in(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("speed", [crond.SPEED, pytest.param(1, marks=pytest.mark.long)])
def test_cron_runs_and_reports_each_minute_and_the_command_alone_once_we_are_gone(
    cron_world: World, local: Local, inside: Inside, tmp_path: Path, speed: int
) -> None:
    cron_world.speed = min(speed, cron_world.speed)
    cli, minute = cron_world.sees(local.cli), cron_world.minute_s
    local.up()
    ran, environment = tmp_path / "ran", tmp_path / "environment"
    command = f'date +%s.%N >>"{ran}"; env >"{environment}"; echo "it\'s 100% done"; exit 3'
    theirs = THEIRS % command.replace("%", r"\%").encode()
    cli.write_schedule(
        "| agent | schedule | time zone | command | delay |\n|---|---|---|---|---|\n"
        f"| pulse | every 1m | | | |\n| torv | * * * * * | Asia/Tokyo | `{command}` | 1s |\n"
    )
    installation = Installation.make(tmp_path / "venv")

    def ours(*words: str) -> str:
        done = cli(*words, program=[str(installation.program)])
        assert done.code == 0, done
        return done.out

    cron_world.sh("crontab -", theirs)
    assert f"  - * * * * * {command}".replace("%", r"\%") in ours("apply", "--yes")
    assert str(installation.program) in (cron_world.stands() or b"").decode(errors="replace")
    assert "have what the table says (2 agents)" in ours("cron", "check")

    def heard(agent: str) -> Any:
        return inside("agents", "show", agent, "--json").data

    with cron_world.daemon():
        within(MINUTES * minute, lambda: len(heard("pulse")["heartbeats"]) > 1, "no second heartbeat came")
        within(MINUTES * minute, lambda: heard("torv")["row"].get("lastRun"), "no run was reported")
        newest, before = heard("pulse")["heartbeats"][:2]
        assert newest["receivedAt"] - before["receivedAt"] > minute * APART * 1000
        row = heard("torv")["row"]
        assert row["health"] == "failing" and row["lastRun"]["exitCode"] == 3
        names = {line.partition("=")[0] for line in lines_in(environment)}
        assert {name for name in names if not name.startswith("HEARTBEAT_")} <= GIVEN_BY_CRON | {"LC_CTYPE"}
        within(MINUTES * minute, lambda: "it's 100% done" in _mails(cron_world), "its output was not mailed")

        shutil.rmtree(installation.folder)
        at = time.time()
        within(MINUTES * minute, lambda: len(_after(ran, at + 2)) > 1, "the command does not run alone")
        alone = [float(line) for line in _after(ran, at + 2)]
        gaps = [later - sooner for sooner, later in pairwise(alone)]
        assert min(gaps) > minute * APART, "it ran twice in one minute"
        names = {line.partition("=")[0] for line in lines_in(environment)}
        assert names <= GIVEN_BY_CRON

        assert cli("cron", "remove", "--yes").code == 0
        assert cron_world.stands() == theirs


ODD = ("\\", "%", "a", " ", "'", '"', "$", "`", "#", ";", "\u00e9", "\\\\%", "\\%", "\\n", "!", "*")
RECORDER = """#!/bin/sh
printf '%s' "$2" >"{}/$$"
"""


def test_cron_hands_every_command_to_the_shell_exactly_as_it_is_meant(
    cron_world: World, tmp_path: Path
) -> None:
    draw = random.Random(7)  # noqa: S311
    meant = {f"{n} " + "".join(draw.choices(ODD, k=draw.randint(1, 9))) + "." for n in range(60)}
    got = tmp_path / "got"
    got.mkdir(mode=0o777)
    shell = tmp_path / "shell"
    shell.write_text(RECORDER.format(got))
    shell.chmod(0o755)
    lines = [f"SHELL={shell}", *(f"* * * * * {crontab_text.escaped(command)}" for command in meant)]
    taken = cron_world.sh("crontab -", ("\n".join(lines) + "\n").encode())
    assert taken.returncode == 0, taken.stderr
    with cron_world.daemon():
        within(
            2 * cron_world.minute_s, lambda: len(list(got.iterdir())) >= len(meant), "cron did not start all"
        )
    found = {file.read_text() for file in got.iterdir()}
    assert found == meant
    # what our own reading of cron's rules says of the same lines
    assert {crontab_text.as_run(crontab_text.escaped(each).encode())[0].decode() for each in meant} == meant


def _mails(world: World) -> str:
    return world.mails.read_text() if world.mails.exists() else ""


def _after(file: Path, instant: float) -> list[str]:
    return [line for line in lines_in(file) if float(line) > instant]
