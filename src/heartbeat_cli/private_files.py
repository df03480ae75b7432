"""Files that are their owner's alone: opened, replaced in one step, locked; whatever is in them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PRIVATE = 0o600
LOCK_PAUSE_S = 0.005  # between two tries; holders need well under a millisecond


def open_private(file: Path, flags: int = 0) -> int:
    """Open a file for reading and writing, made when there is none, that only its user can read."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | flags, PRIVATE)
    os.fchmod(handle, PRIVATE)
    return handle


def replace(file: Path, data: bytes) -> None:
    """Make `data` the content of `file` in one step: a crash leaves the old or the new. Raises OSError."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def lock(handle: int, seconds: float) -> bool:
    """Lock an open file until it is closed. False when that cannot be had within `seconds`, or not at all:
    Windows and some file systems know no such locks.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return False
    give_up = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(LOCK_PAUSE_S)
        except OSError:
            return False
        else:
            return True


@contextmanager
def alone_in(folder: Path, seconds: float) -> Iterator[None]:
    """Keep others that come this way to change files of `folder` waiting, as they kept us, but for `seconds`
    at most: a process that was stopped in here must not keep everybody out.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # Windows opens no folders
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            lock(handle, seconds)
        yield
