"""`heartbeat local install` with cron: the backend comes back by itself. Daemon: test_service_daemon.py."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, TABLE, Cli, Inside, Local, alive, wait_for
from heartbeat_cli import crontab_text
from heartbeat_cli.process import has_open
from terminal import on_a_terminal

SOMEBODYS = b'# caf\xe9\nMAILTO=""\n5 4 * * * /usr/bin/true 50\\% # heartbeat\n\n'
CRON_GIVES = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "somebody"}


def crontab(cli: Cli) -> Path:
    """The stand-in's file."""
    return cli.folder / "crontab-of-this-home"


def by_cron(cli: Cli) -> list[int]:
    """Run what is in the block of the crontab as cron would, with nothing but what cron gives: exit codes."""
    found = [entry for entry in crontab_text.entries(crontab(cli).read_bytes()) if entry.block == "local"]
    assert [entry.when for entry in found] == ["@reboot", "* * * * *"]
    env = {**CRON_GIVES, "HOME": str(cli.folder)}
    return [subprocess.call(["/bin/sh", "-c", entry.command], env=env, cwd="/") for entry in found]


@contextlib.contextmanager
def killed(local: Local) -> Iterator[int]:
    """The backend after kill -9; its process id."""
    pid = local.id_under_lock()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    assert local.status().state == "stopped"
    yield pid


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[tuple[Local, bytes]]:
    """Somebody whose backend runs and is installed, and their crontab: for all tests, each finds it so."""
    local = Local(Cli(tmp_path_factory.mktemp("home")), bundle)
    local.up()
    assert local.cli("local", "install", "--yes").code == 0
    yield local, crontab(local.cli).read_bytes()
    local.clear()


@pytest.fixture
def installed(home: tuple[Local, bytes]) -> Local:
    local, lines = home
    crontab(local.cli).write_bytes(lines)
    if local.status().state != "running":
        local.up()
    return local


@pytest.fixture
def typed(home: tuple[Local, bytes], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Inside:
    """What they type, in this process."""
    return Inside(home[0].cli, monkeypatch, capsys)


@pytest.fixture
def plain(installed: Local) -> Local:
    """The same before it was installed, with no crontab."""
    crontab(installed.cli).unlink()
    return installed


def test_install_shows_what_it_writes_and_writes_nothing_unasked(plain: Local, typed: Inside) -> None:
    shown = typed("local", "install", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[:3] == [
        "this user has no systemd of its own that answers: cron is to start it",
        "the crontab:",
        "  + # heartbeat: begin local",
    ]
    ran = typed("local", "install")
    assert ran.code == 2
    assert ran.out == shown.out.removesuffix("nothing was written (dry run)\n")
    assert "--yes" in ran.err
    assert not crontab(plain.cli).exists()


def test_on_a_terminal_it_asks_and_takes_no_for_an_answer(plain: Local) -> None:
    plain.cli.home.mkdir(exist_ok=True)
    assert "not confirmed" in on_a_terminal(plain.cli, "local", "install", typed="n\n", env={})
    assert not crontab(plain.cli).exists()
    assert "starts it from now on" in on_a_terminal(plain.cli, "local", "install", typed="y\n", env={})
    assert b"local keep" in crontab(plain.cli).read_bytes()


def test_installed_twice_is_installed_once_and_uninstalling_gives_back_every_byte(
    plain: Local, typed: Inside
) -> None:
    crontab(plain.cli).write_bytes(SOMEBODYS)
    first = typed("local", "install", "--yes", "--json").data
    assert (first["outcome"], first["form"]) == ("installed", "cron")
    assert Path(first["keptIn"]).read_bytes() == SOMEBODYS
    once = crontab(plain.cli).read_bytes()
    assert once.startswith(SOMEBODYS) and once.count(b"local keep") == 2

    again = typed("local", "install", "--yes", "--json").data
    assert (again["outcome"], again["keptIn"], again["up"]["outcome"]) == (
        "unchanged",
        None,
        "already running",
    )
    assert crontab(plain.cli).read_bytes() == once

    gone = typed("local", "uninstall", "--yes", "--json").data
    assert (gone["outcome"], Path(gone["keptIn"]).read_bytes()) == ("uninstalled", once)
    assert crontab(plain.cli).read_bytes() == SOMEBODYS
    assert plain.status().state == "running"
    assert typed("local", "uninstall").out == "nothing to change\n"


def test_installing_what_was_stopped_starts_it(plain: Local, typed: Inside) -> None:
    typed("local", "down")
    ran = plain.cli("local", "install", "--yes", "--json")
    assert (ran.code, ran.data["up"]["outcome"]) == (0, "started"), ran
    assert not plain.status().stays_down


def test_after_kill_9_it_is_back_as_it_was_with_all_data(installed: Local, typed: Inside) -> None:
    before = installed.status()
    installed.cli.write_schedule(TABLE)
    assert typed("apply", "--agents-only", "--yes").code == 0
    assert typed("send", "hint", "--summary", "just before").code == 0
    with killed(installed) as pid:
        assert by_cron(installed.cli) == [0, 0]
    after = installed.status()
    assert (after.state, after.url, after.functions) == ("running", before.url, str(installed.functions))
    shown = typed("agents", "show", "hint", "--json").data
    assert [heartbeat["summary"] for heartbeat in shown["heartbeats"]] == ["just before"]
    assert "heartbeat: it did not run, and was started" in typed("local", "logs").out
    assert after.pid not in {None, pid}


def test_what_runs_is_left_alone_without_waiting_for_anybody(installed: Local) -> None:
    before = installed.status()
    with installed.instance.alone():
        assert by_cron(installed.cli) == [0, 0]
    assert installed.status() == before


def test_both_lines_at_once_start_it_once(installed: Local) -> None:
    with killed(installed):
        said = installed.instance.log.size()
        words = [str(HEARTBEAT), "local", "keep"]
        turn = installed.folder / "up.lock"
        with installed.instance.alone():
            both = [subprocess.Popen(words, env=installed.cli.environment()) for _ in range(2)]
            wait_for(lambda: all(has_open(process.pid, turn) for process in both))
        assert [process.wait(COMMAND_TIMEOUT_S) for process in both] == [0, 0]
    assert "".join(installed.instance.log.lines(9, since=said)).count("heartbeat: ") == 1
    assert installed.status().state == "running"


def test_down_is_down_until_the_next_up(installed: Local, typed: Inside) -> None:
    ran = typed("local", "down")
    assert ran.out.splitlines()[1:] == [
        "it stays down, also when this machine starts again, until: heartbeat local up"
    ]
    by_cron(installed.cli)
    assert installed.status().state == "stopped"
    told = typed("local", "status", "--json").data
    assert (told["state"], told["staysDown"], told["service"]["form"]) == ("stopped", True, "cron")
    assert "it was stopped with heartbeat local down" in typed("local", "status").out

    installed.up()
    with killed(installed):
        by_cron(installed.cli)
    assert installed.status().state == "running"


def test_where_its_folder_was_deleted_nothing_comes_back(installed: Local, tmp_path: Path) -> None:
    elsewhere = Cli(tmp_path)
    crontab(elsewhere).write_bytes(
        crontab(installed.cli).read_bytes().replace(bytes(installed.cli.folder), bytes(tmp_path))
    )
    assert by_cron(elsewhere) == [0, 0]
    assert not elsewhere.data_dir.exists()


def test_a_wrong_setting_does_not_keep_it_from_coming_back(installed: Local) -> None:
    installed.cli.config_dir.mkdir(exist_ok=True)
    wrong = installed.cli.config_dir / "config.toml"
    wrong.write_text("deadline = 'never'\n")
    with killed(installed):
        by_cron(installed.cli)
    wrong.unlink()
    assert installed.status().state == "running"


def test_why_it_does_not_come_back_stands_in_its_log(installed: Local, typed: Inside) -> None:
    port = int((installed.status().url or "").rpartition(":")[2])
    with killed(installed), socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", port))
        taker.listen()
        ran = installed.cli("local", "keep")
        assert ran.code == 2
        assert f"port {port} is taken" in ran.err
        said = typed("local", "logs", "-n", "1").out
        assert (
            f"heartbeat: it does not run, and was not started: the local backend's port {port} is taken"
            in said
        )
    by_cron(installed.cli)
    assert installed.status().state == "running"


def test_folders_of_any_name_survive_crons_reading_of_a_line(tmp_path: Path, bundle: Path) -> None:
    cli = Cli(tmp_path / "100% o'clock \\% $HOME")
    cli.folder.mkdir()
    local = Local(cli, bundle)
    try:
        local.up()
        assert cli("local", "install", "--yes").code == 0
        with killed(local):
            by_cron(cli)
        assert local.status().state == "running"
    finally:
        local.clear()


def test_status_knows_the_lines_of_another_installation(installed: Local, typed: Inside) -> None:
    assert typed("local", "status", "--json").data["service"] == {
        "form": "cron",
        "inPlace": True,
        "notes": [],
    }
    file = crontab(installed.cli)
    file.write_bytes(file.read_bytes().replace(str(HEARTBEAT).encode(), b"/gone/heartbeat"))
    told = typed("local", "status", "--json").data["service"]
    assert (told["form"], told["inPlace"], "heartbeat local install" in told["notes"][0]) == (
        "cron",
        False,
        True,
    )
    shown = typed("local", "install", "--dry-run").out
    assert (shown.count("  - "), shown.count("  + ")) == (2, 2)


def test_markers_that_somebody_damaged_are_nobodys_to_guess(installed: Local, typed: Inside) -> None:
    file = crontab(installed.cli)
    damaged = file.read_bytes().replace(b"# heartbeat: end local\n", b"")
    file.write_bytes(damaged)
    for command in ("install", "uninstall"):
        ran = typed("local", command, "--yes")
        assert (ran.code, "crontab -e" in ran.err) == (1, True), ran
    assert file.read_bytes() == damaged
    assert "begin local" in typed("local", "status").out


def test_where_nothing_can_start_it_that_is_said(plain: Local, typed: Inside) -> None:
    ran = typed("local", "install", "--yes", env={"PATH": str(plain.cli.folder)})
    assert (ran.code, "there is no program 'crontab'" in ran.err) == (1, True)
    ran = typed("local", "install", "--with", "systemd", "--yes")
    assert (ran.code, "--with cron" in ran.err) == (2, True)
    assert typed("local", "install", "--with", "launchd").code == 2
    assert typed("local", "status", "--json").data["service"]["form"] is None


def test_each_minute_nothing_heavy_is_imported(installed: Local) -> None:
    script = (
        "import sys; from heartbeat_cli import cli; code = cli._main(['local', 'keep']);"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    code, *modules = installed.cli("-c", script, program=(sys.executable,)).out.split()
    assert code == "0"
    assert not {"typer", "pydantic", "httpx", "convex", "rich", "asyncio"} & set(modules)


def test_check_reads_all_data_and_says_whether_it_is_whole(installed: Local, cli: Cli, typed: Inside) -> None:
    assert (cli("local", "check").code, cli.data_dir.exists()) == (2, False)
    running = typed("local", "check", "--json")
    assert (running.code, running.data["tables"]["heartbeatTokens"]) == (0, 1)
    assert not list(installed.folder.glob("*.part"))
    typed("local", "down")
    assert typed("local", "check").out.startswith("the data is whole: ")

    data = installed.folder / "db" / "data.sqlite3"
    whole = data.read_bytes()
    data.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    ran = typed("local", "check")
    data.write_bytes(whole)
    assert (ran.code, "the data cannot be used" in ran.err) == (1, True), ran
