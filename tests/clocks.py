"""Clocks that tests move: files from which the processes of a backend and of its hosts read the time.

The hosts' processes read theirs through clocked/sitecustomize.py, the backend its own through
convex/clock.mjs. All show the true time but for what they are set wrong by.
"""

from __future__ import annotations

import os
from pathlib import Path

from conftest import REPOSITORY

SET_CLOCK = REPOSITORY / "tests" / "clocked"
START_MS = 1_772_438_400_000  # Monday 2 March 2026, 08:00 UTC; a whole minute


class Clocks:
    """The true time and each machine's own idea of it; every instant in epoch milliseconds."""

    def __init__(self, folder: Path, hosts: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.true_ms = START_MS
        self.backend_wrong_ms = 0
        self.wrong_ms = dict.fromkeys(hosts, 0)
        folder.mkdir(parents=True, exist_ok=True)
        self.write()

    @property
    def backend(self) -> Path:
        """The file for STORY_CLOCK."""
        return self.folder / "backend"

    @property
    def backend_ms(self) -> int:
        """What the backend's clock shows."""
        return self.true_ms + self.backend_wrong_ms

    def host_ms(self, host: str) -> int:
        """What this host's clock shows."""
        return self.true_ms + self.wrong_ms[host]

    def environment(self, host: str) -> dict[str, str]:
        """What a process of this host needs to read its clock."""
        return {"PYTHONPATH": str(SET_CLOCK), "HOST_CLOCK": str(self.folder / f"host-{host}")}

    def set(self, true_ms: int) -> None:
        """Move the true time, and with it every clock."""
        self.true_ms = true_ms
        self.write()

    def write(self) -> None:
        """Have the processes read the time as it is here; the backend first, so that no host is ahead."""
        _replace(self.backend, str(self.backend_ms))
        for host in self.wrong_ms:
            _replace(self.folder / f"host-{host}", f"{self.host_ms(host)} {self.true_ms}")


def _replace(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text, encoding="ascii")
    os.replace(part, file)  # noqa: PTH105 - no reader ever finds half a number
