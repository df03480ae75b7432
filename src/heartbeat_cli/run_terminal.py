"""The terminal that we were started from, lent to the command when it asks for it, and taken back.

    ours ──the command reads, and is stopped for it──▶ lent ──it is stopped, or ends──▶ ours

Only the process group in front may read from a terminal or set it up. Others may be in front together with us
(a pipeline), so the command begins behind, where most commands stay: it writes, and signals that the terminal
sends reach us, who pass them on.
"""

from __future__ import annotations

import os
import signal
from typing import Any

WHERE = "/dev/tty"


class Terminal:
    """The controlling terminal, if there is one."""

    def __init__(self) -> None:
        self.lent_to = 0
        self._attributes: list[Any] | None = None
        try:
            self._handle: int | None = os.open(WHERE, os.O_RDWR | os.O_NOCTTY)
        except OSError:  # cron has none
            self._handle = None

    @property
    def is_there(self) -> bool:
        """Whether somebody may sit in front of us."""
        return self._handle is not None

    def lend(self, group: int) -> bool:
        """Bring the command to the front. False where we are not in front ourselves."""
        if self._handle is None:
            return False
        import termios  # noqa: PLC0415 - with terminals only

        try:
            if os.tcgetpgrp(self._handle) not in {os.getpgrp(), group}:
                return False
            if self._attributes is None:
                self._attributes = termios.tcgetattr(self._handle)
            os.tcsetpgrp(self._handle, group)
        except (OSError, termios.error):
            return False
        self.lent_to = group
        return True

    def take_back(self, *, restore: bool) -> None:
        """Be in front again, if the command was. `restore`: set up as it was, since nobody else will."""
        if self._handle is None or not self.lent_to:
            return
        import termios  # noqa: PLC0415 - with terminals only

        try:
            if os.tcgetpgrp(self._handle) == self.lent_to:
                os.tcsetpgrp(self._handle, os.getpgrp())
            if restore and self._attributes is not None:
                termios.tcsetattr(self._handle, termios.TCSADRAIN, self._attributes)
        except (OSError, termios.error):  # it is gone
            pass
        self.lent_to = 0

    def stop_with_it(self) -> None:
        """Stop as the command did, so that the shell that started us sees it. Returns when we go on."""
        os.kill(os.getpid(), signal.SIGSTOP)
