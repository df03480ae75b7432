"""The process that outlives a killed supervisor long enough to end what it supervised.

It holds one end of a pipe and waits. The supervisor says goodbye through it; the kernel closes it when the
supervisor is killed, whatever by. Then the command's whole process group is ended. On Linux and elsewhere:
PR_SET_PDEATHSIG would reach the command alone, and none of its children.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

GOODBYE = b"."
POLL_S = 0.02  # between two looks at whether a group is gone
HANDLES_MOST = 4096  # descriptors that a helper of ours looks through, where the kernel has no call for it


def fork_helper(work: Callable[[], None], keep: tuple[int, ...] = ()) -> int:
    """A process of ours beside the command that does `work` and ends. Returns its id; raises OSError.

    It holds nothing of ours but the descriptors in `keep`, so that pipes end when their users do, and signals
    meant for the command do not end it.
    """
    # a terminal's Ctrl-Z reaches it, too: before it lets go of the pipe that we share, we would hear it twice
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            if standard not in keep:
                os.dup2(nowhere, standard)
        first = 3
        for handle in (*sorted(number for number in keep if number >= first), HANDLES_MOST):
            os.closerange(first, handle)
            first = handle + 1
        work()
    finally:
        os._exit(0)


class Keeper:
    """Watches over the process group that a command will lead. Where no process can be had, nobody does."""

    def __init__(self, kill_after_s: float, *also: int) -> None:
        """`also`: descriptors of ours that are to stay open until the group is gone."""
        self.pid = 0
        self._kill_after_s = kill_after_s
        self._also = also
        self._group = 0
        self.handle: int | None = None  # where the command, before it begins, writes its process id
        self._begin()

    def watches(self, group: int) -> None:
        """The process group that there is now."""
        self._group = group

    def ended(self) -> None:
        """Somebody ended the keeper: another takes its place."""
        if self.handle is not None:
            os.close(self.handle)
        self._begin()
        if self.handle is not None and self._group:
            self._write(f"{self._group}\n".encode())

    def dismiss(self) -> None:
        """There is nothing left to end."""
        if self.handle is not None:
            self._write(GOODBYE)
            os.close(self.handle)
            self.handle = None
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _begin(self) -> None:
        self.pid, self.handle = 0, None
        try:
            ours, theirs = os.pipe()
        except OSError:
            return
        try:
            self.pid = fork_helper(lambda: _keep(ours, self._kill_after_s), (ours, *self._also))
            self.handle = theirs
        except OSError:
            os.close(theirs)
        os.close(ours)

    def _write(self, text: bytes) -> None:
        if self.handle is not None:
            try:
                os.write(self.handle, text)
            except OSError:  # it was ended at this moment
                return


def _keep(handle: int, kill_after_s: float) -> None:
    os.setsid()  # what is done to our process group, or terminal, is not done to it
    said = b""
    while part := os.read(handle, 64):
        said += part
    lines = said.split(b"\n")
    if lines[-1] == GOODBYE or not lines[0]:
        return
    end_group(int(lines[0]), kill_after_s)


def end_group(group: int, kill_after_s: float) -> None:
    """End all processes of a group: asked first, killed after so many seconds."""
    send(group, signal.SIGTERM)
    give_up = time.monotonic() + kill_after_s
    while exists(group):
        if time.monotonic() > give_up:
            send(group, signal.SIGKILL)
            return
        time.sleep(POLL_S)


def send(group: int, number: int) -> bool:
    """Send a signal to a process group, and wake it if it is stopped. False when there is none."""
    try:
        os.killpg(group, number)
        if number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}:
            os.killpg(group, signal.SIGCONT)
    except OSError:
        return False
    return True


def exists(group: int) -> bool:
    """Whether any process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's: it is there
        return True
    return True
