"""The file of the spool: its tables, how it is opened, a sentence for each way in which it cannot be used.

SQLite in WAL mode: a commit that is to last is one fsync, readers stop nobody, and a process that is killed
leaves nothing half done. Only its user can read it: summaries and errors may be nobody else's business.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from heartbeat_cli.errors import SpoolProblem
from heartbeat_cli.private_files import PRIVATE, alone_in, sync

FOLDER = "spool"  # in the data folder
FILE = "spool.db"
PAGE_BYTES = 4096
SHM_BYTES = 32_768  # of the file that its processes share, at least
BYTES_MAX = 100_000_000  # of heartbeats: a monitor must not fill the disk of what it monitors
BOOKS_SHARE = 1.1  # of them, once heartbeats are in it: reasons, and answers for senders that wait
BUSY_MAX_S = 2.0  # a commit takes milliseconds; whoever holds the file for longer was stopped
HURRY_S = 0.1  # some commits
APPLICATION_ID = 0x68627370  # "hbsp": in the file's header, so that no other database is taken for ours
VERSION = 1  # of the tables
MAKE_ROOM = "heartbeat spool list shows what waits and why; heartbeat spool deliver and spool drop make room"

_TABLES = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order in which they were sent
    heartbeat_id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    deployment TEXT NOT NULL,  -- its address: an entry goes nowhere else
    fingerprint TEXT NOT NULL,  -- of the token it was sent with
    body TEXT NOT NULL,  -- the heartbeat as JSON, but for the instant of delivery
    sent_at INTEGER NOT NULL, boot TEXT, boot_ms INTEGER NOT NULL,
    aside INTEGER NOT NULL DEFAULT 0,
    awaited INTEGER NOT NULL DEFAULT 1,  -- its sender is still there and wants the answer
    tries INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER NOT NULL DEFAULT 0,
    code TEXT, reason TEXT  -- what became of the last try
);
CREATE INDEX by_deployment ON entries (deployment, aside, number);
CREATE INDEX by_agent ON entries (agent, deployment);
CREATE TABLE deployments (  -- those that could not be reached the last time
    deployment TEXT PRIMARY KEY, tries INTEGER NOT NULL, next_try_at INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE answers (heartbeat_id TEXT PRIMARY KEY, answer TEXT NOT NULL, at INTEGER NOT NULL);
PRAGMA user_version = {VERSION};
"""


def path(data_dir: Path) -> Path:
    """The spool's file, whether or not there is one."""
    return data_dir / FOLDER / FILE


class SpoolFile:
    """The database, opened when it is first needed. Everything raises `SpoolProblem`.

    `busy_s`: how long to wait, at most, for a process that keeps it locked.
    """

    def __init__(self, data_dir: Path, busy_s: float) -> None:
        self.path = path(data_dir)
        self._busy_s = min(busy_s, BUSY_MAX_S)
        self._opened: sqlite3.Connection | None = None

    def exists(self) -> bool:
        """Whether there is one."""
        return self._opened is not None or os.path.exists(self.path)  # noqa: PTH110 - pathlib raises

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The database, for statements that change nothing."""
        with self.problems():
            yield self._database()

    @contextlib.contextmanager
    def problems(self) -> Iterator[None]:
        """What goes wrong with the database, or a file beside it, is a `SpoolProblem`."""
        try:
            yield
        except (OSError, sqlite3.Error, ValueError) as error:
            raise _problem(self.path, error) from None

    @contextlib.contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """The database, for one transaction; on the disk at its end if it is to be `durable`."""
        with self.reading() as database:
            database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            # a full spool still has room for what is written about its heartbeats
            most = BYTES_MAX if durable else BYTES_MAX * BOOKS_SHARE
            database.execute(f"PRAGMA max_page_count = {round(most / PAGE_BYTES)}")
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # some errors end it themselves
                    database.execute("ROLLBACK")
                raise

    def hurry(self) -> None:
        """From here on wait for a process that keeps it locked as long as a commit takes, and no longer."""
        self._busy_s = HURRY_S
        if self._opened is not None:
            self._opened.execute(f"PRAGMA busy_timeout = {round(HURRY_S * 1000)}")

    def give_back(self) -> None:
        """Give the disk what an outage took, once nothing is left of it."""
        with self.reading() as database:
            # as a script: of a single statement without an answer Python takes one step, which is one page
            database.executescript("PRAGMA incremental_vacuum")

    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            folder = self.path.parent
            if not self.exists():
                _begin(self.path)
            database = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
            if not _is_ours(database):
                with alone_in(folder, self._busy_s):
                    _make(database)
            self._opened = database
        return self._opened


class _NotOurs(ValueError):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _is_ours(database: sqlite3.Connection) -> bool:
    """Whether the tables are there; raises `_NotOurs` for somebody else's, or those of a newer version."""
    [version] = database.execute("PRAGMA user_version").fetchone()
    [application] = database.execute("PRAGMA application_id").fetchone()
    if version == application == 0:
        return False
    if application != APPLICATION_ID:
        raise _NotOurs("it is the database of another program", "move it away, and a new one is made")
    if version > VERSION:
        raise _NotOurs(
            f"a newer version of this program wrote it (format {version}, known is {VERSION})",
            "update this program: the newer one has what waits in it",
        )
    return True


def _begin(path: Path) -> None:
    """An empty file, 0600 from its first byte: those that SQLite puts beside it follow it."""
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT, PRIVATE))
    for place in (folder, *folder.parents[:2]):
        with contextlib.suppress(PermissionError):  # a folder that is not ours was there before
            sync(place)


def _make(database: sqlite3.Connection) -> None:
    if _is_ours(database):  # another process was faster
        return
    if database.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise _NotOurs("it is the database of another program", "move it away, and a new one is made")
    database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")


def _no_room(path: Path) -> bool:
    """Whether SQLite could not even make its -shm file, of which it tells no more than "disk I/O error"."""
    try:
        disk = os.statvfs(path.parent)
    except (OSError, AttributeError):  # not on Windows
        return False
    return disk.f_bavail * disk.f_frsize < SHM_BYTES


def _problem(path: Path, error: Exception) -> SpoolProblem:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return SpoolProblem(
            f"the spool {path} is kept locked by another process",
            hint="is one stopped that uses it? ps shows those of heartbeat",
        )
    if isinstance(error, sqlite3.OperationalError) and ("full" in str(error) or _no_room(path)):
        return SpoolProblem(
            f"the spool {path} cannot grow: its disk is full, or it holds 100 MB", hint=MAKE_ROOM
        )
    if isinstance(error, _NotOurs):
        return SpoolProblem(f"the spool {path} cannot be used: {error}", hint=error.hint)
    reason = getattr(error, "strerror", None) or error
    return SpoolProblem(
        f"the spool {path} cannot be used: {reason}",
        hint="check the disk and the rights; a damaged file can be moved away, and a new one is made",
    )
