"""Backups of the local backend's data: one file that is whole, made while it runs; and the way back.

    backup    data ──SQLite's online backup──▶ part, beside FILE ──synced, checked──▶ FILE (renamed)
    restore   FILE ──copied──▶ part, in the folder ──checked──▶ shown ──asked──▶ the data (instance.py)

A kill at any instant leaves FILE, or the data, as it was before or as it is afterwards, and perhaps a part,
which the next backup or restore takes away. What is inside of a database is the backend's to know: its own
`--check` reads every document of a part, and says what there is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartbeat_cli.engine import find_code, find_node
from heartbeat_cli.errors import HeartbeatError, SettingsProblem, UsageProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.private_files import open_private, sync, writing

DATABASE = "data.sqlite3"  # the backend's name for it
PART = ".part"  # ends the name of a folder that is not finished
STEP_PAGES = 4096  # 16 MB: between two steps Ctrl-C is heard
CHECKED_WITHIN_S = 600.0  # a million documents take 6 s
START = "Start with: heartbeat local up"
PROBLEMS_SHOWN = 3  # of a damaged file, whose problems have one cause


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database holds: documents of each table (of empty ones too), bytes on disk, the last commit in
    epoch milliseconds (None: nothing was ever stored).
    """

    tables: Mapping[str, int]
    size: int
    last_commit_at: int | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What `restore` did: what is there now, and the folder with what was before (None: nothing was)."""

    contents: Contents
    kept_in: Path | None


@dataclass(frozen=True, slots=True)
class Coming:
    """A restore before it is done: what would come, and what it would replace.

    `present` is None where nothing is stored, and a sentence where it cannot be read any more.
    """

    instance: Instance
    part: Path
    contents: Contents
    present: Contents | str | None

    def accept(self, now_ms: int) -> Restored:
        """Do it. The present data stays, under another name."""
        kept = self.instance.replace_database(self.part, now_ms)
        return Restored(self.contents, kept)


def backup(instance: Instance, file: Path, inherited: Mapping[str, str], *, force: bool) -> Contents:
    """Write all data, as of one instant, into `file`, whether or not the backend runs; nobody waits for it.

    Raises UsageProblem (`file` exists and `force` is not given, or cannot be a backup), SettingsProblem (no
    data, a file that cannot be written, no Node.js), HeartbeatError (the data is damaged). In each case
    `file` is as it was.
    """
    file = file.absolute()
    if file.resolve().is_relative_to(instance.folder.resolve()):
        raise UsageProblem(f"{file} lies in the local backend's own folder", hint="Name a file elsewhere.")
    nothing = SettingsProblem(f"there is no data to back up in {instance.database}", hint=START)
    if not instance.folder.exists():
        raise nothing
    with instance.alone():
        quiet = instance.process() is None
        if not (instance.database / DATABASE).exists():
            raise nothing
        if file.is_dir():
            raise UsageProblem(f"{file} is a folder", hint="Name a file in it.")
        if file.exists() and not force:
            raise UsageProblem(f"{file} exists", hint="Name another file, or add --force to replace it.")
        return _write(instance.database / DATABASE, file, inherited, quiet=quiet)


def check(instance: Instance, inherited: Mapping[str, str]) -> Contents:
    """What is in the data, every document of which is read. Of a backend that runs a copy is checked.

    Raises SettingsProblem (no data, no Node.js), HeartbeatError (it is damaged).
    """
    if not (instance.database / DATABASE).exists():
        raise SettingsProblem(
            f"there is no data in {instance.database}", hint="Start with: heartbeat local up"
        )
    with instance.alone():
        if instance.process() is None:
            return _checked(instance.database, "the data", inherited)
        with _part(instance.folder / f"check{PART}") as part:
            _copy(instance.database / DATABASE, part, quiet=False)
            return _checked(part, "the data", inherited)


def _write(source: Path, file: Path, inherited: Mapping[str, str], *, quiet: bool) -> Contents:
    with writing(file), _part(file.with_name(f".{file.name}{PART}")) as part:
        _copy(source, part, quiet=quiet)
        contents = _checked(part, "the data", inherited)
        (part / DATABASE).replace(file)
        sync(file.parent)
        return contents


@contextmanager
def restore(instance: Instance, file: Path, inherited: Mapping[str, str]) -> Iterator[Coming]:
    """Check `file` and say what it would bring; only `Coming.accept` changes anything. `up` waits meanwhile.

    Raises UsageProblem (there is no such file), SettingsProblem (the folder cannot be written, no Node.js),
    HeartbeatError (the backend runs; `file` is damaged, of a newer version, or no backup at all).
    """
    if not file.is_file():
        raise UsageProblem(f"there is no backup {file}")
    with instance.alone(), _part(instance.folder / f"restore{PART}") as part:
        pid = instance.process()
        if pid is not None:
            raise HeartbeatError(
                f"the local backend runs (process {pid}), and nothing was restored",
                hint="Stop it first: heartbeat local down",
            )
        _copy(file.absolute(), part, quiet=True)
        contents = _checked(part, str(file), inherited)
        yield Coming(instance, part, contents, _present(instance, inherited))


def _present(instance: Instance, inherited: Mapping[str, str]) -> Contents | str | None:
    if not (instance.database / DATABASE).exists():
        return None
    try:
        return _checked(instance.database, "what is there", inherited)
    except HeartbeatError as problem:  # a reason to restore, not to refuse it
        return str(problem)


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards, unless it was given another name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, part: Path, *, quiet: bool) -> None:
    """Copy a database, as of now, into the folder `part`, down to the disk.

    `quiet` says that nobody writes to it: a file without a log is then read as it lies, for SQLite would
    make one.
    """
    target = part / DATABASE
    os.close(open_private(target))
    place = f"{source.as_uri()}?mode=ro"
    if quiet and not source.with_name(f"{source.name}-wal").exists():
        place += "&immutable=1"
    try:
        with closing(sqlite3.connect(place, uri=True, isolation_level=None)) as old:
            # What a reader has begun to read stays as it is, and writers go on in the log: without this,
            # each of their commits would make the copy begin again
            old.execute("BEGIN")
            old.execute("SELECT count(*) FROM sqlite_master").fetchone()
            with closing(sqlite3.connect(target, isolation_level=None)) as new:
                new.execute("PRAGMA journal_mode=OFF")
                new.execute("PRAGMA synchronous=OFF")  # synced below, once
                old.backup(new, pages=STEP_PAGES, sleep=0)
                new.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise HeartbeatError(f"{source} cannot be copied to {part}: {error}") from None
    sync(target)


def _checked(folder: Path, what: str, inherited: Mapping[str, str]) -> Contents:
    """What is in the database of `folder`. Raises HeartbeatError when it is not whole, or too new."""
    report = _report(folder, inherited)
    if report["format"] is None and not report["problems"]:
        raise HeartbeatError(f"{what} is no backup of a local backend")
    if not report["ok"]:
        more = report["problemCount"] - PROBLEMS_SHOWN
        problems = "; ".join(report["problems"][:PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise HeartbeatError(f"{what} cannot be used: {problems}")
    return _contents(report)


def _contents(report: Mapping[str, Any]) -> Contents:
    # Convex's own tables begin with _: how scheduled functions are kept is nobody's concern here
    tables = {name: table["documents"] for name, table in sorted(report["tables"].items()) if name[0] != "_"}
    return Contents(tables, report["bytes"], report["lastCommitAt"])


def _report(folder: Path, inherited: Mapping[str, str]) -> dict[str, Any]:
    """The backend's own account of the data in a folder that no process uses."""
    command = [str(find_node(inherited)), str(find_code(None).program), "--check", "--data", str(folder)]
    try:
        done = subprocess.run(
            command,
            env=dict(inherited),
            capture_output=True,
            text=True,
            timeout=CHECKED_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HeartbeatError(f"the check of {folder} had not ended after {CHECKED_WITHIN_S:g} s") from None
    with contextlib.suppress(ValueError):
        report: dict[str, Any] = json.loads(done.stdout)
        return report
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise HeartbeatError(f"{folder} could not be checked: {said[-1]}")
