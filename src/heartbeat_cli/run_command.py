"""Starting the command: as a shell would, with pipes or terminals of ours where its output is to be kept.

It leads a process group of its own in our session, so that signals reach all of it and it may have the
terminal. Standard input is what we were given. Where ours is a terminal, the command's stdout is one too, of
the same size; where stdout and stderr are one file they stay one, in their order.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterable

from heartbeat_cli.run_output import Stream, Tail

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell gives
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
# Python ignores these from its start on; whether they were ignored before nobody knows
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")
SH = "/bin/sh"


class CannotStart(Exception):
    """The command cannot be started; `code` is the exit code that a shell gives for that."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.code = NOT_FOUND if number in {errno.ENOENT, errno.ENOTDIR} else NOT_EXECUTABLE


class Signals:
    """What signals did before we took them: `originals` by number, and the `mask` of those blocked."""

    def __init__(self) -> None:
        self.originals: dict[int, object] = {}
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def take(self, number: int, handler: Callable[[int, object], None] | signal.Handlers) -> None:
        """From here on this signal is handled so."""
        self.originals[number] = signal.signal(number, handler)


class Outlet:
    """Where the command writes what goes to `targets` of ours: one end is its, one ours."""

    def __init__(self, targets: tuple[int, ...]) -> None:
        """Raises OSError where neither pipe nor terminal can be had."""
        self.targets = targets
        self.is_terminal = os.isatty(targets[0])
        self.ours, self.theirs = os.openpty() if self.is_terminal else os.pipe()
        if self.is_terminal:
            _like(targets[0], self.theirs)

    def close(self) -> None:
        """Our end, where nothing was started."""
        os.close(self.ours)


def outlets(wanted: Iterable[int]) -> list[Outlet]:
    """For those of our streams: one for both where both are one file. Fewer where no more can be had."""
    groups: dict[tuple[int, int], list[int]] = {}
    for target in wanted:
        status = os.fstat(target)
        groups.setdefault((status.st_dev, status.st_ino), []).append(target)
    made: list[Outlet] = []
    for targets in groups.values():
        try:
            made.append(Outlet(tuple(targets)))
        except OSError:  # then the command writes to our stream itself, and its tail is not known
            continue
    return made


def copy_size(source: int, target: int) -> bool:
    """Make terminal `target` as large as terminal `source`; whether it was of another size."""
    import fcntl  # noqa: PLC0415 - with terminals only
    import termios  # noqa: PLC0415 - as above

    try:
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, b"\0" * 8)
        if fcntl.ioctl(target, termios.TIOCGWINSZ, b"\0" * 8) == size:
            return False
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
    except OSError:
        return False
    return True


def start(
    words: list[str],
    made: list[Outlet],
    signals: Signals,
    *,
    keeper: int | None = None,
) -> int:
    """Start the command; returns its process id, which is that of its group, once it is what it is to be.

    `signals`: what they did before we took them. What stands where we were given no descriptor closes itself.
    Into `keeper` it writes its id before it begins. Raises `CannotStart`, or OSError where there is no room
    for another process.
    """
    told, tell = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(told)
        os.close(tell)
        raise
    if pid == 0:
        number = errno.ENOEXEC
        try:
            os.setpgid(0, 0)
            if keeper is not None:
                os.write(keeper, b"%d\n" % os.getpid())
            _as_they_were(signals)
            for outlet in made:
                for target in outlet.targets:
                    os.dup2(outlet.theirs, target)
            become(words)
        except OSError as error:
            number = error.errno or number
        finally:
            os.write(tell, number.to_bytes(4, "big"))
            os._exit(NOT_FOUND)
    os.close(tell)
    for outlet in made:
        os.close(outlet.theirs)
    said = os.read(told, 4)  # nothing, once the command is the command: the pipe closed itself
    os.close(told)
    if said:
        os.waitpid(pid, 0)
        raise CannotStart(int.from_bytes(said, "big"))
    return pid


def streams(made: list[Outlet], tail: Tail, last: Tail | None) -> list[Stream]:
    """How what comes from there is passed on: all of it is in `tail`, what goes to stdout in `last`, too."""
    out = []
    for outlet in made:
        also = (last,) if last is not None and STANDARD_OUTPUT in outlet.targets else ()
        out.append(Stream(outlet.ours, outlet.targets[0], (tail, *also)))
    return out


def become(words: list[str]) -> None:
    """Replace this process by the command, found as a shell finds it. Raises OSError with the reason."""
    name = words[0]
    places = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in os.get_exec_path()]
    worst = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for place in places if name else ():
        try:
            os.execv(place, words)  # noqa: S606 - what was asked for
        except OSError as error:
            if error.errno == errno.ENOEXEC:  # a script that does not say whose: a shell takes it for its own
                os.execv(SH, [SH, place, *words[1:]])  # noqa: S606
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                worst = error
    raise worst


def _as_they_were(signals: Signals) -> None:
    signal.set_wakeup_fd(-1)
    for name in IGNORED_BY_PYTHON:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    for number, original in signals.originals.items():
        ignored = original is signal.SIG_IGN
        signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, signals.mask)


def _like(ours: int, theirs: int) -> None:
    """Make one terminal look like another; but what is written passes unchanged, for the other one changes
    it.
    """
    import termios  # noqa: PLC0415 - with terminals only

    with contextlib.suppress(termios.error):  # it was hung up
        attributes = termios.tcgetattr(ours)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    copy_size(ours, theirs)
