"""This host's two clocks: the one people read, which can be set, and the one since boot, which cannot.

How old a heartbeat is when it is delivered decides whether it is a sign of life (rule 1). A clock that was
set in between must not make it younger, nor, on a host that starts in 1970, half a century older.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # Linux; elsewhere only the wall clock is known
MS_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of both clocks: `wall_ms` since 1970, `boot_ms` since `boot` began, sleep included.

    `boot` is None where a host does not tell.
    """

    wall_ms: int
    boot: str | None = None
    boot_ms: int = 0


def now() -> Moment:
    """Both clocks of this host, read now."""
    boot = _boot()
    boot_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // MS_NS if boot else 0
    return Moment(time.time_ns() // MS_NS, boot, boot_ms)


@functools.cache
def _boot() -> str | None:
    try:
        return (
            BOOT_ID.read_text(encoding="ascii").strip() or None if hasattr(time, "CLOCK_BOOTTIME") else None
        )
    except (OSError, ValueError):
        return None


def elapsed_ms(since: Moment, until: Moment) -> int:
    """Milliseconds between two readings on one host; never negative.

    By the clock that cannot be set, if both were taken since the same boot.
    """
    if since.boot is not None and since.boot == until.boot:
        return max(0, until.boot_ms - since.boot_ms)
    return max(0, until.wall_ms - since.wall_ms)
