"""The supervisor's side of reporting: a process beside the command that does it, and what if it does not.

    start ──▶ reporting the start ──▶ waiting for the finish, for STAYS_S ──▶ gone
                        │                           │                          │ finish: a new one
                        └── finish ─────────────────┴─▶ reporting the finish ◀─┘
                                                            ├── told that it is kept ──▶ done
                                                            └── gone or silent: the supervisor keeps it itself

Importing what reports takes longer than most commands run, and a report waits for networks: none of that is
the command's time. The process is a fork, so that Python starts once, and ends soon, so that a command of
hours is not accompanied by its memory.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import time

from heartbeat_cli.run_facts import DEADLINE, KEPT, PROBLEM, Facts
from heartbeat_cli.run_keeper import fork_helper
from heartbeat_cli.run_output import NEVER

STAYS_S = 10.0  # most commands end within; after that another import costs less than the memory
TOLD_WITHIN_S = 30.0  # until it has read its settings: on a machine that has no core for it
OVERTIME_S = 2.0  # besides two deadlines, one for the start and one for the finish


class Reporter:
    """Reports of one run. What should be told to people collects in `problems` and `notes`."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._only_start = "skipped" in facts
        self._finish: Facts | None = None
        self._pid = 0
        self._asks: int | None = None  # our end of the pipe that takes the finish
        self._hears: int | None = None  # and of that which says what became of it
        self._sending = b""
        self._heard = b""
        self._deadline_s = TOLD_WITHIN_S
        self._over_by = NEVER
        self.kept = self._tried_again = False
        self.problems: list[str] = []
        self.notes: list[str] = []
        if self._only_start:
            self._over_by = time.monotonic() + 2 * TOLD_WITHIN_S
        self._begin()

    def finish(self, facts: Facts) -> None:
        """The command has ended: report that."""
        self._finish = facts
        self._over_by = time.monotonic() + 2 * self._deadline_s + OVERTIME_S
        self._sending = marshal.dumps(facts)
        if self._pid == 0 and not self.kept:
            self._begin()

    @property
    def is_done(self) -> bool:
        """Whether all that can be reported was."""
        return (self._only_start or self._finish is not None) and self._pid == 0

    @property
    def wakes_at(self) -> float:
        """When to look again (monotonic), if nothing else happens."""
        return self._over_by

    @property
    def waits_for(self) -> list[tuple[int, int]]:
        """Descriptors to wait for, with the event."""
        wanted = [] if self._hears is None else [(self._hears, select.POLLIN)]
        if self._asks is not None and self._sending:
            wanted.append((self._asks, select.POLLOUT))
        return wanted

    def go_on(self) -> None:
        """Something it waited for may be there, or it is time."""
        if self._asks is not None and self._sending:
            self._hand_over(self._asks)
        while self._hears is not None:
            try:
                part = os.read(self._hears, 65_536)
            except BlockingIOError:
                break
            if not part:
                self._gone()
                break
            self._heard += part
            self._listen()
        if time.monotonic() >= self._over_by:
            self.stop()

    def keep(self) -> None:
        """Have the finish on the disk, by our own hand."""
        if self.kept or self._finish is None:
            return
        self.kept = True
        try:
            from heartbeat_cli import run_report  # noqa: PLC0415 - all that is heavy, after failures only

            run_report.keep(self._facts, self._finish, self._said)
        except Exception as error:  # our package was deleted meanwhile: the command's exit code counts
            self.problems.append(f"heartbeat: this run is not reported: {error}")

    def stop(self) -> None:
        """End it now; what it has kept is kept."""
        self._over_by = NEVER
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._bury()
        self.keep()

    def _begin(self) -> None:
        """Start the process; with the finish, if it is known already."""
        try:
            (hears, tells), (takes, asks) = os.pipe(), os.pipe()
        except OSError:
            return
        facts, finish = self._facts, self._finish
        try:
            self._pid = fork_helper(lambda: _report(facts, finish, takes, tells), (takes, tells))
        except OSError:
            os.close(hears)
            os.close(asks)
        else:
            self._hears, self._asks = hears, asks
            os.set_blocking(hears, False)
            os.set_blocking(asks, False)
        os.close(tells)
        os.close(takes)
        if finish is not None:
            self._sending = b""
            if self._pid == 0:
                self.keep()

    def _hand_over(self, asks: int) -> None:
        try:
            written = os.write(asks, self._sending)
        except BlockingIOError:
            return
        except OSError:  # it is gone, which its other pipe tells as well
            self._sending = b""
            return
        self._sending = self._sending[written:]
        if not self._sending:
            os.close(asks)
            self._asks = None

    def _listen(self) -> None:
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self._said(line[:1], line[1:].decode("utf-8", "replace"))

    def _said(self, kind: bytes, text: str) -> None:
        if kind == KEPT:
            self.kept = True
        elif kind == DEADLINE:
            self._deadline_s = float(text)
        else:
            known = self.problems if kind == PROBLEM else self.notes
            if text not in known:
                known.append(text)

    def _gone(self) -> None:
        """It has ended: as it should, or it was killed."""
        self._bury()
        if self._finish is None or self.kept:
            return
        if self._tried_again:
            self.keep()
        else:
            self._tried_again = True
            self._begin()

    def _bury(self) -> None:
        os.waitpid(self._pid, 0)
        self._pid = 0
        for handle in (self._hears, self._asks):
            if handle is not None:
                os.close(handle)
        self._hears = self._asks = None


def _report(facts: Facts, finish: Facts | None, takes: int, tells: int) -> None:
    def tell(kind: bytes, text: str) -> None:
        try:
            os.write(tells, kind + text.replace("\n", " ").encode("utf-8", "replace") + b"\n")
        except OSError:  # nobody listens any more
            return

    def wait() -> Facts | None:
        if finish is not None:
            return finish
        poll = select.poll()
        poll.register(takes, select.POLLIN)
        if not poll.poll(STAYS_S * 1000):
            return None
        said = b""
        while part := os.read(takes, 65_536):
            said += part
        try:
            return dict(marshal.loads(said))  # noqa: S302 - from our own other half
        except (EOFError, ValueError, TypeError):  # the supervisor was killed: nobody knows how it ended
            return None

    from heartbeat_cli import run_report  # noqa: PLC0415 - all that is heavy

    run_report.serve(facts, wait, tell, begin=finish is None)
