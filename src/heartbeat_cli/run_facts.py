"""What the halves of a run say to each other; light, for the supervisor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

Facts = dict[str, Any]
"""What is reported of a run, in kinds that `marshal` knows; run_report.py says what is in it."""

Instant = tuple[int, int, bytes]
"""By both clocks of this host in ms (wall, since boot), and random bytes that make an id of it."""

Tell = Callable[[bytes, str], None]
"""How a report says what becomes of it: one of the kinds below, and a text."""

DEADLINE = b"d"  # of each report, in seconds
KEPT = b"k"  # the finish is on the disk, or nothing more can be done for it
PROBLEM = b"p"  # a sentence: something is lost, or refused
NOTE = b"n"  # a sentence: all is well, or will be

RANDOM_BYTES = 10
_MS_NS = 1_000_000


def instant() -> Instant:
    """Now."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    boot_ms = time.clock_gettime_ns(boot) // _MS_NS if boot is not None else 0
    return time.time_ns() // _MS_NS, boot_ms, os.urandom(RANDOM_BYTES)
