"""What a check of `heartbeat doctor` says, and the facts that several checks share.

    a fact:  not asked ──the first that needs it──▶ being asked ──▶ known
                                                         └────────▶ failed

Of a fact that failed its own check says why; those that need it are not looked at.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from heartbeat_cli.errors import HeartbeatError

State = Literal["ok", "warning", "problem"]
Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw: a sentence with the value, and what to type (or do) where not all is well."""

    state: State
    message: str
    fix: str | None = None


def ok(message: str) -> Finding:
    """All is well, and this is the value."""
    return Finding("ok", message)


def warning(message: str, fix: str | None) -> Finding:
    """Heartbeats arrive all the same, but somebody should know."""
    return Finding("warning", message, fix)


def problem(message: str, fix: str | None) -> Finding:
    """Heartbeats do not arrive, or not when they should, or soon will not."""
    return Finding("problem", message, fix)


def word(value: object) -> str:
    """A path, or a text that somebody else supplied, as a shell takes it whatever is in it."""
    return shlex.quote(str(value))


class NotLooked(Exception):
    """A check could not look, because of something that another check reports."""


class Shared(Generic[Fact]):
    """A fact that several checks need, found out once, by the first that asks; the others wait for it."""

    def __init__(self, find_out: Callable[[], Fact]) -> None:
        self._find_out = find_out
        self._lock = threading.Lock()
        self._found: list[Fact] = []
        self._failure: HeartbeatError | NotLooked | None = None

    def own(self) -> Fact:
        """The fact, for the check that reports its failure: raises that, a `HeartbeatError`; `NotLooked`
        where the failure is another fact's.
        """
        with self._lock:
            if self._failure is None and not self._found:
                try:
                    self._found.append(self._find_out())
                except (HeartbeatError, NotLooked) as failure:
                    self._failure = failure
        if self._failure is not None:
            raise self._failure
        return self._found[0]

    def needed(self) -> Fact:
        """The fact, for every other check: raises `NotLooked` where there is none."""
        try:
            return self.own()
        except HeartbeatError as failure:
            raise NotLooked(str(failure)) from None


Check = Callable[[], Iterable[Finding]]
"""One check: looks, changes nothing. Raises `NotLooked`; a `HeartbeatError`, or an OSError, is a problem."""

Checks = Iterator[tuple[str, Check]]
"""Checks by name, in the order in which they are told."""
