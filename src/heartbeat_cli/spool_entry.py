"""What a spool keeps of a heartbeat, and of what became of its tries; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heartbeat_cli.clock import Moment, elapsed_ms

State = Literal["waiting", "aside"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One heartbeat in the spool. `body` is its wire form but for `deliveredAt`; instants are epoch ms.

    `tries` counts those that ended badly; before `next_try_at` it is not tried again by itself.
    """

    number: int
    heartbeat_id: str
    agent: str
    deployment: str
    fingerprint: str
    body: Mapping[str, Any]
    sent: Moment
    state: State = "waiting"
    tries: int = 0
    next_try_at: int = 0
    code: str | None = None
    reason: str | None = None

    @classmethod
    def new(cls, body: Mapping[str, Any], deployment: str, fingerprint: str, sent: Moment) -> Entry:
        """A heartbeat to be kept, sent at this moment with that token; its number comes with `add`."""
        return cls(0, str(body["heartbeatId"]), str(body["agent"]), deployment, fingerprint, body, sent)

    def wire(self, now: Moment) -> dict[str, Any]:
        """The body of a call made now. The sender's clock says when, as if nobody had set it meanwhile."""
        return {**self.body, "deliveredAt": self.sent.wall_ms + elapsed_ms(self.sent, now)}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a try ended badly: a code, a sentence.

    The back-off lasts `least_ms` at least; for so many tries as are `free` there is none.
    """

    code: str
    reason: str
    least_ms: int = 0
    free: int = 0


@dataclass(frozen=True, slots=True)
class Which:
    """Some of the entries: those for which everything holds that is given here."""

    ids: tuple[str, ...] = ()
    agent: str | None = None
    deployment: str | None = None
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What a spool holds; `oldest_sent_at` of those that wait."""

    waiting: int = 0
    aside: int = 0
    oldest_sent_at: int | None = None

    @property
    def all(self) -> int:
        return self.waiting + self.aside


def count(number: int) -> str:
    """`1 heartbeat`, `12,000 heartbeats`."""
    return f"{number:,} heartbeat{'' if number == 1 else 's'}"
