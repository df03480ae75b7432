"""The files of this user's local backend, and what they answer: does it run, and as which process?

    <data dir>/local/    0700
        db/              its database
        admin-key        its admin key, made by the backend
        backend.lock     locked (flock) by the backend for as long as it lives; holds its process id
        backend.json     what it was when it was last ready; stays when it stops, so that its address is known
        ready.json       the backend's stdout: the one line it prints when it is ready
        backend.log      the backend's stderr
        up.lock          locked by `up` and `down` while they work: one at a time

States, and who moves them (`up` and `down`, never two at once, and the kernel):

    stopped ──up: locks backend.lock, hands it to the process──▶ starting ──backend.json written──▶ running
       ▲                                                            │                                  │
       └────── the process ends, however it ends: the kernel frees the lock ◀──────────────────────────┘

The lock is the truth. It is taken before the process starts and inherited by it alone, so it cannot outlive
the process, not even after kill -9 or a reboot, and a process id in a file that nobody has locked means
nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from heartbeat_cli.backend_log import BackendLog
from heartbeat_cli.errors import HeartbeatError, SettingsProblem
from heartbeat_cli.local_address import FOLDER, RECORD_FILE
from heartbeat_cli.process import Files, Starting, has_open, lock, open_private, start, wait

TURN_WAITS_S = 45.0  # another `up` may take its 20 s to become ready after 10 s of stopping the one before
SETTLES_S = 1.0  # a process that was just started writes its id within milliseconds


@dataclass(frozen=True, slots=True)
class Record:
    """A backend that became ready: its process, its addresses, and the digests of the code it was started
    with.

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


class Instance:
    """The local backend of one data folder. Creating the object touches nothing."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER
        self.database = self.folder / "db"
        self.admin_key = self.folder / "admin-key"
        self.log = BackendLog(self.folder / "backend.log")
        self._lock = self.folder / "backend.lock"
        self._turn = self.folder / "up.lock"
        self._record = self.folder / RECORD_FILE
        self._files = Files(self.folder, self._lock, self.folder / "ready.json", self.log.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for other `up`s and `down`s of this instance, then keep them waiting. Makes the folder.

        Raises SettingsProblem when the folder cannot be made, HeartbeatError when the other one takes too
        long.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            handle = open_private(self._turn)
        except OSError as error:
            raise SettingsProblem(
                f"the local backend's folder {self.folder} cannot be used: {error.strerror}",
                hint="XDG_DATA_HOME, or HOME, says where it is.",
            ) from None
        try:
            if not wait(lambda: lock(handle), TURN_WAITS_S):
                raise HeartbeatError(
                    f"another `heartbeat local` command has been at work for {TURN_WAITS_S:g} s"
                    f" in {self.folder}",
                    hint="Try again when it is done.",
                )
            yield
        finally:
            os.close(handle)

    def process(self) -> int | None:
        """The backend's process id while it runs (ready or still starting), else None.

        Raises HeartbeatError when the lock is held by a process that is not the backend, so that nobody ends
        it.
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

        To be called within `alone()`, with no process running. Raises HeartbeatError when it cannot be
        started.
        """
        handle = open_private(self._lock)
        try:
            if not wait(lambda: lock(handle), SETTLES_S):  # a `status` may look at it just now
                raise HeartbeatError(f"{self._lock} is held by another process", hint="Try again.")
            return start(command, environ, self._files, handle)
        finally:
            os.close(handle)

    def wait_until_stopped(self, seconds: float) -> bool:
        """Wait for the process to be gone; false when it still runs after `seconds`."""
        return wait(self._free, seconds)

    def record(self) -> Record | None:
        """The backend as it was when it was last ready, whether or not it runs now; None when nothing is
        known.
        """
        try:
            told = json.loads(self._record.read_bytes())
            # Another version may have written more; one that wrote less is as good as none
            return Record(**{field.name: told[field.name] for field in fields(Record)})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_record(self, record: Record) -> None:
        beside = self._record.with_suffix(".new")
        handle = open_private(beside)
        os.ftruncate(handle, 0)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(asdict(record), out)
        beside.replace(self._record)

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
        """Whether no process lives under the lock. Looking does not disturb: it takes a shared lock, for a
        moment.
        """
        try:
            handle = os.open(self._lock, os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise SettingsProblem(f"{self._lock} cannot be opened: {error.strerror}") from None
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
