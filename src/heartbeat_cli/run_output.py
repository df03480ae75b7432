"""What the command writes, on its way to where it would have gone without us; the tail of it is kept.

    source (the command's pipe or terminal) ──read──▶ pending ──write──▶ target (our stdout or stderr)
                                              └─────▶ tail

No more is read before what is pending was written: a slow reader slows the command down, as it would without
us, and gigabytes take no more memory than a kilobyte. Where the target has no reader any more the source is
closed, so that the command learns of it as it would have. A target that fails otherwise (a full disk) costs
only what is written to it: the command runs on.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from collections.abc import Iterable, Sequence

from heartbeat_cli.run_keeper import fork_helper

NEVER = float("inf")
READ_BYTES = 65_536  # what a pipe holds
# A pipe that is ready takes so much without making us wait (POSIX); nobody else's descriptor is made
# non-blocking, for it is shared with whoever started us
WRITE_BYTES = 4096
DRAIN_BYTES = 1 << 20  # read at most when the command has ended: a pipe or terminal holds less
# Kept before the tail: what hides secrets has to see them whole
MARGIN_BYTES = 4096


class Tail:
    """The last `size` bytes of what was added, and as many before them as are needed to judge them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self._keep = size + MARGIN_BYTES
        self._bytes = bytearray()

    def add(self, part: bytes) -> None:
        """One more part."""
        self.total += len(part)
        self._bytes += part[-self._keep :]
        if len(self._bytes) > 2 * self._keep:
            del self._bytes[: -self._keep]

    def kept(self) -> bytes:
        """The end of it: `size` bytes and the margin before them, or everything."""
        return bytes(self._bytes[-self._keep :])


class Stream:
    """One stream of the command, passed on to descriptor `target`; its parts are added to `tails`."""

    def __init__(self, source: int, target: int, tails: tuple[Tail, ...]) -> None:
        self.source = source
        self.target = target
        self.trouble: OSError | None = None  # why the target takes nothing any more
        self._tails = tails
        self._pending = b""
        self._open = True
        self._at_once = WRITE_BYTES
        mode = os.fstat(target).st_mode
        if stat.S_ISREG(mode):  # takes everything, and never waits
            self._at_once = DRAIN_BYTES

    @property
    def waits_for(self) -> tuple[int, int] | None:
        """The descriptor to wait for, and the event; None when there is nothing left to do."""
        if self._pending:
            return self.target, select.POLLOUT
        return (self.source, select.POLLIN) if self._open else None

    @property
    def at_end(self) -> bool:
        """Whether nobody can write to it any more."""
        return not self._open

    @property
    def is_written(self) -> bool:
        """Whether all that was read has been passed on."""
        return not self._pending

    def go_on(self) -> None:
        """What it waited for is there: read, or write."""
        if not self._pending and self._open:
            self._read()
        self._write()

    def drain(self) -> None:
        """Read all that is there now: the command has ended."""
        most = len(self._pending) + DRAIN_BYTES
        while self._open and len(self._pending) < most and _ready(self.source, select.POLLIN):
            self._read()

    def close(self) -> None:
        """Read nothing more."""
        if self._open:
            self._open = False
            os.close(self.source)

    def _read(self) -> None:
        try:
            part = os.read(self.source, READ_BYTES)
        except OSError:  # how a terminal says that nobody has it open any more
            part = b""
        if not part:
            self.close()
            return
        for tail in self._tails:
            tail.add(part)
        if self.trouble is None:
            self._pending += part

    def _write(self) -> None:
        while self._pending and _ready(self.target, select.POLLOUT):
            try:
                written = os.write(self.target, self._pending[: self._at_once])
            except BlockingIOError:
                return
            except BrokenPipeError as gone:
                self._gives_up(gone)
                self.close()
            except OSError as trouble:
                self._gives_up(trouble)
            else:
                self._pending = self._pending[written:]

    def _gives_up(self, trouble: OSError) -> None:
        self.trouble = trouble
        self._pending = b""


def wait_for(wanted: Iterable[tuple[int, int]], until: float) -> set[int]:
    """Wait until one of these descriptors is ready for its event, or for an instant (monotonic). Returns the
    ready ones.
    """
    poll = select.poll()
    for handle, event in wanted:
        poll.register(handle, event)
    # rounded up: an instant that is not quite there would be waited for again and again
    left = None if until == NEVER else max(0.0, (until - time.monotonic()) * 1000) + 1
    return {handle for handle, _ in poll.poll(left)}


def pass_on_later(streams: Sequence[Stream]) -> None:
    """Leave a process that passes on what is written after the command has ended, until nobody can."""

    def work() -> None:
        while wanted := [wait for stream in streams if (wait := stream.waits_for) is not None]:
            ready = wait_for(wanted, NEVER)
            for stream in streams:
                if (wait := stream.waits_for) is not None and wait[0] in ready:
                    stream.go_on()

    handles = {handle for stream in streams for handle in (stream.source, stream.target)}
    # where no process can be had, those who write learn that nobody reads
    with contextlib.suppress(OSError):
        fork_helper(work, tuple(handles))


def _ready(handle: int, event: int) -> bool:
    poll = select.poll()
    poll.register(handle, event)
    return bool(poll.poll(0))
