"""`heartbeat local install` with a user's real systemd: it starts the backend, at login and after a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import HEARTBEAT, TABLE, Cli, Ran, wait_for
from heartbeat_cli.instance import Instance
from heartbeat_cli.service_systemd import AGAIN_AFTER_S, UNIT, unit
from peers import free_port
from user_systemd import UserSystemd, missing, user_systemd

# a systemd of its own takes 20 s to go through its logins; the form with cron is in test_service_daemon.py
pytestmark = [pytest.mark.long, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
LATE_S = 20  # a start takes half a second; a machine with other work may need more


class Home:
    """Somebody's home, and their systemd while they are logged in."""

    def __init__(self, cli: Cli, functions: Path) -> None:
        self.cli = cli
        self.functions = functions
        self.systemd: UserSystemd | None = None

    def heartbeat(self, *words: str) -> Ran:
        assert self.systemd is not None
        return self.cli(*words, program=(*self.systemd.inside, str(HEARTBEAT)))

    def local(self, *words: str) -> Any:
        ran = self.heartbeat("local", *words, "--json")
        assert ran.code == 0, ran
        return ran.data

    def up(self, *words: str) -> Any:
        return self.local("up", "--functions", str(self.functions), *words)

    def unit(self, name: str) -> str:
        assert self.systemd is not None
        return self.systemd.systemctl("show", "--value", f"--property={name}", UNIT)

    def kill(self) -> int:
        """SIGKILL for what runs; its process id as its systemd sees it."""
        pid = int(self.unit("MainPID"))
        assert self.systemd is not None
        self.systemd.run("kill", f"-{signal.SIGKILL.value}", str(pid))
        return pid

    def comes(self, but: int = 0) -> int:
        """Wait until systemd runs it in another process than that one."""
        deadline = time.monotonic() + AGAIN_AFTER_S + LATE_S
        while self.unit("ActiveState") != "active" or self.unit("MainPID") in {"0", str(but)}:
            assert time.monotonic() < deadline, self.unit("Result")
            time.sleep(0.1)
        return int(self.unit("MainPID"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Home]:
    """Of somebody whose folders have names that systemd would read as something else."""
    cli = Cli(tmp_path_factory.mktemp("home") / '50%h of "${HOME}"')
    cli.home.mkdir(parents=True)
    cli.env["HEARTBEAT_HOME"] = str(cli.home)  # what enters its namespaces begins at their root
    yield Home(cli, bundle)


@pytest.fixture
def logged_in(home: Home) -> Iterator[Home]:
    with user_systemd(home.cli) as home.systemd:
        yield home


def test_systemd_itself_finds_nothing_wrong_with_the_unit_whatever_the_names(tmp_path: Path) -> None:
    program = tmp_path / "50%h $HOME" / 'the "program"'
    program.parent.mkdir()
    program.symlink_to("/bin/true")
    text = unit(Instance(tmp_path / "a b"), [str(program), "local"], {"XDG_DATA_HOME": '/d \\ "e" %h $f'})
    assert 'ExecStart=/usr/bin/env "XDG_DATA_HOME=/d \\\\ \\"e\\" %%h $$f" ' in text
    assert f' "{tmp_path}/50%%h $$HOME/the \\"program\\"" "local"\n' in text
    file = tmp_path / UNIT
    file.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", file],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_takes_over_brings_it_back_and_lets_go_again(logged_in: Home) -> None:
    home = logged_in
    before = home.up("--port", "0")
    home.cli.write_schedule(TABLE)
    assert home.heartbeat("apply", "--agents-only", "--yes").code == 0
    shown = home.heartbeat("local", "install", "--dry-run")
    assert f"{UNIT}:" in shown.out and not home.unit("FragmentPath")

    done = home.local("install", "--yes")
    assert (done["outcome"], done["form"]) == ("installed", "systemd")
    assert (done["up"]["outcome"], done["up"]["url"]) == ("restarted", before["url"])
    assert done["up"]["reasons"] == ["systemd had not started it"]
    assert int(home.unit("MainPID")) == done["up"]["pid"]
    assert any("enable-linger" in note for note in done["notes"])
    assert home.local("install", "--yes")["outcome"] == "unchanged"
    assert home.up()["outcome"] == "already running"

    assert home.heartbeat("send", "hint", "--summary", "just before").code == 0
    home.comes(but=home.kill())
    told = home.local("status")
    assert (told["url"], told["functions"]) == (before["url"], str(home.functions))
    assert told["service"]["form"] == "systemd" and told["service"]["inPlace"]
    past = json.loads(home.heartbeat("agents", "show", "hint", "--json").out)["data"]["heartbeats"]
    assert [heartbeat["summary"] for heartbeat in past] == ["just before"]

    assert home.local("down")["stopped"] == told["pid"]
    assert home.systemd and home.systemd.systemctl("start", UNIT) == ""
    assert home.unit("ActiveState") == "inactive"
    assert home.local("status")["staysDown"]

    url = home.up()["url"]
    assert home.unit("ActiveState") == "active"
    assert home.local("uninstall", "--yes")["outcome"] == "uninstalled"
    told = home.local("status")
    assert (told["state"], told["url"], told["service"]["form"]) == ("running", url, None)
    assert home.unit("LoadState") == "not-found"
    assert not [file for file in (home.cli.folder / "config" / "systemd").rglob("*") if file.is_file()]
    home.local("down")


def test_it_comes_with_the_next_login_unless_it_was_stopped(home: Home) -> None:
    with user_systemd(home.cli) as home.systemd:
        home.up("--port", "0")
        home.local("install", "--yes")
        url = home.local("status")["url"]
    with user_systemd(home.cli) as home.systemd:
        home.comes()
        assert home.local("status")["url"] == url
        home.local("down")
    with user_systemd(home.cli) as home.systemd:
        wait_for(lambda: home.unit("ConditionResult") == "no")
        assert home.local("status")["state"] == "stopped"
        assert home.up()["url"] == url
        assert home.unit("ActiveState") == "active"


def test_another_port_is_taken_and_one_that_cannot_be_had_is_refused(logged_in: Home) -> None:
    home = logged_in
    home.up("--port", "0")
    home.local("install", "--yes")
    before = home.local("status")
    port = free_port()
    moved = home.up("--port", str(port))
    assert (moved["url"], moved["outcome"]) == (f"http://127.0.0.1:{port}", "restarted")
    assert before["url"] != moved["url"] == home.local("status")["url"]
    broken = home.cli.folder / "broken.mjs"
    broken.write_text("export const modules = ;\n")
    ran = home.heartbeat("local", "up", "--functions", str(broken))
    assert (ran.code, "systemd did not start the local backend: " in ran.err) == (75, True), ran
    assert home.up()["outcome"] in {"started", "restarted"}


def test_with_cron_instead_the_unit_goes(logged_in: Home) -> None:
    home = logged_in
    home.up("--port", "0")
    home.local("install", "--yes")
    done = home.local("install", "--with", "cron", "--yes")
    assert (done["outcome"], done["form"]) == ("installed", "cron")
    assert home.unit("LoadState") == "not-found"
    told = home.local("status")
    assert (told["state"], told["service"]["form"], told["service"]["inPlace"]) == ("running", "cron", True)
    assert home.local("install", "--yes")["form"] == "systemd"
    assert home.local("status")["service"]["form"] == "systemd"
    assert not (home.cli.folder / "crontab-of-this-home").exists()
    home.local("uninstall", "--yes")
    home.local("down")
