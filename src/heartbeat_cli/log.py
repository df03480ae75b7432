"""The log: one logfmt line per heartbeat in <home>/logs/agent-heartbeat.log, whatever became of it.

Several processes write at once and any of them may rotate. States of the file, and who moves them:

    growing ──a writer finds it full, under the lock──▶ renamed to .1 (.1 to .2, .2 to .3, .3 is dropped);
                                                        a new one grows

A writer opens, locks what it opened, and then looks whether the name still means that file: if somebody
rotated in between it opens again. So a line always goes whole into exactly one file. Logging fails open: no
problem here ever stops a heartbeat.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from heartbeat_cli.output import shown
from heartbeat_cli.private_files import PRIVATE, lock, no_strangers_link
from heartbeat_cli.scrub import scrubbed

ROTATE_BYTES = 1_000_000  # about 4,000 heartbeats: 4 agents each 6 h fill it in most of a year
GENERATIONS = 3  # 4 MB at most: a log that fills the disk would stop what it watches
LOCK_WAIT_S = 0.5  # a writer holds the lock for well under a millisecond; longer means it was stopped
REOPEN_TRIES = 50  # each one means that another process rotated in between
_BARE = re.compile(r'[^\s"=\\]+')

Value = str | int | float | bool | None


def line(now_ms: int, fields: Mapping[str, Value], texts: Mapping[str, str | None]) -> str:
    """One logfmt line, with its newline: `at=…Z name=value … name="text" …`. None is left out.

    `fields` are quoted where they need it, `texts` (what people and agents wrote) always. Values are data:
    control characters, escapes and line breaks are shown, never written as they are.
    """
    at = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    pairs = [f"{name}={_value(value)}" for name, value in fields.items() if value is not None]
    pairs += [f"{name}={_quoted(shown(text))}" for name, text in texts.items() if text is not None]
    return " ".join([f"at={at}", *pairs]) + "\n"


def _value(value: Value) -> str:
    text = str(value).lower() if isinstance(value, bool) else shown(str(value))
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def append(path: Path, text: str, *, rotate_bytes: int = ROTATE_BYTES) -> str | None:
    """Append one line. Returns None, or a sentence saying why it could not be written; raises nothing."""
    data = scrubbed(text).encode("utf-8", errors="backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(REOPEN_TRIES):
            # summaries and errors may hold what is nobody else's business
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
            handle = os.open(path, flags | no_strangers_link(path), PRIVATE)
            try:
                if _write(handle, path, data, rotate_bytes):
                    return None
            finally:
                os.close(handle)
        return f"the log {path} is being rotated too often"
    except OSError as error:
        return f"the log {path} cannot be written: {error.strerror or error}"


def _write(handle: int, path: Path, data: bytes, rotate_bytes: int) -> bool:
    """Write under the lock if `handle` is still the file of that name. False: look again, it was rotated."""
    locked = lock(handle, LOCK_WAIT_S)
    status = os.fstat(handle)
    if locked:
        try:
            current = path.stat()
        except FileNotFoundError:
            return False
        if (current.st_dev, current.st_ino) != (status.st_dev, status.st_ino):
            return False
        if status.st_size and status.st_size + len(data) > rotate_bytes:
            _rotate(path)
            return False
    # Without the lock (a file system that has none, a stopped holder) the line still goes out in one append
    written = os.write(handle, data)
    if written != len(data):
        raise OSError(0, "the disk is full")
    return True


def _rotate(path: Path) -> None:
    for generation in range(GENERATIONS, 0, -1):
        older = path.with_name(f"{path.name}.{generation}")
        newer = path if generation == 1 else path.with_name(f"{path.name}.{generation - 1}")
        if newer.exists():
            newer.replace(older)
