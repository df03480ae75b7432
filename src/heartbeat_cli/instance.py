"""The files of this user's local backend, and what they answer: does it run, and as which process?

    <data dir>/local/    0700
        db/              its database
        admin-key        its admin key, made by the backend
        backend.lock     locked (flock) by the backend for as long as it lives; holds its process id
        backend.json     what it was when it was last ready; stays when it stops, so that its address is known
        ready.json       the backend's stdout: the one line it prints when it is ready
        backend.log      the backend's stderr
        up.lock          locked by `up`, `keep` and `down` while they work: one at a time
        stay-down        there from `down` to the next `up`: whoever keeps it running is to leave it alone
        wish.json        what an `up` under systemd wants the unit to start: gone when it has
        service.pid      its process id as systemd reads it, which removes the file when the process is gone
        cache/           the backend's code as Node compiled it: may be deleted at any time
        before-restore-T/  the database that a restore at T replaced: nobody uses it, may be deleted
        restore.part/    a database on its way in, not yet judged
        check.part/      a copy of the database, looked at
        next-T/          a database that is to take the place of db/, decided at T

States, and who moves them (`up`, `keep` and `down`, never two at once, and the kernel):

    stopped ──up: locks backend.lock, hands it to the process──▶ starting ──backend.json written──▶ running
       ▲                                                            │                                  │
       └────── the process ends, however it ends: the kernel frees the lock ◀──────────────────────────┘

The lock is the truth. It is taken before the process starts and inherited by it alone, so it cannot outlive
the process, not even after kill -9 or a reboot, and a process id in a file that nobody has locked means
nothing.

A database is replaced in three renames. From the first on it is decided: whoever comes next within `alone()`
makes the other two if a crash has left them.

    restore.part ──▶ next-T      db ──▶ before-restore-T      next-T ──▶ db
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

from heartbeat_cli.backend_log import BackendLog
from heartbeat_cli.errors import HeartbeatError, SettingsProblem
from heartbeat_cli.local_address import ADDRESS, FOLDER, READY_FILE, RECORD_FILE
from heartbeat_cli.private_files import open_private, replace, sync
from heartbeat_cli.process import Files, Starting, has_open, lock, start, wait

TURN_WAITS_S = 45.0  # another `up` may take its 20 s to become ready after 10 s of stopping the one before
SETTLES_S = 1.0  # a process that was just started writes its id within milliseconds
NEXT, BEFORE = "next-", "before-restore-"  # begin the names of databases that are not, or no more, in use


@dataclass(frozen=True, slots=True)
class Record:
    """A backend that became ready: its process, its addresses, the digests of the code it was started with.

    `functions` is the path of the functions that the user chose, None for those of the installation.
    `startedAt` is in epoch milliseconds.
    """

    pid: int
    url: str
    siteUrl: str
    version: str
    functionsHash: str
    startedAt: int
    functions: str | None
    functionsDigest: str
    backendDigest: str


def _sound(record: Record) -> Record:
    """`record` if what it says can be; else ValueError."""
    if isinstance(record.pid, int) and ADDRESS.fullmatch(record.url) and ADDRESS.fullmatch(record.siteUrl):
        return record
    raise ValueError(record)


class Instance:
    """The local backend of one data folder. Creating the object touches nothing."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER
        self.database = self.folder / "db"
        self.admin_key = self.folder / "admin-key"
        self.log = BackendLog(self.folder / "backend.log")
        self.stay_down = self.folder / "stay-down"
        self.wish = self.folder / "wish.json"
        self.service_pid = self.folder / "service.pid"
        self._lock = self.folder / "backend.lock"
        self._turn = self.folder / "up.lock"
        self._record = self.folder / RECORD_FILE
        self._files = Files(self.folder, self._lock, self.folder / READY_FILE, self.log.path)

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Whatever the disk has against what is done in here (OSError) becomes one SettingsProblem."""
        try:
            yield
        except OSError as error:
            raise SettingsProblem(
                f"the local backend's folder {self.folder} cannot be used: {error.strerror or error}",
                hint="XDG_DATA_HOME, or HOME, says where it is.",
            ) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for others that start or end this instance, then keep them waiting. Makes the folder.

        Raises HeartbeatError when another takes too long.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        handle = open_private(self._turn)
        try:
            if not wait(lambda: lock(handle), TURN_WAITS_S):
                raise HeartbeatError(
                    f"another `heartbeat local` command has been at work for {TURN_WAITS_S:g} s"
                    f" in {self.folder}",
                    hint="Try again when it is done.",
                )
            if any(self.folder.glob(f"{NEXT}*")) and self.process() is None:
                self._finish_replacing()
            yield
        finally:
            os.close(handle)

    def process(self) -> int | None:
        """The backend's process id while it runs (ready or still starting), else None.

        Raises HeartbeatError when the lock is held by a process that is not the backend: nobody may end it.
        """
        found: list[int] = []

        def settled() -> bool:
            if self._free():
                return True
            pid = self._written_id()
            if pid is not None and has_open(pid, self._lock):
                found.append(pid)
            return bool(found)

        if not wait(settled, SETTLES_S):
            raise HeartbeatError(
                f"{self._lock} is held by a process that is not the local backend",
                hint=f"See which: fuser {self._lock}",
            )
        return found[0] if found else None

    def start(self, command: list[str], environ: dict[str, str]) -> Starting:
        """Start the backend; `command` and `environ` are all that it gets.

        To be called within `alone()`, with no process running. Raises HeartbeatError when it cannot start.
        """
        handle = open_private(self._lock)
        try:
            if not wait(lambda: lock(handle), SETTLES_S):  # a `status` may look at it just now
                raise HeartbeatError(f"{self._lock} is held by another process", hint="Try again.")
            return start(command, environ, self._files, handle)
        finally:
            os.close(handle)

    def replace_database(self, whole: Path, now_ms: int) -> Path | None:
        """Make the folder `whole`, which lies in ours, the database. The one before stays, under another
        name, which is returned.

        To be called within `alone()`, with no process running. A crash leaves the old one; or the new one, as
        soon as somebody works with it.
        """
        at = datetime.fromtimestamp(now_ms / 1000, UTC)
        sync(whole)
        whole.rename(self.folder / f"{NEXT}{at:%Y%m%dT%H%M%SZ}")
        sync(self.folder)
        return self._finish_replacing()

    def _finish_replacing(self) -> Path | None:
        (coming,) = self.folder.glob(f"{NEXT}*")
        kept = None
        if self.database.exists():
            name = f"{BEFORE}{coming.name.removeprefix(NEXT)}"
            names = chain([name], (f"{name}-{number}" for number in count(2)))
            kept = next(file for file in (self.folder / name for name in names) if not file.exists())
            self.database.rename(kept)
        coming.rename(self.database)
        sync(self.folder)
        return kept

    def alive(self) -> bool:
        """Whether a process lives, ready or not: a look at the lock and at nothing else."""
        return not self._free()

    def wait_until_stopped(self, seconds: float) -> bool:
        """Wait for the process to be gone; false when it still runs after `seconds`."""
        return wait(self._free, seconds)

    def record(self) -> Record | None:
        """The backend as it was when last ready, whether or not it runs now; None when nothing is known."""
        try:
            told = json.loads(self._record.read_bytes())
            # Another version may have written more; one that wrote less is as good as none
            return _sound(Record(**{field.name: told[field.name] for field in fields(Record)}))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            return self._told_when_ready()

    def _told_when_ready(self) -> Record | None:
        """What the process itself said, where our record of it is damaged: not with which code it runs."""
        try:
            told = json.loads(self._files.ready.read_bytes())
            said = {name: told[name] for name in ("pid", "url", "siteUrl", "version", "functionsHash")}
            started = int(self._files.ready.stat().st_mtime * 1000)
            return _sound(
                Record(**said, startedAt=started, functions=None, functionsDigest="", backendDigest="")
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_record(self, record: Record) -> None:
        """Remember the backend that has just become ready, in place of the one before."""
        replace(self._record, json.dumps(asdict(record)).encode())

    def data_bytes(self) -> int:
        """How much the database takes on disk."""
        total = 0
        for file in self.database.glob("**/*"):
            try:
                total += file.stat().st_size
            except OSError:  # a write-ahead log comes and goes
                continue
        return total

    def _free(self) -> bool:
        """Whether no process lives under the lock. Looking takes a shared lock for a moment: no harm."""
        try:
            handle = os.open(self._lock, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            return lock(handle, shared=True)
        finally:
            os.close(handle)

    def _written_id(self) -> int | None:
        try:
            word = self._lock.read_bytes().strip()
        except OSError:
            return None
        return int(word) if word.isdigit() else None
