"""A host's disk, which can be full: a small file system of its own where root may mount one."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

SIZE_MB = 16
BLOCK = bytes(65_536)


class Disk:
    """A folder. Without the right to mount it is an ordinary one, and never full."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._filler = folder / "filler"
        options = ["-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
        self.is_small = (
            os.geteuid() == 0
            and subprocess.run(["mount", *options], stderr=subprocess.DEVNULL, check=False).returncode == 0
        )

    def fill(self, room: int) -> None:
        """Leave no more than `room` bytes."""
        if not self.is_small:
            return
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(BLOCK)
            except OSError as error:
                assert error.errno == errno.ENOSPC
            filler.truncate(max(0, filler.tell() - room))

    def free(self) -> None:
        """Give all room back."""
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        """Give the file system back, whoever still uses it."""
        if self.is_small:
            subprocess.run(["umount", "-l", self._folder], check=False)
