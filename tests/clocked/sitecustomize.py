"""Imported by Python as it starts, where PYTHONPATH names this folder: its clocks are those of a file.

HOST_CLOCK names the file of two numbers, epoch milliseconds: what the host's wall clock shows, and the time
that has truly passed, which nobody can set. Both stand still until the file says otherwise; the monotonic
clock, by which deadlines are kept, goes on as ever. (clocks.py writes such files; tests/convex/clock.mjs is
the same for Node.)

Who asks for the true time and then for the wall clock, as clock.py does, gets both from one look at the file:
between two looks hours may pass.
"""

from __future__ import annotations

import os
import time

FILE = os.environ["HOST_CLOCK"]
MS_NS = 1_000_000

_looked: list[int] = []  # the wall clock that belongs to the true time that was told last


def _look() -> tuple[int, int]:
    with open(FILE, encoding="ascii") as file:  # noqa: PTH123 - pathlib is not imported yet, and slow
        wall, passed = file.read().split()
    return int(wall) * MS_NS, int(passed) * MS_NS


def _clock_gettime_ns(clock: int) -> int:
    if clock != time.CLOCK_BOOTTIME:
        return _real_gettime_ns(clock)
    wall, passed = _look()
    _looked[:] = [wall]
    return passed


def _time_ns() -> int:
    return _looked.pop() if _looked else _look()[0]


_real_gettime_ns = time.clock_gettime_ns
time.clock_gettime_ns = _clock_gettime_ns
time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9
