"""`heartbeat run` and signals: they reach all of the command, a finish is reported, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from attempts import World
from conftest import Local, alive, wait_for
from wrapped import Wrapped, ending, host_of, runs

__all__ = ["host_of"]  # a fixture

AGENTS = ["told", "rest", "nohup", "halted", "user", "torn"]
TORN = 30 if os.environ.get("HEARTBEAT_TEST_LONG") else 6
TORN_MOST_S = 0.6  # a run takes about so long: each of its instants is met
ENDING = ["TERM", "INT", "HUP", "QUIT"]


@pytest.fixture(scope="module")
def world(running: Local) -> World:
    return World(running, AGENTS)


def children(folder: Path, names: str) -> list[int]:
    """The ids that the processes of a command wrote there, once all have."""
    wait_for(
        lambda: all((folder / name).exists() and (folder / name).read_text().endswith("\n") for name in names)
    )
    return [int((folder / name).read_text()) for name in names]


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_reaches_the_whole_group_and_the_finish_is_reported(
    world: World, host_of: Any, tmp_path: Path, name: str
) -> None:
    # not in the background: there a shell has its processes ignore some of them
    script = f"ulimit -c 0; echo $$ >{tmp_path}/a; sleep 60"
    with ending(host_of("told").begin("sh", "-c", script)) as wrapped:
        pids = children(tmp_path, "a")
        wait_for(lambda: "sleep 60" in wrapped.processes().values())
        pids += [pid for pid, line in wrapped.processes().items() if line == "sleep 60"]
        os.kill(wrapped.pid, signal.Signals[f"SIG{name}"])
        assert wrapped.end()[0] == 128 + signal.Signals[f"SIG{name}"]
        wrapped.leaves_nothing()
        assert not any(map(alive, pids))
    newest = runs(world, "told")[0]
    assert (newest["error"], newest["open"]) == (f"killed by SIG{name}", False)


def test_a_command_that_tidies_up_may_and_its_exit_code_counts(
    world: World, host_of: Any, tmp_path: Path
) -> None:
    script = f"trap 'echo tidy; exit 7' TERM; touch {tmp_path}/on; sleep 60 & wait"
    with ending(host_of("told").begin("sh", "-c", script)) as wrapped:
        wait_for((tmp_path / "on").exists)
        os.kill(wrapped.pid, signal.SIGTERM)
        assert wrapped.end()[:2] == (7, b"tidy\n")
        wrapped.leaves_nothing()
    assert runs(world, "told")[0]["error"] == "exit 7"


def test_what_stays_of_a_group_that_was_told_to_end_is_killed(host_of: Any, tmp_path: Path) -> None:
    stubborn = f"(trap '' TERM; touch {tmp_path}/on; while :; do sleep 0.1; done) & wait"
    with ending(host_of("rest").begin("sh", "-c", stubborn, options=["--kill-after", "1s"])) as wrapped:
        wait_for((tmp_path / "on").exists)
        os.kill(wrapped.pid, signal.SIGTERM)
        assert wrapped.end()[0] == 128 + signal.SIGTERM
        wrapped.leaves_nothing()


def test_what_was_ignored_when_we_were_started_the_command_ignores(host_of: Any, tmp_path: Path) -> None:
    script = f"touch {tmp_path}/on; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo went on"
    with ending(host_of("nohup").begin("sh", "-c", script, before=["nohup"])) as wrapped:
        wait_for((tmp_path / "on").exists)
        os.kill(wrapped.pid, signal.SIGHUP)
        (tmp_path / "go").touch()
        assert wrapped.end()[:2] == (0, b"went on\n")


def test_signals_do_for_the_command_what_they_do_without_us(host_of: Any) -> None:
    """Python has some ignored, and so would the command."""
    asks = ["sh", "-c", "grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status"]
    plain = subprocess.run(asks, capture_output=True, check=True).stdout
    assert host_of("nohup").run(*asks)[1] == plain


def test_a_signal_of_the_users_own_goes_to_the_command(host_of: Any, tmp_path: Path) -> None:
    script = f"trap 'echo got it; exit 0' USR1; touch {tmp_path}/on; while :; do sleep 0.05; done"
    with ending(host_of("user").begin("sh", "-c", script)) as wrapped:
        wait_for((tmp_path / "on").exists)
        os.kill(wrapped.pid, signal.SIGUSR1)
        assert wrapped.end()[:2] == (0, b"got it\n")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stopped_and_continued_the_command_stops_and_goes_on(host_of: Any, tmp_path: Path) -> None:
    with ending(host_of("halted").begin("sh", "-c", f"echo $$ >{tmp_path}/a; exec sleep 60")) as wrapped:
        [pid] = children(tmp_path, "a")
        wait_for(lambda: "sleep 60" in wrapped.processes().values())
        for stop in (signal.SIGTSTP, signal.SIGSTOP):
            os.kill(wrapped.pid if stop == signal.SIGTSTP else pid, stop)
            wait_for(lambda: state(pid) == "T")
            os.kill(wrapped.pid, signal.SIGCONT)
            wait_for(lambda: state(pid) != "T")
        os.kill(pid, signal.SIGTERM)
        assert wrapped.end()[0] == 128 + signal.SIGTERM


def test_a_stopped_command_ends_when_it_is_told_to(host_of: Any, tmp_path: Path) -> None:
    with ending(host_of("halted").begin("sh", "-c", f"echo $$ >{tmp_path}/a; exec sleep 60")) as wrapped:
        [pid] = children(tmp_path, "a")
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: state(pid) == "T")
        os.kill(wrapped.pid, signal.SIGTERM)
        assert wrapped.end()[0] == 128 + signal.SIGTERM


def helpers(wrapped: Wrapped) -> list[int]:
    """The processes of ours beside the command."""
    return [
        pid for pid, line in wrapped.processes().items() if "heartbeat run" in line and pid != wrapped.pid
    ]


def test_a_killed_supervisor_takes_all_of_the_command_with_it_and_reports_nothing(
    world: World, host_of: Any, tmp_path: Path
) -> None:
    script = f"(echo $$ >{tmp_path}/b; exec sleep 60) & echo $$ >{tmp_path}/a; wait"
    with ending(host_of("torn").begin("sh", "-c", script)) as wrapped:
        children(tmp_path, "ab")
        wait_for(lambda: runs(world, "torn"))
        wrapped.process.kill()
        wrapped.leaves_nothing()
    newest = runs(world, "torn")[0]
    assert newest["open"] is True and "exitCode" not in newest


def test_helpers_that_are_killed_change_nothing(world: World, host_of: Any, tmp_path: Path) -> None:
    """The keeper has a successor, and so has the reporter: the finish is reported all the same."""
    script = f"echo $$ >{tmp_path}/a; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 5"
    with ending(host_of("rest").begin("sh", "-c", script)) as wrapped:
        children(tmp_path, "a")
        first = helpers(wrapped)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: set(helpers(wrapped)) - set(first))
        (tmp_path / "go").touch()
        assert wrapped.end()[0] == 5
        wrapped.leaves_nothing()
    assert runs(world, "rest")[0]["exitCode"] == 5


def test_a_keeper_that_was_killed_has_a_successor(host_of: Any, tmp_path: Path) -> None:
    with ending(host_of("rest").begin("sh", "-c", f"echo $$ >{tmp_path}/a; exec sleep 60")) as wrapped:
        children(tmp_path, "a")
        first = helpers(wrapped)
        [keeper] = [pid for pid in first if os.getsid(pid) == pid]
        os.kill(keeper, signal.SIGKILL)
        wait_for(lambda: any(os.getsid(pid) == pid for pid in helpers(wrapped) if pid != keeper))
        wrapped.process.kill()
        wrapped.leaves_nothing()


def test_killed_at_any_instant_nothing_is_left_and_no_lie_is_told(
    world: World, host_of: Any, tmp_path: Path
) -> None:
    """Supervisor, reporter, keeper or command: whichever is killed, whenever."""
    host = host_of("torn")
    chance = random.Random(5)  # noqa: S311 - no secret
    for number in range(TORN):
        code = 10 + number
        with ending(host.begin("sh", "-c", f"sleep 0.2 & sleep 0.1; wait; exit {code}")) as wrapped:
            time.sleep(chance.random() * TORN_MOST_S)
            if there := sorted(wrapped.processes()):
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(chance.choice(there), signal.SIGKILL)
            ended = wrapped.end()[0]
            wrapped.leaves_nothing()
        if ended in {code, 128 + signal.SIGKILL}:  # the supervisor lived
            assert runs(world, "torn")[0]["exitCode"] == ended
    told = {run.get("exitCode") for run in runs(world, "torn")}
    assert told <= {None, 128 + signal.SIGKILL, *range(10, 10 + TORN)}
