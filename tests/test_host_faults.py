"""`heartbeat send` on a host whose disks, files and locks fail, the deployment being away, or well.

Where the heartbeat can be kept, it is; else it is delivered at once; and only where neither can be done does
`send` fail, saying both. Afterwards the host is well again, and the next `send` (in this process) brings all
that was kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from attempts import (
    DEADLINE_S,
    OVERTIME_S,
    Attempt,
    World,
    agent_of,
    attempt,
    send,
    sends_well,
    sentence,
    spooled,
    told,
)
from conftest import AS_A_USER, TABLE, Cli, Local
from disks import MOUNTABLE, Disk
from heartbeat_cli.send import Sent
from heartbeat_cli.spool_file import _problem
from peers import Deaf, relays

AWAY = "Connection refused"
PAGE_BYTES = 4096  # of a database
State = Literal["away", "well"]
End = Literal["spooled", "delivered", "lost"]


@dataclass
class Host:
    """Somebody's host: `mends` are undone, last first, when it is to be well again."""

    cli: Cli
    agent: str
    stack: contextlib.ExitStack
    before: tuple[str, ...] = ()  # how a command is started there
    sent_before: list[str] = field(default_factory=list)
    mends: list[Callable[[], object]] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        return self.cli.data_dir / "spool"

    def disk(self, name: str) -> Disk:
        return self.stack.enter_context(Disk(self.cli.folder / name))

    def log(self) -> Path:
        log = self.cli.folder / "log"
        self.cli.env["HEARTBEAT_LOG"] = str(log)
        return log

    def send(self, summary: str) -> Attempt:
        return attempt([*self.before, *send(self.agent, summary)], self.cli.environment(), self.cli.folder)

    def moves(self, folder: Path) -> None:
        self.cli = Cli(folder, self.cli.env)
        self.cli.env["HEARTBEAT_HOME"] = str(self.cli.home)
        self.cli.write_schedule(TABLE)

    def mend(self) -> None:
        self.before = ()
        while self.mends:
            self.mends.pop()()

    def has_one_waiting(self) -> None:
        """A first heartbeat, of the time before things went wrong here, is in the spool."""
        self.sent_before.append("before")
        sends_well(self.cli, self.agent, "before")
        assert spooled(self.cli) == 1


# --- what goes wrong


def full_disk(host: Host) -> None:
    disk = host.disk("data")
    disk.fill()
    host.mends.append(disk.free)


def disk_that_got_full(host: Host) -> None:
    disk = host.disk("data")
    host.has_one_waiting()
    disk.fill()
    host.mends.append(disk.free)


def limit_of_size(host: Host) -> None:
    """Of each file, as `ulimit -f` sets it: another error than a full disk."""
    host.before = ("prlimit", f"--fsize={2**14}", "--")


def full_disk_of_the_log(host: Host) -> None:
    disk = host.disk("logs")
    host.cli.env["HEARTBEAT_LOG"] = str(disk.folder / "agent-heartbeat.log")
    disk.fill()
    host.mends.append(disk.free)


def read_only_disk(host: Host) -> None:
    """Everything that is the user's is on it."""
    disk = host.disk("everything")
    host.moves(disk.folder)
    disk.read_only()
    host.mends.append(lambda: disk.read_only(False))


def read_only_disk_with_a_spool(host: Host) -> None:
    disk = host.disk("everything")
    host.moves(disk.folder)
    host.sent_before.append("before")
    assert host.send("before").code == 0  # by a process: what is open in this one keeps a disk writable
    disk.read_only()
    host.mends.append(lambda: disk.read_only(False))


def read_only_home(host: Host) -> None:
    host.before = AS_A_USER
    for folder in (host.cli.home, host.cli.folder):
        folder.chmod(0o500)
        host.mends.append(partial(folder.chmod, 0o700))


def log_that_is_a_folder(host: Host) -> None:
    log = host.log()
    log.mkdir()
    host.mends.append(log.rmdir)


def log_that_nobody_reads(host: Host) -> None:
    log = host.log()
    os.mkfifo(log)
    host.mends.append(log.unlink)


def locked_log(host: Host) -> None:
    flocked(host, host.log())


def file_in_place_of_the_spools_folder(host: Host) -> None:
    host.spool.parent.mkdir(parents=True)
    host.spool.touch()
    host.mends.append(host.spool.unlink)


def spool_of_somebody_else(host: Host) -> None:
    host.before = AS_A_USER
    host.has_one_waiting()
    host.spool.chmod(0)
    host.mends.append(lambda: host.spool.chmod(0o700))


def spool_that_is_garbage(host: Host) -> None:
    host.spool.mkdir(parents=True)
    file = host.spool / "spool.db"
    file.write_bytes(b"what is this? " * 1000)
    host.mends.append(file.unlink)


def spool_that_was_torn(host: Host) -> None:
    """The first page is still there: only the tables are not."""
    host.has_one_waiting()
    file = host.spool / "spool.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.write_bytes(file.read_bytes()[:PAGE_BYTES] + b"\xff" * 10 * PAGE_BYTES)
    host.sent_before.clear()
    host.mends.append(lambda: shutil.rmtree(host.spool))


HOLD = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def spool_that_a_stopped_process_keeps_locked(host: Host) -> None:
    host.has_one_waiting()
    command = [sys.executable, "-c", HOLD, str(host.spool / "spool.db")]
    holder = host.stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    host.stack.callback(holder.kill)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    host.mends += [holder.wait, holder.kill]


def stopped_process_that_delivers(host: Host) -> None:
    host.has_one_waiting()
    flocked(host, host.spool / "deliver.lock")


def flocked(host: Host, file: Path) -> None:
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    host.mends.append(lambda: os.close(handle))


def full_disk_for_every_word(host: Host) -> None:
    """stdout and stderr are files on it."""
    host.before = ("/bin/sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh")


# --- the table


@dataclass(frozen=True)
class Row:
    """What goes wrong, words of what is said, whether the heartbeat is `kept` all the same.

    `states` of the deployment: both, but where a well one shows nothing that another row does not show.
    `delivers`: at once where it is well. `mounts`: takes a disk of its own.
    """

    spoils: Callable[[Host], None]
    words: str
    kept: bool = False
    states: tuple[State, ...] = ("away", "well")
    mounts: bool = False
    delivers: bool = True


TABLE_OF_FAULTS = {
    "a stopped process that delivers": Row(
        stopped_process_that_delivers,
        "another process is still delivering after 3 s",
        kept=True,
        states=("well",),
        delivers=False,
    ),
    "a stopped process that keeps the spool locked": Row(
        spool_that_a_stopped_process_keeps_locked, "is kept locked by another process"
    ),
    "a full disk": Row(full_disk, "its disk is full", mounts=True),
    "a disk that got full": Row(disk_that_got_full, "its disk is full", mounts=True),
    "a limit of the size of files": Row(limit_of_size, "the spool", states=("away",)),
    "a full disk of the log": Row(full_disk_of_the_log, "No space left on device", kept=True, mounts=True),
    "a read-only disk": Row(read_only_disk, "Read-only file system", mounts=True),
    "a read-only disk with a spool": Row(read_only_disk_with_a_spool, "readonly database", mounts=True),
    "a read-only home": Row(read_only_home, "Permission denied", states=("away",)),
    "a log that is a folder": Row(log_that_is_a_folder, "Is a directory", kept=True),
    "a log that nobody reads": Row(
        log_that_nobody_reads, "No such device or address", kept=True, states=("away",)
    ),
    "a locked log": Row(locked_log, "", kept=True, states=("away",)),
    "a file in place of the spool's folder": Row(
        file_in_place_of_the_spools_folder, "the spool", states=("away",)
    ),
    "a spool of somebody else": Row(spool_of_somebody_else, "the spool", states=("away",)),
    "a spool that is garbage": Row(spool_that_is_garbage, "file is not a database"),
    "a torn spool": Row(spool_that_was_torn, "the spool", states=("away",)),
    "a full disk for every word": Row(full_disk_for_every_word, "", kept=True),
}
ROWS: dict[str, tuple[Row, State]] = {
    f"{state}: {name}": (row, state)
    for name, row in TABLE_OF_FAULTS.items()
    if MOUNTABLE or not row.mounts
    for state in row.states
}


def end_of(row: Row, state: State) -> End:
    if state == "well" and row.delivers:
        return "delivered"
    return "spooled" if row.kept else "lost"


@dataclass(frozen=True)
class Record:
    """An attempt while something was wrong, and how things stood after the next, when nothing was."""

    first: Attempt
    second: Sent
    recorded: list[str]
    expected: list[str]
    spooled: int


class Story:
    """One row: a host of its own on which things go wrong."""

    def __init__(self, name: str, folder: Path, world: World, stack: contextlib.ExitStack) -> None:
        self.row, self.state = ROWS[name]
        self.name, self.world = name, world
        self.peer = stack.enter_context(Deaf())
        self.host = Host(world.sender(folder, self.peer.url), agent_of(name), stack)

    def fails(self) -> Attempt:
        self.row.spoils(self.host)
        if self.state == "well":
            self.peer.becomes(relays(self.world.port))
        return self.host.send(self.name)

    def heals(self, first: Attempt) -> Record:
        self.host.mend()
        if self.state == "away":
            self.peer.becomes(relays(self.world.port))
        second = sends_well(self.host.cli, self.host.agent, "the next")
        expected = [*self.host.sent_before, "the next"]
        expected += [] if end_of(self.row, self.state) == "lost" else [self.name]
        recorded = self.world.recorded(self.host.agent)
        return Record(first, second, recorded, sorted(expected), spooled(self.host.cli))


@pytest.fixture(scope="module")
def records(
    running: Local, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mapping[str, Record]]:
    """What became of each row that a test here asks about."""
    folder = tmp_path_factory.mktemp("hosts")
    yield from told(
        request,
        running,
        ROWS,
        lambda name, world, stack: Story(name, folder / agent_of(name), world, stack),
    )


@pytest.mark.parametrize("name", ROWS)
def test_it_ends_in_time_and_keeps_or_delivers_or_says_neither(
    records: Mapping[str, Record], name: str
) -> None:
    row, state = ROWS[name]
    sent, agent, end = records[name].first, agent_of(name), end_of(row, state)
    assert sent.seconds <= DEADLINE_S + OVERTIME_S
    assert sent.left == ()
    assert sent.code == (1 if end == "lost" else 0), sent
    assert "Traceback" not in sent.err
    assert row.words in sent.err
    if row.spoils is full_disk_for_every_word:
        assert sent.out == sent.err == ""
        return
    if end == "delivered":
        assert sent.out.startswith(f"{agent} ok"), sent
        assert row.kept or "it could not be kept first: " in sent.err
        return
    assert sent.out == ""
    how = "is spooled, not delivered: " if end == "spooled" else "is neither delivered nor kept: "
    said = sentence(sent, f"heartbeat: {agent} {how}")
    assert (AWAY in said) == (state == "away")
    assert end == "spooled" or row.words in said


@pytest.mark.parametrize("name", ROWS)
def test_the_next_one_brings_what_was_kept_and_all_is_there_once(
    records: Mapping[str, Record], name: str
) -> None:
    record = records[name]
    assert record.second.problem is None, record.second
    assert re.fullmatch(r"(delivered \d heartbeats? that had waited)?", "\n".join(record.second.notes))
    assert record.recorded == record.expected
    assert record.spooled == 0


@pytest.mark.skipif(not MOUNTABLE, reason="a disk of its own takes root and mount")
def test_a_disk_on_which_not_even_the_shared_file_fits_is_told_as_full(tmp_path: Path) -> None:
    """SQLite says of that no more than `disk I/O error`."""
    error = sqlite3.OperationalError("disk I/O error")
    with Disk(tmp_path / "spool") as disk:
        file = disk.folder / "spool.db"
        assert "cannot be used: disk I/O error" in str(_problem(file, error))
        disk.fill()
        assert "its disk is full" in str(_problem(file, error))
        disk.free()
