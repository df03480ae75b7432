"""The real cron of Debian, program and daemon, in a world of its own: this machine's is never touched.

A `World` is a mount namespace with crontabs, /etc and /usr of its own over this machine's: what is changed
there is gone with it. Its daemon's clock runs faster than ours (libfaketime, in the daemon only): what it
starts has the real time, and the environment that cron gives.

    pytestmark = crond.NEEDED                 # root, and what apt has; skipped elsewhere
    def test_…(cron_world: World, cli: Cli):  # the fixture of conftest.py: one for the module, no crontab yet
        cron_world.sees(cli)("cron", "install", "--yes")
        with cron_world.daemon(): …           # a minute of this cron takes cron_world.minute_s seconds
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import COMMAND_TIMEOUT_S, Cli
from heartbeat_cli.process import wait

PACKAGES = ("cron", "cron-daemon-common")
FASTER = "libfaketime"
SPEED = 10  # times as fast as our clock: a job has some seconds before the next minute
ENDS_WITHIN_S = 10
SPOOL = Path("/var/spool/cron/crontabs")
MAILS = "mails"  # in the world's folder: what cron mails, one after the other

_UNSHARED = ("unshare", "--mount", "--propagation", "private")
_BUILD = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/etc" "$1/etc-work" "$1/usr" "$1/usr-work"
mount -t overlay overlay -o lowerdir="$2/usr:/usr,upperdir=$1/usr,workdir=$1/usr-work" /usr
mount -t overlay overlay -o lowerdir="/etc,upperdir=$1/etc,workdir=$1/etc-work" /etc
rm -rf /etc/cron.d/* /etc/crontab /etc/cron.allow /etc/cron.deny
mkdir -p /etc/cron.d
mount -t tmpfs tmpfs /var/spool
mkdir -p /var/spool/cron/crontabs
chmod 1733 /var/spool/cron/crontabs
mount -t tmpfs tmpfs /run
printf '#!/bin/sh\\ncat >>"%s"\\n' "$3" >/usr/sbin/sendmail
chmod 755 /usr/sbin/sendmail
echo built
exec cat
"""


@functools.cache
def _lacking() -> str | None:
    """Why there can be no world here."""
    if os.geteuid() != 0:
        return "the real cron needs root"
    if not shutil.which("unshare") or not shutil.which("apt-get"):
        return "the real cron needs Debian, or a relative of it"
    with tempfile.TemporaryDirectory() as folder:
        place = f"mount -t tmpfs tmpfs {folder} && cd {folder} && mkdir a b && mount -t overlay o -o"
        tried = f"{place} lowerdir=/etc,upperdir=$PWD/a,workdir=$PWD/b /etc"
        done = subprocess.run(
            [*_UNSHARED, "sh", "-c", tried],
            capture_output=True,
            text=True,
            check=False,
        )
    return f"no mount namespace here: {done.stderr.strip()}" if done.returncode else None


NEEDED = pytest.mark.skipif(_lacking() is not None, reason=str(_lacking()))


def package(folder: Path) -> Path:
    """The unpacked files of Debian's cron, and of libfaketime where there is one; had once for all processes.

    Skips the test where apt has none.
    """
    folder.mkdir(exist_ok=True)
    root = folder / "root"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            made = folder / "making"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            (made / "usr").mkdir()
            if not shutil.which("cron") and not _unpacked(made, *PACKAGES):
                pytest.skip("apt has no package cron here")
            _unpacked(made, FASTER)
            made.rename(root)
    return root


def _unpacked(root: Path, *names: str) -> bool:
    """By apt, with the lists that are there, or else with new ones that it does not keep."""
    with tempfile.TemporaryDirectory() as folder:
        plain = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"]
        own = [*plain, "-o", f"Dir::State::lists={folder}/lists"]
        for apt, update in ((plain, False), (own, True)):
            if update:
                (Path(folder) / "lists" / "partial").mkdir(parents=True)
                subprocess.run([*apt, "update"], capture_output=True, check=False)
            got = subprocess.run([*apt, "download", *names], cwd=folder, capture_output=True, check=False)
            if got.returncode == 0:
                for file in Path(folder).glob("*.deb"):
                    subprocess.run(["dpkg-deb", "-x", file, root], check=True)
                return True
    return False


class World:
    """A namespace that lasts until `end`; `folder` is outside of it. `environ` is an environment in which the
    program `crontab` is the one in there.
    """

    def __init__(self, folder: Path, files: Path) -> None:
        self.folder = folder
        self.mails = folder / MAILS
        self._faster = next(files.glob("usr/lib/*/faketime/libfaketime.so.1"), None)
        self.speed = 1  # of the daemon's clock
        overlay = folder / "overlay"
        overlay.mkdir()
        self._holder = subprocess.Popen(
            [*_UNSHARED, "sh", "-c", _BUILD, "sh", str(overlay), str(files), str(self.mails)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "built\n"
        self.environ = self._environ(folder / "bin", [])

    def as_user(self, uid: int, folder: Path) -> dict[str, str]:
        """As `environ`, for another user than root."""
        return self._environ(folder / "bin", ["setpriv", f"--reuid={uid}", "--clear-groups"])

    def _environ(self, folder: Path, before: list[str]) -> dict[str, str]:
        program = folder / "crontab"
        folder.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {shlex.join([*self.words(), *before])} /usr/bin/crontab "$@"\n')
        program.chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}"}

    def words(self) -> list[str]:
        """What stands in front of a command that is to run in here."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    def sh(self, script: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A line for the shell, as root of this world."""
        return subprocess.run(
            [*self.words(), "sh", "-c", script],
            input=stdin,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def sees(self, cli: Cli) -> Cli:
        """Somebody whose `crontab` is the real one, that of root in here."""
        cli.env["PATH"] = self.environ["PATH"]
        return cli

    def stands(self) -> bytes | None:
        """Root's crontab as its file has it, without the three lines that `crontab` writes above."""
        done = self.sh(f"cat {SPOOL}/root")
        if done.returncode:
            return None
        lines = done.stdout.split(b"\n")
        return b"\n".join(lines[3:]) if b"Cron version" in b"".join(lines[2:3]) else done.stdout

    def write(self, text: bytes | None) -> None:
        """Give root this crontab, whatever `crontab` would say to it."""
        self.sh(
            f"cat >{SPOOL}/root && chmod 600 {SPOOL}/root" if text is not None else f"rm -f {SPOOL}/root",
            text or b"",
        )

    def clear(self) -> None:
        """Nobody has a crontab, and no mail; the daemon is as fast as it can be."""
        self.speed = SPEED if self._faster else 1
        self.write(None)
        self.mails.unlink(missing_ok=True)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """Cron runs meanwhile; all that it started has ended afterwards."""
        env = {"PATH": "/usr/bin:/bin"}
        if self.speed > 1:
            env |= {"LD_PRELOAD": str(self._faster), "FAKETIME": f"+0 x{self.speed}"}
        # LD_PRELOAD is for cron alone: what it starts gets the environment that cron makes
        command = [*self.words(), "/usr/bin/env", *(f"{name}={value}" for name, value in env.items())]
        cron = subprocess.Popen([*command, "/usr/sbin/cron", "-f"], env={"PATH": "/usr/bin:/bin"})
        try:
            yield
        finally:
            cron.terminate()
            cron.wait(ENDS_WITHIN_S)
            wait(lambda: not self._inside(), ENDS_WITHIN_S)
            for pid in self._inside():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)

    @property
    def minute_s(self) -> float:
        """How long a minute of this cron takes."""
        return 60 / self.speed

    def end(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(ENDS_WITHIN_S)

    def _inside(self) -> list[int]:
        """The processes in here, but for the one that holds the namespace."""
        own = Path(f"/proc/{self._holder.pid}/ns/mnt").readlink()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != self._holder.pid:
                with contextlib.suppress(OSError):
                    if (process / "ns" / "mnt").readlink() == own:
                        found.append(int(process.name))
        return found
