"""The real command on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios

from conftest import HEARTBEAT, Cli


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
