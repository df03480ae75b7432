"""A disk of its own that gets full, or read-only, and well again: for tests that root runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

MOUNTABLE = os.geteuid() == 0
DISK_KB = 512  # a spool with a few heartbeats, and a log, fit
BLOCK_BYTES = 4096  # what is left at the end is less, so that no file can grow by a page


class Disk:
    """A small file system at `folder`, which is made. A context manager: it is gone afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self._run("mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("umount", "--lazy")

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(BLOCK_BYTES))

    def free(self) -> None:
        self._filler.unlink()

    def read_only(self, on: bool = True) -> None:
        self._run("mount", "-o", f"remount,{'ro' if on else 'rw'}")

    def _run(self, *command: str) -> None:
        subprocess.run([*command, str(self.folder)], check=True)
