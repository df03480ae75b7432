"""A process that outlives us: what it inherits, when it is ready, how it is known again."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import HEARTBEAT, Local
from heartbeat_cli.private_files import open_private
from heartbeat_cli.process import Files, Starting, has_open, lock, start, uninterrupted


def test_the_backend_inherits_nothing_that_would_keep_others_waiting(local: Local, tmp_path: Path) -> None:
    with (tmp_path / "a lock of the calling script").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        command = [str(HEARTBEAT), "local", "up", "--port", "0", "--functions", str(local.functions)]
        subprocess.run(
            command, env=local.cli.environment(), pass_fds=[other.fileno()], check=True, capture_output=True
        )
    with (tmp_path / "a lock of the calling script").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def started(tmp_path: Path, script: str) -> tuple[Starting, Files]:
    files = Files(tmp_path, tmp_path / "lock", tmp_path / "ready", tmp_path / "log")
    handle = open_private(files.lock)
    assert lock(handle)
    try:
        return start(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]}, files, handle), files
    finally:
        os.close(handle)


def test_a_process_is_ready_once_it_has_said_one_line_and_holds_the_lock_to_its_end(
    tmp_path: Path,
) -> None:
    starting, files = started(tmp_path, """echo '{"port": 1}'; echo trouble >&2; exec sleep 60""")
    assert starting.wait_until_ready(10) == {"port": 1}
    pid = int(files.lock.read_text())
    assert has_open(pid, files.lock) and not has_open(os.getpid(), files.lock)
    handle = open_private(files.lock)
    assert not lock(handle)
    starting.end(5)
    assert lock(handle) and starting.exit_code() is not None
    os.close(handle)
    assert files.log.read_text() == "trouble\n"


def test_a_process_that_ends_or_says_nothing_is_not_ready(tmp_path: Path) -> None:
    starting, _ = started(tmp_path, """printf '{"half'; exit 3""")
    assert (starting.wait_until_ready(10), starting.exit_code()) == (None, 3)
    mute, _ = started(tmp_path, "exec sleep 60")
    assert (mute.wait_until_ready(0.1), mute.exit_code()) == (None, None)
    mute.end(5)


def test_a_process_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    starting, _ = started(tmp_path, "trap '' TERM; echo '{}'; while :; do sleep 0.1; done")
    starting.wait_until_ready(10)
    starting.end(0.2)
    assert starting.exit_code() == -9


def test_ctrl_c_comes_after_what_belongs_together() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("both")
    assert done == ["both"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
