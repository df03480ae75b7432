"""The Python form of `heartbeat run`: work that reports its start and its finish from within.

    with heartbeat_cli.running("hint") as run:
        run.summary = f"{len(found)} files drifted"

    @heartbeat_cli.running("hint")
    def main() -> None: ...

The same run as a command line's: an exception is what an exit code other than 0 is there, its traceback what
the output is. It goes over http, sets no signals, works in any thread, and never raises: what is wrong with
us goes to the logger `heartbeat_cli`.

    entered ──▶ started: a thread keeps, then delivers the start, while the work is done
       │ left
       ▼
    finished: another thread does the same for the finish; leaving waits until it is kept, for KEPT_WITHIN_S,
              and the interpreter, before it ends, until both are delivered, or their deadline is over

Work that is never left (a daemon thread when the interpreter ends, a kill) is a start without a finish.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import os
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from heartbeat_cli.run_facts import KEPT, PROBLEM, Facts, instant

KEPT_WITHIN_S = 1.0  # nobody's work waits longer for us; a commit takes milliseconds, the first import 0.3 s
STARTED_WITHIN_S = 5.0  # the finish waits so long for the start to be kept, to come after it
OUTPUT_BYTES = 10_000  # of a traceback: what a deployment keeps
INTERRUPTED = 130  # what a command ended by Ctrl-C has as its exit code
POLL_S = 0.005  # of an event loop that waits for a thread

log = logging.getLogger("heartbeat_cli")
Function = TypeVar("Function", bound=Callable[..., Any])


class Run:
    """One run. What is set here is reported with its finish; None where nothing is to be said.

    `summary`: what it did. `result`: acted, noop or error. `status`: ok, idle, working, blocked, waiting or
    error (an exception is always an error).
    """

    def __init__(self, facts: Facts) -> None:
        self.summary: str | None = None
        self.result: str | None = None
        self.status: str | None = None
        self._facts = facts
        self._began_ns = time.monotonic_ns()
        self._process = os.getpid()
        self._environ = dict(os.environ)
        self._started = threading.Event()
        self._kept = threading.Event()
        self._away: Any = None

    def _start(self) -> None:
        if not _in_thread(self._report_start, self._started):
            self._started.set()

    def _report_start(self) -> None:
        from heartbeat_cli.run_report import Reporting  # noqa: PLC0415 - heavy: not in the thread that works

        reporting = Reporting(self._facts, _tell, self._environ)
        try:
            reporting.start(self._started.set)
        finally:
            self._away = reporting.away

    def _finish(self, error: BaseException | None) -> None:
        if os.getpid() != self._process:  # a fork of it left the block; the run goes on over there
            return
        said = {"summary": self.summary, "result": self.result, "status": self.status}
        code, trouble = _ending(error)
        output = "".join(traceback.format_exception(error)) if error is not None and trouble else ""
        tail = output.encode("utf-8", "replace")
        self._facts["reads_status"] = any(value is not None for value in said.values())
        facts = {
            "finished": instant(),
            "duration_ms": (time.monotonic_ns() - self._began_ns) // 1_000_000,
            "exit_code": code,
            "trouble": trouble,
            "tail": tail,
            "size": OUTPUT_BYTES,
            "total": len(tail),
            "last": json.dumps(said).encode(),
        }
        if not _in_thread(lambda: self._report_finish(facts), self._kept):
            self._keep(facts)

    def _report_finish(self, facts: Facts) -> None:
        from heartbeat_cli.run_report import Reporting  # noqa: PLC0415 - as above

        self._started.wait(STARTED_WITHIN_S)
        reporting = Reporting(self._facts, self._tell, self._environ)
        reporting.away = self._away
        reporting.finish(facts)

    def _keep(self, facts: Facts) -> None:
        """Where there are no threads any more: an interpreter that ends."""
        from heartbeat_cli.run_report import keep  # noqa: PLC0415 - as above

        keep(self._facts, facts, self._tell)

    def _tell(self, kind: bytes, text: str) -> None:
        if kind == KEPT:
            self._kept.set()
        _tell(kind, text)


class running:
    """Report the work done within, or by the decorated function, as a run of `agent`.

    `summary`: what to say of it, unless the run says more. `url`, `home`, `deadline`: as on the command line,
    texts. Nothing is checked here, and nothing raised: what is wrong is logged.
    """

    def __init__(
        self,
        agent: str,
        *,
        summary: str | None = None,
        url: str | None = None,
        home: str | None = None,
        deadline: str | None = None,
    ) -> None:
        self._facts: Facts = {
            "agent": agent,
            "summary": summary,
            "url": url,
            "home": None if home is None else str(home),
            "deadline": None if deadline is None else str(deadline),
            "transport": "http",
            "keeps_output": True,
            "reads_status": False,
        }
        self._runs: list[Run] = []

    def __enter__(self) -> Run:
        """A run begins."""
        run = Run({**self._facts, "started": instant()})
        self._runs.append(run)
        with _harmless():
            run._start()
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It ends; an exception passes."""
        with _harmless():
            run = self._end(error)
            run._kept.wait(KEPT_WITHIN_S)

    async def __aenter__(self) -> Run:
        """As `with`."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `with`, while other tasks go on."""
        with _harmless():
            run = self._end(error)
            give_up = time.monotonic() + KEPT_WITHIN_S
            while not run._kept.is_set() and time.monotonic() < give_up:
                await asyncio.sleep(POLL_S)

    def __call__(self, function: Function) -> Function:
        """Each call is a run; of a generator or coroutine, from its first step to its last."""
        wrap = _wrapper(self._another, function)
        return cast(Function, functools.wraps(function)(wrap))

    def _end(self, error: BaseException | None) -> Run:
        run = self._runs.pop()
        if os.getpid() != run._process:
            run._kept.set()
        run._finish(error)
        return run

    def _another(self) -> Self:
        twin = type(self)("")
        twin._facts = self._facts
        return twin


def _wrapper(another: Callable[[], running], function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):

        async def steps(*given: Any, **named: Any) -> AsyncGenerator[Any, Any]:
            async with another():
                inner = function(*given, **named)
                try:
                    sent = None
                    while True:
                        try:
                            item = await inner.asend(sent)
                        except StopAsyncIteration:
                            return
                        sent = yield item
                finally:
                    await inner.aclose()

        return steps
    if inspect.iscoroutinefunction(function):

        async def coroutine(*given: Any, **named: Any) -> Any:
            async with another():
                return await function(*given, **named)

        return coroutine
    if inspect.isgeneratorfunction(function):

        def generator(*given: Any, **named: Any) -> Generator[Any, Any, Any]:
            with another():
                return (yield from function(*given, **named))

        return generator

    def call(*given: Any, **named: Any) -> Any:
        with another():
            return function(*given, **named)

    return call


def _ending(error: BaseException | None) -> tuple[int, str | None]:
    """The exit code of a command that ended so, and what to say of it if that is not well."""
    if error is None or isinstance(error, (GeneratorExit, StopIteration, StopAsyncIteration)):
        return 0, None  # nobody wanted more of what it makes
    if isinstance(error, SystemExit):
        code = error.code
        if code is None or code == 0:
            return 0, None
        return (code & 0xFF, f"exit {code}") if isinstance(code, int) else (1, str(code))
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, asyncio.CancelledError):
        return 1, "cancelled"
    return 1, "".join(traceback.format_exception_only(error)).strip() or type(error).__name__


def _in_thread(work: Callable[[], None], done: threading.Event) -> bool:
    """Do this beside the caller; it is `done` at its end, at the latest. False where no thread can be had."""

    def guarded() -> None:
        try:
            with _harmless():
                work()
        finally:
            done.set()

    try:
        # no daemon: the interpreter waits for it, at most as long as its deadline
        threading.Thread(target=guarded, name="heartbeat", daemon=False).start()
    except RuntimeError:
        return False
    return True


class _harmless:
    """What goes wrong in here is logged, and stops nobody's work."""

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Whether it was ours to swallow."""
        if error is None or not isinstance(error, Exception):
            return False
        from heartbeat_cli.errors import HeartbeatError  # noqa: PLC0415 - after failures only
        from heartbeat_cli.run_report import tell_problem  # noqa: PLC0415 - as above

        if isinstance(error, HeartbeatError):
            tell_problem(_tell, error)
        else:
            log.warning("heartbeat: a run could not be reported", exc_info=error)
        return True


def _tell(kind: bytes, text: str) -> None:
    if kind == PROBLEM:
        log.warning("%s", text)
    elif kind != KEPT:
        log.info("%s", text)
