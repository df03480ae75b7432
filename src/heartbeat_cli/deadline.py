"""The one overall deadline of a command, and how to keep it against calls that know no time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Deadline:
    """An instant that nothing may pass: `seconds` (at least 1) from now, by a monotonic `clock` (seconds)."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def renew(self) -> None:
        """Begin anew: for work of many steps, each of which may take the whole time."""
        self._end = self._clock() + self.seconds

    def left(self) -> float:
        """Seconds until the deadline; 0 or less once it has passed."""
        return self._end - self._clock()


class Late(Exception):
    """What was to be done `within` a time is still not done; its thread goes on until the process leaves."""


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """What `work()` returns or raises, or `Late` after `seconds`.

    Runs in a daemon thread: name look-ups and reads that never end cannot be stopped, only left behind.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if errors:
        raise errors[0]
    if not results:
        raise Late
    return results[0]
