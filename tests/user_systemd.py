"""A user's own systemd, real, in namespaces of its own: it sees no process and no group of this machine.

Needs root, unified control groups that may be written, and the program: `missing()` says what is not there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from conftest import Cli, wait_for

SYSTEMD = Path("/lib/systemd/systemd")
MOUNTS = Path("/proc/self/mounts")
UNSHARED = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "--mount-proc", "--kill-child")
# As a login makes it: a place for its sockets, and the groups below its own
_BEGIN = """
mount -t tmpfs tmpfs /run && mkdir -p -m 700 /run/systemd/system "$XDG_RUNTIME_DIR"
umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
"$0" --user & wait # it would not be anybody's first process
"""


def groups() -> Path | None:
    """Where the unified control groups are, if they may be written."""
    lines = MOUNTS.read_text().splitlines() if MOUNTS.exists() else []
    found = (Path(line.split()[1]) for line in lines if " cgroup2 rw" in line)
    return next((folder for folder in found if os.access(folder, os.W_OK)), None)


@functools.cache
def missing() -> str | None:
    """Why there can be none here; None where there can."""
    if os.geteuid() != 0:
        return "only root may make the namespaces of a systemd of its own"
    if not SYSTEMD.exists() or shutil.which("systemctl") is None:
        return "systemd is not installed"
    if groups() is None:
        return "there are no unified control groups that may be written"
    made = subprocess.run([*UNSHARED, "true"], capture_output=True, text=True, check=False)
    return f"no namespaces here: {made.stderr.strip()}" if made.returncode else None


class UserSystemd:
    """It runs for `cli`'s user; `inside` is how a program is started where it rules."""

    def __init__(self, cli: Cli, pid: int) -> None:
        cli.env |= {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
        self.inside = ("nsenter", "--target", str(pid), "--mount", "--pid", "--cgroup", "--")
        self._cli = cli

    def run(self, *words: str) -> str:
        """What a program says that is started in there."""
        return self._cli(*words, program=self.inside).out.strip()

    def systemctl(self, *words: str) -> str:
        return self.run("systemctl", "--user", *words)


@contextlib.contextmanager
def user_systemd(cli: Cli) -> Iterator[UserSystemd]:
    whole = groups()
    assert whole is not None
    group = whole / f"heartbeat-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    process = subprocess.Popen(
        [
            *("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)),
            *UNSHARED,
            *("sh", "-c", _BEGIN, str(SYSTEMD)),
        ],
        env=cli.environment({"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}),
        stdin=subprocess.DEVNULL,
        stdout=(cli.folder / "systemd.log").open("ab"),
        stderr=subprocess.STDOUT,
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda: children.read_text().split())
        found = UserSystemd(cli, int(children.read_text().split()[0]))
        wait_for(lambda: found.systemctl("is-system-running") in {"running", "degraded"})
        yield found
    finally:
        process.send_signal(
            signal.SIGKILL
        )  # its namespace's first process goes with it, and all others with that
        process.wait()
        wait_for(lambda: _removed(group))


def _removed(group: Path) -> bool:
    """Remove a control group and those below it; false while a process is in one of them."""
    try:
        for folder in [*sorted(group.rglob("*/"), reverse=True), group]:
            folder.rmdir()
    except OSError:
        return False
    return True
