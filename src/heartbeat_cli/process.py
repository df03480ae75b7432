"""A process that outlives us, and how to know that it is still the same one: a file lock it inherits.

Nothing here knows what the process does; the names of the files and what they mean stand in instance.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.private_files import open_private

POLL_S = 0.02  # between two looks at a file or a lock: not felt by people, a few microseconds of work each

# Becomes the program after it has written its own process id into the file whose lock it inherited. So it
# never runs without its id there: not even when whoever starts it is killed at that very moment.
_BECOME = 'printf "%s\\n" "$$" >"$1" && shift && exec "$@"'


class Starting:
    """A process on its way to being ready: it is when it has printed one line of JSON."""

    def __init__(self, process: subprocess.Popen[bytes], ready: Path) -> None:
        self._process = process
        self._ready = ready

    def wait_until_ready(self, seconds: float) -> dict[str, Any] | None:
        """What the process said of itself; None when it ended, or said nothing within `seconds`."""
        wait(lambda: self._line() is not None or self.exit_code() is not None, seconds)
        line = self._line()
        return None if line is None or self.exit_code() is not None else json.loads(line)

    def exit_code(self) -> int | None:
        """How the process ended, None while it runs."""
        return self._process.poll()

    def end(self, seconds: float) -> None:
        """See to it that the process is gone: asked first, killed after `seconds`."""
        if self.exit_code() is None:
            self._process.terminate()
            if not wait(lambda: self.exit_code() is not None, seconds):
                self._process.kill()
                self._process.wait()

    def _line(self) -> bytes | None:
        line, newline, _ = self._ready.read_bytes().partition(b"\n")
        return line if newline else None


@dataclass(frozen=True, slots=True)
class Files:
    """What a process is given: the folder it works in, and where its id, its stdout and its stderr go."""

    folder: Path
    lock: Path
    ready: Path
    log: Path


def start(command: list[str], environ: dict[str, str], files: Files, lock_handle: int) -> Starting:
    """Start `command` in a session of its own, with nothing of ours but those files.

    It inherits `lock_handle`, the open and locked `files.lock`, into which its process id is written before
    it runs. `files.ready` is emptied first; `files.log` is appended to. Files that it makes are its user's
    alone.
    """
    stdout, stderr = open_private(files.ready), open_private(files.log, os.O_APPEND)
    try:
        os.ftruncate(stdout, 0)
        process = subprocess.Popen(
            ["/bin/sh", "-c", _BECOME, "sh", str(files.lock), *command],
            stdin=subprocess.DEVNULL,
            # A file and no pipe: once we are gone nobody reads it, and a pipe would break under the process
            stdout=stdout,
            stderr=stderr,
            pass_fds=[lock_handle],
            start_new_session=True,
            umask=0o077,
            cwd=files.folder,
            env=environ,
        )
    finally:
        os.close(stdout)
        os.close(stderr)
    return Starting(process, files.ready)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C until this block is left: between two steps of which one without the other does harm."""
    if threading.current_thread() is not threading.main_thread():  # it comes to none but that one
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition that nothing announces; false when it has not come true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def lock(handle: int, *, shared: bool = False) -> bool:
    """Lock an open file until its last handle, in whatever process, is closed.

    False when somebody else's lock forbids it. Raises SettingsProblem where there are no such locks.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where the rest of the program runs
    except ImportError:
        raise SettingsProblem("the local backend runs on Linux and macOS only") from None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def has_open(pid: int, file: Path) -> bool:
    """Whether a process has this file open. True as well on systems without /proc, which do not tell."""
    if not Path("/proc/self/fd").is_dir():
        return True
    try:
        wanted = file.stat()
        for handle in Path("/proc", str(pid), "fd").iterdir():
            try:
                found = handle.stat()
            except OSError:  # closed meanwhile, or no file
                continue
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:  # gone, or another user's
        pass
    return False
