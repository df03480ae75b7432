"""The two ends of a move: a deployment that is called many times, and may be away for a while in between.

Always over HTTP: after a call that got no answer the official client cannot be used again (transport_ws.py),
and an export outlives a restart of its backend.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import Unreachable

if TYPE_CHECKING:
    from heartbeat_cli.client import Connection

Answer = TypeVar("Answer")

# What may pass by itself; anything else says that it will not
PASSING = frozenset({"refused", "unresolved", "timeout", "cut", "server_error"})
PATIENCE_S = 120.0  # for an end that answered before: a restart, a new deployment, a line that was cut
PAUSE_S = 0.25  # before the second try; doubled for each ...
PAUSE_MOST_S = 5.0  # ... up to this
SMALLER_BY = 4  # each time a call with so many records failed: the line may be slow, the functions at a limit
FAILURES = 6  # of the functions themselves: enough to come down from 500 records to one, and try that again
# A call leaves its body behind in circles of objects: some hundreds of them, and up to a megabyte each time.
# As long as there is a connection
OBJECTS_BEFORE_GC = 1_000
GO_ON = "type the same again: it goes on where it was"


class Told(Protocol):
    """Who is told how it goes."""

    def progress(self, text: str) -> None:
        """How far it is by now; each text takes the place of the one before."""

    def note(self, text: str) -> None:
        """Something that happened."""


@dataclass(frozen=True, slots=True)
class End:
    """A deployment: its address, and how a connection to it is made, all of whose calls share a deadline of
    `deadline_s`, which each call begins anew.
    """

    url: str
    deadline_s: float
    connect: Callable[[Deadline], Connection]


@dataclass(slots=True)
class Patient:
    """Calls to one end, with records by the `most`; `size` is how many the last call that succeeded had.

    `clock` and `sleep` are in seconds.
    """

    end: End
    most: int
    told: Told
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    size: int = 0
    _next: int = 0
    _answered: bool = False
    _connection: Connection | None = None
    _threshold: tuple[int, int, int] = (0, 0, 0)  # gc's, as it was without one
    _deadline: Deadline = field(init=False)

    def __post_init__(self) -> None:
        self._next = self.most
        self._deadline = Deadline(self.end.deadline_s)

    def ask(self, call: Callable[[Connection, int], Answer]) -> Answer:
        """What `call` answers, which is handed a connection and how many records it may be about.

        An end that answered before is waited for; then, or when it never did, raises `Unreachable`, and
        `Refused` at once.
        """
        since: float | None = None
        pause, failures = PAUSE_S, 0
        while True:
            self.size = self._next
            try:
                answer = call(self._connected(), self.size)
            except Unreachable as error:
                now = self.clock()
                since = now if since is None else since
                failures += error.cause == "server_error"
                left = PATIENCE_S - (now - since)
                self.close()
                if error.cause not in PASSING or failures >= FAILURES or left <= 0 or not self._answered:
                    if self._answered:
                        error.hint = f"{error.hint}; then {GO_ON}" if error.hint else GO_ON
                    raise
                self.told.note(f"{error}; trying again, for {left:.0f} s")
                if error.cause not in {"refused", "unresolved"}:
                    self._next = max(1, self._next // SMALLER_BY)
                self.sleep(pause * (1 + random.random()))  # noqa: S311 - no secret
                pause = min(PAUSE_MOST_S, 2 * pause)
            else:
                self._answered = True
                self._next = min(self.most, 2 * self._next)
                return answer

    def close(self) -> None:
        """Give back the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            gc.set_threshold(*self._threshold)

    def _connected(self) -> Connection:
        self._deadline.renew()
        if self._connection is None:
            self._connection = self.end.connect(self._deadline)
            self._threshold = gc.get_threshold()
            gc.set_threshold(OBJECTS_BEFORE_GC)
        return self._connection
