"""`heartbeat doctor`: its report and its time. (The troubles are in test_doctor_here, _there and _cron.)"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import Any

import crond
from attempts import OVERTIME_S, attempt
from conftest import (
    HEARTBEAT,
    REPOSITORY,
    TABLE,
    Cli,
    Inside,
    Local,
    Ran,
    wait_for,
)
from doctors import CHECKS, ONLY_LOCAL, Diagnosis, examine
from peers import Peer, silent
from terminal import on_a_terminal


@crond.NEEDED
def test_where_all_is_well_it_says_so_and_exits_with_0(host: Inside, cron_world: crond.World) -> None:
    """The real cron, as apply and cron install leave it."""
    cron_world.sees(host.cli)
    host.cli.write_schedule("| agent | schedule | command |\n|---|---|---|\n| well | every 6h | true |\n")
    assert "nothing runs well" in examine(host).trouble("crontab")[0]
    assert host("apply", "--yes").code == host("cron", "install", "--yes").code == 0
    with cron_world.daemon():
        wait_for(lambda: examine(host).states("cron daemon") == {"ok"})
        found = examine(host)
    assert found.ran.code == 0, [each for each in found.findings if each["state"] == "problem"]
    assert found.ran.data["totals"] == {"ok": len(found.findings), "warning": 0, "problem": 0}
    assert found.unchecked == set()
    assert {finding["check"] for finding in found.findings} == CHECKS - ONLY_LOCAL - {"spooled tokens"}
    assert set(found.findings[0]) == {"check", "state", "message", "fix"}


def test_every_trouble_of_the_readme_is_one_that_a_test_here_makes() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## When something is wrong\n")[2].partition("\n## ")[0]
    says = [line.split("|")[2] for line in section.splitlines() if line.startswith("| ")][1:]
    parts = [part for cell in says for part in cell.split(";")]
    assert len(says) > 10 and all("*" in part for part in parts)
    tests = "".join(
        file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_doctor_*.py")
    )
    for part in parts:
        assert set(re.findall(r"`([^`]+)`", part)) <= CHECKS, part
        for phrase in re.findall(r"\*([^*]+)\*", part):
            assert phrase in tests, f"no test here has doctor say '{phrase}'"


def hanging(folder: Path, name: str) -> Path:
    """A program that never ends."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\nexec sleep 60\n")
    (folder / name).chmod(0o755)
    return folder


def in_time(cli: Cli, env: dict[str, str]) -> Diagnosis:
    command = [str(HEARTBEAT), "doctor", "--json", "--deadline", "3"]
    ended = attempt(command, env, cli.home, waits=True)
    assert ended.seconds < 3 + OVERTIME_S
    assert ended.code == 1 and ended.left == (), "no process is left behind"
    return Diagnosis(Ran(ended.code, ended.out, ended.err))


def test_it_ends_in_time_when_the_deployment_and_cron_hang(cli: Cli) -> None:
    cli.write_schedule(TABLE)
    with Peer(silent) as peer:
        env = cli.environment({"HEARTBEAT_URL": peer.url, "HEARTBEAT_TOKEN": "a-token"})
        env["PATH"] = f"{hanging(cli.folder / 'bin', 'crontab')}:{env['PATH']}"
        found = in_time(cli, env)
    assert "did not answer within 3 s" in found.trouble("address")[0]
    assert "crontab did not end within" in found.trouble("crontab")[0]
    assert found.states("spool") == found.states("disk") == {"ok"}, "what hangs stops nothing else"


def test_it_ends_in_time_when_a_file_hangs(away: Inside) -> None:
    page = away.cli.write_schedule(TABLE)
    page.unlink()
    os.mkfifo(page)  # whoever opens it waits for somebody who writes
    found = in_time(away.cli, away.cli.environment({"HEARTBEAT_HOME": str(away.cli.home)}))
    assert found.trouble("schedule")[0].startswith("no answer within 3 s")
    assert found.states("disk") == {"ok"} and "nothing answers" in found.trouble("address")[0]


def test_it_is_readable_at_80_columns_wherever_it_goes(away: Inside) -> None:
    ran = away("doctor")
    told = ran.out.splitlines()
    assert "\x1b" not in ran.out and ran.code == 1
    assert all(len(line) <= 80 or "->" in line or len(line.split()[-1]) > 50 for line in told)
    assert re.fullmatch(r"\d+ problems, \d+ warnings?, \d+ ok", told[-1])
    assert any(line.startswith("not looked at: transport, http actions, clock, ") for line in told)
    states = [line.split()[0] for line in told if line.split()[0] in ("ok", "warning", "problem")]
    assert states == sorted(states, key=["ok", "warning", "problem"].index), "the worst stands last"
    screen = on_a_terminal(away.cli, "doctor", columns=80, env={})
    assert "\x1b[1;31mproblem" in screen
    assert "\x1b" not in on_a_terminal(away.cli, "doctor", columns=80, env={"NO_COLOR": "1"})


def test_it_changes_nothing(host: Inside, running: Local) -> None:
    assert host("apply", "--yes").code == 0
    assert host("send", "hint", env={"HEARTBEAT_TOKEN": "nobodys"}).code == 0
    assert host("cron", "install", "--yes").code == 0

    def everything() -> dict[str, bytes]:
        spool = host.cli.data_dir / "spool"
        files = (file for file in host.cli.folder.rglob("*") if file.is_file() and file.parent != spool)
        with contextlib.closing(sqlite3.connect(spool / "spool.db")) as database:
            dump = "\n".join(database.iterdump()).encode()
        return {"the spool": dump} | {str(file): file.read_bytes() for file in files}

    def there() -> Any:
        listed = host("token", "list", "--json").data
        return listed, [host("agents", "show", agent, "--json").data["row"] for agent in ("hint", "torv")]

    before, recorded = everything(), there()
    examine(host)
    examine(host.cli)
    assert everything() == before and there() == recorded
