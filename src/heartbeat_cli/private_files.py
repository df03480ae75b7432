"""Files that are their owner's alone: opened, replaced in one step, locked; and who else gets at a file."""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from heartbeat_cli.errors import SettingsProblem

PRIVATE = 0o600
LOCK_PAUSE_S = 0.005  # between two tries; holders need well under a millisecond
OTHERS_MAY_USE = stat.S_IRWXG | stat.S_IRWXO
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
ANYBODY_MAY_WRITE = stat.S_IWOTH


def open_private(file: Path, flags: int = 0) -> int:
    """Open a file for reading and writing, made when there is none, that only its user can read."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | flags, PRIVATE)
    os.fchmod(handle, PRIVATE)
    return handle


@contextmanager
def writing(what: Path | str) -> Iterator[None]:
    """What the disk has against writing `what` becomes one `SettingsProblem` that names it."""
    try:
        yield
    except OSError as error:
        raise SettingsProblem(f"{what} cannot be written: {error.strerror or error}") from None


def sync(place: Path) -> None:
    """Have the disk hold a file's content, or which names a folder has. Raises OSError."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(file: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Make `data` the content of `file` in one step: a crash leaves the old or the new. Raises OSError."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def try_lock(handle: int) -> bool | None:
    """Lock an open file until it is closed. False while another process has it; None where there are no such
    locks (Windows, some file systems).
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def lock(handle: int, seconds: float) -> bool:
    """As `try_lock`, waiting so long for another process. False when it cannot be had at all."""
    give_up = time.monotonic() + seconds
    while (locked := try_lock(handle)) is False and time.monotonic() < give_up:
        time.sleep(LOCK_PAUSE_S)
    return bool(locked)


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


def exposed(place: Path) -> str | None:
    """What is wrong with a file that other users can read, or a folder that they can change, and the command
    that mends it; None where nothing is, where there is no such place, and on systems without such rights.
    """
    status = _status(place)
    if status is None:
        return None
    name = shlex.quote(str(place))
    if stat.S_ISDIR(status.st_mode):
        if not status.st_mode & OTHERS_MAY_WRITE:
            return None
        return f"other users can change what is in {place}; mend it: chmod go-w {name}"
    if not status.st_mode & OTHERS_MAY_USE:
        return None
    return f"other users can read {place}; mend it: chmod 600 {name}"


def strangers(place: Path) -> str | None:
    """Why what stands in a file may be another user's word, and what to do about it; None where it is not.

    The file is root's or our user's own and nobody else may write it: then it is ours.
    """
    status = _status(place)
    if status is None:
        return None
    name = shlex.quote(str(place))
    if not _is_ours(status):
        return f"{place} belongs to another user; if it is right: chown {os.geteuid()} {name}"
    if status.st_mode & ANYBODY_MAY_WRITE:
        return f"every user can write {place}; if it is right: chmod o-w {name}"
    return None


def no_strangers_link(place: Path) -> int:
    """The flag for `os.open` that follows a link at `place` only if our user, or root, made it.

    In a folder that others can write a link of theirs would have us append to whatever file of ours they
    choose.
    """
    try:
        status = place.lstat()
    except OSError:
        status = None
    ours = status is not None and stat.S_ISLNK(status.st_mode) and (os.name != "posix" or _is_ours(status))
    return 0 if ours else getattr(os, "O_NOFOLLOW", 0)


def _status(place: Path) -> os.stat_result | None:
    if os.name != "posix":
        return None
    try:
        return place.stat()
    except OSError:
        return None


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in {0, os.geteuid()}
