"""The local backend's log: its stderr, bounded whenever it starts, read from the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from heartbeat_cli.private_files import open_private

MOST_BYTES = 1_000_000  # a log that is larger when the backend starts is cut …
KEPT_BYTES = 250_000  # … to its end, some thousand lines
LOOK_BACK_BYTES = 1_000_000  # nobody reads further back than this, however many lines are asked for
LOOK_EVERY_S = 0.2  # for new lines: soon enough for a reader


class BackendLog:
    """The log at `path`, which need not exist yet. Bytes that are no UTF-8 are read as U+FFFD."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self) -> int:
        """In bytes; 0 when there is no log."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def lines(self, count: int, since: int = 0) -> list[str]:
        """The last `count` lines, none of them from before byte `since`."""
        end = self.size()
        start = max(since, end - LOOK_BACK_BYTES)
        lines = self._read(start, end).decode("utf-8", "replace").splitlines()
        if start > since:
            lines = lines[1:]  # what was read begins within a line
        return lines[-count:] if count > 0 else []

    def follow(self, count: int) -> Iterator[str]:
        """The last `count` lines, then each new one as it comes, for ever; across restarts of the backend."""
        place, rest = self.size(), b""
        yield from self.lines(count)
        while True:
            size = self.size()
            if size < place:  # it was cut
                place, rest = 0, b""
            if size == place:
                time.sleep(LOOK_EVERY_S)
                continue
            *whole, rest = (rest + self._read(place, size)).split(b"\n")
            place = size
            yield from (line.decode("utf-8", "replace") for line in whole)

    def add(self, line: str) -> None:
        """One line more. Where it cannot be written, it is not."""
        with suppress(OSError):
            handle = open_private(self.path, os.O_APPEND)
            with os.fdopen(handle, "ab") as file:
                file.write(line.encode("utf-8", "replace") + b"\n")

    def cut(self) -> None:
        """Bound the log's size. Only while no backend runs: what it wrote meanwhile would be lost."""
        size = self.size()
        if size <= MOST_BYTES:
            return
        kept = self._read(size - KEPT_BYTES, size).partition(b"\n")[2]
        with self.path.open("r+b") as file:
            file.write(kept)
            file.truncate()

    def _read(self, start: int, end: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        except FileNotFoundError:
            return b""
