"""What is known after a torture run: what was done, as the run itself saw it, and what the databases hold.

The fraction of a minute that any clock shows is the number of the tick, and no two ticks have the same: an
instant that a process wrote down tells in which tick it looked at its clock.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.plan import MINUTE_MS, Agent, Plan, Send

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tick:
    """The instants of one tick: truly, on the backend, on each host (epoch ms), and for us (monotonic s)."""

    true_ms: int
    backend_ms: int
    host_ms: Mapping[str, int]
    real_s: float


@dataclass(frozen=True, slots=True)
class Life:
    """A process of a host: its first and last tick, and when it had ended (monotonic s)."""

    host: str
    first: int
    last: int
    ended_s: float


@dataclass(frozen=True, slots=True)
class Sent:
    """One `heartbeat send` and how it ended; `answer` is the JSON it printed, None if it printed none."""

    send: Send
    life: Life
    code: int
    answer: Document | None
    complaint: str


@dataclass(frozen=True, slots=True)
class Watched:
    """An agent, and the instant at which the backend began to watch it."""

    agent: Agent
    since_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as the backend holds it; `number` is the order in which documents were written."""

    number: int
    document: Document

    def __getitem__(self, name: str) -> Any:
        return self.document[name]

    def get(self, name: str) -> Any:
        return self.document.get(name)


@dataclass
class Facts:
    """All of one run."""

    plan: Plan
    ticks: list[Tick] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    # ticks in which the sweep surely ran; it may have run in others, of itself
    swept: list[int] = field(default_factory=list)
    # (the last tick in which the backend's process may have done anything, the first in which the next may)
    away: list[tuple[int, int]] = field(default_factory=list)
    heartbeats: list[Stored] = field(default_factory=list)
    flips: list[Stored] = field(default_factory=list)
    liveness: dict[str, Document] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    # what went wrong where nothing may: an exit code, a process that hangs, a database that is not whole
    troubles: list[str] = field(default_factory=list)

    def tick_of(self, instant_ms: int) -> int:
        """The tick in which somebody's clock showed this."""
        return instant_ms % MINUTE_MS

    def read(self, database: Path) -> None:
        """Take in what the backend stored; no process may be running."""
        with sqlite3.connect(database) as file:
            self.heartbeats = _documents(file, "agentHeartbeats")
            self.flips = _documents(file, "agentFlips")
            self.liveness = {row["agent"]: row.document for row in _documents(file, "agentLiveness")}
        file.close()


def _documents(file: sqlite3.Connection, table: str) -> list[Stored]:
    [number] = file.execute("SELECT number FROM tables WHERE name = ?", (table,)).fetchone()
    rows = file.execute(f"SELECT seq, doc FROM d{number} ORDER BY seq")  # noqa: S608 - a number
    return [Stored(seq, json.loads(text)) for seq, text in rows]


def wholeness(file: Path) -> str:
    """What SQLite says of a database; `ok`."""
    with sqlite3.connect(file) as database:
        found = "; ".join(row[0] for row in database.execute("PRAGMA integrity_check"))
    database.close()
    return found
