"""The official Python client (`convex.ConvexClient`, over a WebSocket), made safe for cron.

It retries for ever, says nothing about causes, holds the interpreter lock while it waits (so no thread of
ours runs), looks at signals once a second, and can hang when it is dropped. So each call goes through these
states, all on the main thread:

    idle -> contact      somebody listens at the address (contact.py, at most a third of the deadline)
    contact -> calling   the alarm is set for deadline - 2 s (but no sooner than the client would notice it),
                         standard output is out of the client's reach
    calling -> idle      an answer came: alarm, signal handler and standard output are as they were
    calling -> contact   the client gave up ("channel closed", which it does at random when connections are
                         cut) and plain HTTP finds nothing worse: again with a new client, TRIES in all
    calling -> broken    the alarm rang, or the client gave up and plain HTTP finds out why

`broken` is final: the call may still wait inside the client and run later, so the process has to end through
`client.leave`. An alarm with its default action stays set for deadline + 1 s, in case anything on the way out
hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from heartbeat_cli import contact
from heartbeat_cli.answer import Answer, Args, Failure, Kind, Rejection, Value
from heartbeat_cli.contact import ANSWER_MARGIN_S
from heartbeat_cli.deadline import Deadline, Late, within
from heartbeat_cli.errors import Unreachable

if TYPE_CHECKING:
    from convex import ConvexClient

NAMING_S = 2.0  # kept of the deadline for naming the cause; the alarm is noticed up to 1 s late
LEAST_WAIT_S = 0.95  # the client looks at signals once a second: so long it has whatever the alarm says
LEAST_TIMER_S = 0.05  # a timer of 0 would be none
LEAST_CALL_S = 0.5  # less cannot be kept: an alarm is noticed no sooner than 1 s after the call began
LAST_RESORT_S = 1.0  # after the deadline the kernel ends the process
TRIES = 3  # of a call whose connection is cut at the wrong moment; the deadline bounds them too
PAUSE_S = 0.2  # doubled for each try, and jittered: a restart takes that long
GAVE_UP = "channel closed"  # all that the client says when a connection fails while it takes a call
STDOUT = 1

# Dropping a client waits for its threads, which may sit in a name look-up for a minute: all are kept
_kept: list[ConvexClient] = []


def can_work_here() -> bool:
    """Whether the alarm that bounds the client exists (not on Windows) and reaches us (main thread only)."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


class WsTransport:
    """Calls functions of one deployment over one WebSocket. Main thread only."""

    def __init__(self, url: str, deadline: Deadline) -> None:
        self._url = url
        self._deadline = deadline
        self._client: ConvexClient | None = None
        self._broken: Unreachable | None = None

    def call(self, kind: Kind, path: str, args: Args) -> Answer:
        """What the function answers. Raises `Unreachable`; after that the transport is broken.

        The client may run a mutation more than once when connections are cut: it needs an id of its own.
        """
        if self._broken is not None:
            raise self._broken
        self._begin()
        for attempt in range(1, TRIES + 1):
            try:
                if attempt > 1:
                    time.sleep(min(_pause_s(attempt), max(0.0, self._deadline.left())))
                    if self._deadline.left() < LEAST_CALL_S:
                        break  # what was found says more than that the time is up
                    self._begin()
                return self._attempt(kind, path, args)
            except _GaveUp as error:
                failure = error.trouble
            except Unreachable as error:
                if attempt == 1 or error.cause != "timeout":
                    failure = error
                break  # likewise, where it was the time
        sent = attempt > 1 or failure.cause in contact.OUTCOME_UNKNOWN
        self._broken = contact.perhaps_done(failure, kind) if sent else failure
        raise self._broken

    def close(self) -> None:
        """Nothing: the client cannot be closed, and is kept until the process ends."""

    def _begin(self) -> None:
        if self._client is None:
            contact.first_contact(self._url, self._deadline)
        if self._deadline.left() < LEAST_CALL_S:
            raise contact.no_time(self._url, self._deadline.seconds)

    def _attempt(self, kind: Kind, path: str, args: Args) -> Answer:
        from convex import ConvexClient, ConvexError  # noqa: PLC0415 - takes 40 ms

        given = dict(args())
        try:
            with _stdout_out_of_reach(), _alarm(self._deadline):
                if self._client is None:
                    self._client = ConvexClient(self._url)
                    _kept.append(self._client)
                run = self._client.query if kind == "query" else self._client.mutation
                return Value(run(path, given))
        except ConvexError as error:
            return Rejection(error.data)
        except _Alarm:
            raise self._trouble() or contact.no_answer(self._url, self._deadline.seconds) from None
        except Exception as error:
            if str(error) != GAVE_UP:
                return Failure(str(error))
        trouble = self._trouble() or contact.cut(self._url)
        if trouble.cause != "cut":
            raise trouble
        self._client = None
        raise _GaveUp(trouble)

    def _trouble(self) -> Unreachable | None:
        """What is wrong with the deployment, asked for until the deadline; None when it is well."""
        left = self._deadline.left() - ANSWER_MARGIN_S

        def ask() -> Unreachable | None:
            from heartbeat_cli.diagnosis import trouble  # noqa: PLC0415 - httpx: 100 ms, after failures only

            return trouble(self._url, timeout_s=left)

        try:
            return within(left, ask)
        except Late:
            return contact.no_answer(self._url, self._deadline.seconds)


def _pause_s(attempt: int) -> float:
    """How long to wait before this attempt: longer for each, and not the same for all senders."""
    import random  # noqa: PLC0415 - after failures only

    return PAUSE_S * (1 << attempt) * random.random()  # noqa: S311 - no secret


class _GaveUp(Exception):
    """The client gave up, and nothing worse was found than `trouble`, which may pass."""

    def __init__(self, trouble: Unreachable) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


class _Alarm(BaseException):
    """The time of the call is up.

    Neither an OSError, which libraries turn into something else, nor an Exception, which they catch.
    """


@contextlib.contextmanager
def _alarm(deadline: Deadline) -> Iterator[None]:
    """Raise `_Alarm` in this block some time before the deadline; restore handler and timer afterwards.

    When it rings, the default action stays armed for the deadline + 1 s, for whatever comes afterwards.
    """
    armed = True

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if not armed:  # it rang while the block was being left
            return
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(LEAST_TIMER_S, deadline.left() + LAST_RESORT_S))
        raise _Alarm

    # A mask is inherited: under a parent that blocks SIGALRM the deadline would not hold.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, max(LEAST_WAIT_S, deadline.left() - NAMING_S))
    try:
        yield
    except _Alarm:
        raise
    except BaseException:
        armed = False
        _restore(handler, delay, interval, began)
        raise
    armed = False
    _restore(handler, delay, interval, began)


def _restore(handler: Any, delay: float, interval: float, began: float) -> None:
    left = max(LEAST_TIMER_S, delay - (time.monotonic() - began)) if delay else 0.0
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
    signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextlib.contextmanager
def _stdout_out_of_reach() -> Iterator[None]:
    """Point file descriptor 1, where our answer goes, to nowhere: the client prints functions' log lines."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    try:
        kept = os.dup(STDOUT)
    except OSError:  # standard output is closed
        kept = None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDOUT)
    if nowhere != STDOUT:
        os.close(nowhere)
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, STDOUT)
            os.close(kept)
