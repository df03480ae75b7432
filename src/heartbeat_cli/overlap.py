"""One run of an agent at a time on this host: a lock that its process holds, and a kill releases."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from heartbeat_cli.config import data_dir
from heartbeat_cli.private_files import open_private, try_lock

FOLDER = "runs"  # in the data folder
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def take(agent: str) -> tuple[int | None, str | None, str | None]:
    """The lock of this agent: (the handle that holds it, since when another run has it, what went wrong).

    The second is set where the run must not begin. The third is a sentence for people: no lock can be had,
    and that is no reason not to run.
    """
    name = agent.strip().lower()
    if not NAME.fullmatch(name):  # which is said of the report, too
        return None, None, f"{agent!r} cannot be the name of an agent"
    folder = data_dir(os.environ) / FOLDER
    file = folder / f"{name}.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = open_private(file)
    except OSError as error:
        return None, None, f"the lock {file} cannot be used: {error.strerror}"
    locked = try_lock(handle)
    if locked is False:
        since = _since(file)
        os.close(handle)
        return None, since, None
    if locked is None:
        os.close(handle)
        return None, None, f"the lock {file} cannot be used: there are no locks here"
    try:
        os.ftruncate(handle, 0)
        os.write(handle, time.strftime("%H:%M UTC %d %b\n", time.gmtime()).encode())
    except OSError:  # a full disk: nobody is told since when
        pass
    return handle, None, None


def _since(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip() or "an unknown time"
    except (OSError, ValueError):
        return "an unknown time"
