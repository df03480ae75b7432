"""The real command on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios

from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, Cli


def on_a_terminal(cli: Cli, *arguments: str, typed: str = "", columns: int = 80, env: dict[str, str]) -> str:
    """What the command shows on a terminal of so many columns, where `typed` is typed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [HEARTBEAT, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=cli.environment({"TERM": "xterm-256color", **env}),
        cwd=cli.home,
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    try:
        while data := os.read(ours, 65_536):
            shown += data
    except OSError:  # how a terminal says that nobody has it open any more
        pass
    os.close(ours)
    process.wait(timeout=60)
    return shown.decode()


class Dialogue:
    """The real command on a terminal that is its own, as a shell gives it one: what it asks is answered when
    it has asked. `piped`: what its standard input is, in place of the terminal.
    """

    def __init__(self, cli: Cli, *arguments: str, piped: str | None = None) -> None:
        self._terminal, theirs = pty.openpty()
        # wide enough that no path is wrapped
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 500, 0, 0))

        def own() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [HEARTBEAT, *arguments],
            stdin=theirs if piped is None else subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
            env=cli.environment({"TERM": "xterm-256color"}),
            cwd=cli.home,
            preexec_fn=own,  # noqa: PLW1509 - the tests that use it have no threads
        )
        os.close(theirs)
        if piped is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(piped.encode())
            self.process.stdin.close()
        self.shown = ""

    def answer(self, question: str, typed: str) -> None:
        """Wait until it asks that, then type a line."""
        before = len(self.shown)
        while question not in self.shown[before:]:
            assert self._read(), f"{question!r} was not asked: {self.shown}"
        os.write(self._terminal, f"{typed}\n".encode())

    def end(self) -> str:
        """All that it has shown, once it has ended."""
        while self._read():
            pass
        os.close(self._terminal)
        self.process.wait(timeout=60)
        return self.shown

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], COMMAND_TIMEOUT_S)
        assert ready, f"nothing more came: {self.shown}"
        try:
            data = os.read(self._terminal, 65_536)
        except OSError:  # as above
            return False
        self.shown += data.decode()
        return bool(data)
