"""`heartbeat run` where everything but the command fails: it runs at once, and its exit code is ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY, TABLE, Cli, alive, wait_for
from deployment import Deployment, Refusal
from disks import MOUNTABLE, Disk
from peers import Deaf, Peer, answers, chatty, free_port, silent, slam
from test_run_signals import children
from wrapped import Host, ending

TOKEN = "hbt_do-not-show-this-token"  # noqa: S105 - that it is never shown is what is tested
PROMISE_MS = 50  # so much later than without us may a command begin
ROUNDS = 7

Fault = Callable[[Cli, contextlib.ExitStack], str]
"""What goes wrong with somebody's host or backend; returns the address to use."""


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def host(cli: Cli) -> Host:
    cli.env |= {"HEARTBEAT_TOKEN": TOKEN, "HEARTBEAT_DEADLINE": "2", "HEARTBEAT_HOME": str(cli.home)}
    cli.write_schedule(TABLE)
    return Host(cli, "hint")


def away(_cli: Cli, _stack: contextlib.ExitStack) -> str:
    return f"http://127.0.0.1:{free_port()}"


def peer(make: Callable[[], Peer]) -> Fault:
    return lambda _cli, stack: stack.enter_context(make()).url


def settings(**env: str) -> Fault:
    def fault(cli: Cli, stack: contextlib.ExitStack) -> str:
        cli.env |= env
        return away(cli, stack)

    return fault


def file_for_a_folder(*parts: str) -> Fault:
    def fault(cli: Cli, stack: contextlib.ExitStack) -> str:
        place = cli.folder.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("in the way")
        return away(cli, stack)

    return fault


def page(text: str) -> Fault:
    def fault(cli: Cli, stack: contextlib.ExitStack) -> str:
        cli.write_schedule(text)
        return away(cli, stack)

    return fault


def full_disk(cli: Cli, stack: contextlib.ExitStack) -> str:
    disk = stack.enter_context(Disk(cli.folder / "data"))
    disk.fill()
    return away(cli, stack)


def damaged_spool(cli: Cli, stack: contextlib.ExitStack) -> str:
    return file_for_a_folder("data", "convex-heartbeat", "spool", "spool.db")(cli, stack)


# What goes wrong -> whether start and finish are kept all the same, and what is said, once
FAULTS: dict[str, tuple[Fault, bool, str]] = {
    "nobody there": (away, True, "hint is spooled, not delivered: nothing answers at"),
    "silent": (peer(lambda: Peer(silent)), True, "hint is spooled, not delivered:"),
    "deaf": (peer(lambda: Deaf(full=True)), True, "hint is spooled, not delivered:"),
    "slams": (peer(lambda: Peer(slam)), True, "hint is spooled, not delivered:"),
    "chatty": (peer(lambda: Peer(chatty)), True, "hint is spooled, not delivered:"),
    "fails": (peer(lambda: Peer(answers("500 Oh No", "no"))), True, "hint is spooled, not delivered:"),
    "no functions": (peer(lambda: Deployment({})), True, "hint is spooled, not delivered:"),
    "no address": (settings(HEARTBEAT_URL="nonsense:"), False, "not reported: "),
    "no deadline": (settings(HEARTBEAT_DEADLINE="soon"), False, "not reported: the deadline 'soon'"),
    "no home": (settings(HEARTBEAT_HOME="/nowhere"), False, "not reported: the home folder"),
    "no token": (settings(HEARTBEAT_TOKEN=""), False, "not reported: there is no access token"),
    "spool unusable": (file_for_a_folder("data"), False, "not reported: hint is neither delivered"),
    "spool damaged": (damaged_spool, False, "not reported: hint is neither delivered"),
    "log unusable": (file_for_a_folder("fleet", "logs"), True, "the log "),
    "garbage schedule": (page("| agent | \0 |\n|||"), True, "hint is spooled, not delivered:"),
}  # fmt: skip
if MOUNTABLE:
    FAULTS["full disk"] = (full_disk, False, "not reported: hint is neither delivered")


# What the reports see of these is what they see of another one: they go the same way (test_send_faults.py has
# each of the peers)
ALIKE = {"deaf", "slams", "chatty", "no functions", "no deadline", "no home", "spool unusable"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in ALIKE)) for name in FAULTS]
)
def test_the_command_runs_and_one_sentence_says_what_is_wrong(
    host: Host, stack: contextlib.ExitStack, name: str
) -> None:
    fault, kept, said = FAULTS[name]
    url = fault(host.cli, stack)
    host.cli.env.setdefault("HEARTBEAT_URL", url)
    began = time.monotonic()
    code, out, err = host.run("sh", "-c", "echo ran; echo words >&2; exit 3")
    assert time.monotonic() - began < 30, "it waits for one deadline, and not for each of its reports"
    assert (code, out) == (3, b"ran\n")
    first, *lines = err.decode().splitlines()
    assert first == "words"
    assert len([line for line in lines if said in line]) == 1, lines
    assert TOKEN not in err.decode()
    reports = [(one["run"]["phase"], one["run"].get("exitCode")) for one in host.spooled()] if kept else []
    assert reports == ([("start", None), ("finish", 3)] if kept else [])


def test_a_backend_that_did_not_answer_the_start_is_not_asked_again_for_the_finish(host: Host) -> None:
    with Peer(silent) as peer:
        host.cli.env |= {"HEARTBEAT_URL": peer.url, "HEARTBEAT_DEADLINE": "1", "HEARTBEAT_TRANSPORT": "http"}
        assert host.cli("send", "hint").code == 0
        once = peer.connections
        assert host.run("true")[0] == 0
        assert peer.connections == 2 * once


def test_a_package_that_is_deleted_meanwhile_costs_the_report_and_nothing_else(host: Host) -> None:
    package = host.cli.folder / "lib" / "heartbeat_cli"
    shutil.copytree(REPOSITORY / "src" / "heartbeat_cli", package)
    words = [
        sys.executable,
        "-m",
        "heartbeat_cli",
        *host.words(["sh", "-c", f"mv {package} {package}-gone; exit 3"])[1:],
    ]
    env = host.cli.environment({"PYTHONPATH": str(package.parent), "HEARTBEAT_URL": "http://127.0.0.1:9"})
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    # on a busy machine what reports may have been imported before
    told = [done.stderr.count(words) for words in ("this run is not reported", "is spooled, not delivered")]
    assert "Traceback" not in done.stderr and sorted(told) == [0, 1]


def test_quiet_says_nothing_of_what_is_kept_and_all_of_what_is_lost(host: Host, tmp_path: Path) -> None:
    host.cli.env["HEARTBEAT_URL"] = f"http://127.0.0.1:{free_port()}"
    assert host.run("true", options=["--quiet"]) == (0, b"", b"")
    (tmp_path / "file").write_text("")
    code, out, err = host.run("true", options=["--quiet"], env={"XDG_DATA_HOME": str(tmp_path / "file")})
    assert (code, out) == (0, b"") and b"neither delivered nor kept" in err


def test_a_refusal_is_told_and_set_aside_and_the_command_has_run(host: Host) -> None:
    def refuse(_args: object) -> object:
        raise Refusal({"code": "unknown_agent", "message": "there is no agent hint"})

    with Deployment({"mutations/recordHeartbeat": refuse}) as deployment:
        host.cli.env["HEARTBEAT_URL"] = deployment.url
        code, out, err = host.run("echo", "ran", options=["--quiet"])
    assert (code, out) == (0, b"ran\n")
    assert err.count(b"this run is refused: there is no agent hint") == 1
    assert [one["run"]["phase"] for one in host.spooled()] == ["start", "finish"]


def test_the_reports_are_delivered_by_whoever_comes_next(host: Host) -> None:
    got: list[str] = []

    def record(args: Mapping[str, Any]) -> object:
        got.append(args["heartbeat"]["run"]["phase"])
        return {"outcome": "recorded", "health": "ok"}

    with Deployment({"mutations/recordHeartbeat": record}) as deployment:
        host.cli.env["HEARTBEAT_URL"] = deployment.url
        deployment.becomes(slam)
        assert host.run("true")[0] == 0
        assert got == []
        deployment.becomes(deployment._speak)
        assert host.cli("spool", "retry").code == 0
    assert got == ["start", "finish"]


def test_whoever_does_not_want_to_wait_for_a_report_leaves_and_it_is_kept(host: Host, tmp_path: Path) -> None:
    with Peer(silent) as peer:
        host.cli.env |= {"HEARTBEAT_URL": peer.url, "HEARTBEAT_DEADLINE": "60"}
        with ending(host.begin("sh", "-c", f"echo $$ >{tmp_path}/a; exit 4")) as wrapped:
            children(tmp_path, "a")
            wait_for(lambda: peer.connections)  # the start is under way
            wait_for(lambda: not alive(int((tmp_path / "a").read_text())))
            os.kill(wrapped.pid, signal.SIGINT)
            assert wrapped.process.wait(timeout=20) == 4
            wrapped.leaves_nothing()
    assert [one["run"]["phase"] for one in host.spooled()] == ["start", "finish"]


@pytest.mark.parametrize("handles", range(5, 16, 2))
def test_where_nothing_can_be_had_to_watch_it_the_command_runs_all_the_same(host: Host, handles: int) -> None:
    """Descriptors, for one: without any it takes our own place, with some nobody knows what it wrote."""
    host.cli.env["HEARTBEAT_URL"] = f"http://127.0.0.1:{free_port()}"
    code, out, _ = host.run("sh", "-c", "echo ran; exit 3", before=["prlimit", f"--nofile={handles}", "--"])
    assert (code, out) == (3, b"ran\n")


WAITED = "cut -d' ' -f2 /proc/$$/schedstat"  # ns for which it could have gone on, but others had the cores


def later_ms(began_ns: int, lines: Iterable[bytes]) -> float:
    """How long after its start the command was there, without the time for which it had no core."""
    there, *waited = map(int, lines)
    return (there - began_ns - sum(waited)) / 1e6


def begins_alone(env: Mapping[str, str]) -> float:
    began = time.time_ns()
    done = subprocess.run(["sh", "-c", f"date +%s%N; {WAITED}"], env=env, capture_output=True, check=True)
    return later_ms(began, done.stdout.split())


def begins_wrapped(host: Host) -> float:
    script = f"date +%s%N; {WAITED}; {WAITED.replace('$$', '$PPID')}"
    began = time.time_ns()
    with ending(host.begin("sh", "-c", script)) as wrapped:
        assert wrapped.process.stdout
        return later_ms(began, [wrapped.process.stdout.readline() for _ in range(3)])


@pytest.mark.parametrize("fault", [peer(lambda: Peer(silent)), away], ids=["silent", "away"])
def test_the_command_begins_at_most_50_ms_later_than_without_us(
    host: Host, stack: contextlib.ExitStack, fault: Fault
) -> None:
    host.cli.env |= {"HEARTBEAT_URL": fault(host.cli, stack)}
    env = host.cli.environment()
    alone = [begins_alone(env) for _ in range(ROUNDS)]
    wrapped = [begins_wrapped(host) for _ in range(ROUNDS)]
    assert statistics.median(wrapped) - statistics.median(alone) < PROMISE_MS, (alone, wrapped)
