"""Changes to the files of a folder: all looked at first, then made in their order, each in one step.

    as planned? ──▶ may everything be written? ──▶ one file after the other ──▶ folders that are empty again
         └─▶ nothing was written    └─▶ nothing was written    └─▶ cut short: what comes next is not done

A new content is first written to `heartbeat/.writing`, in a folder that is ours, so that a crash leaves
nothing strange among the team's files.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from heartbeat_cli import private_files
from heartbeat_cli.errors import FunctionsProblem

OURS = "heartbeat"
WRITING = f"{OURS}/.writing"
ALONE_S = 10  # for another of ours in the same folder: it writes some thirty small files


@dataclass(frozen=True, slots=True)
class Change:
    """A file, by its path in the folder, as it was looked at and as it is to be (None: no such file)."""

    path: str
    was: bytes | None
    now: bytes | None


def read(folder: Path, path: str) -> bytes | None:
    """What a file holds; None where there is none. Raises `FunctionsProblem`."""
    try:
        return (folder / path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FunctionsProblem(f"{folder / path} cannot be read: {error.strerror}", paths=[path]) from None


def begun(folder: Path) -> set[str]:
    """Our folder, where a crash left it before anything was in it."""
    try:
        left = {file.name for file in (folder / OURS).iterdir()}
    except OSError:
        return set()
    return set() if left - {Path(WRITING).name} else {OURS}


def carry_out(folder: Path, changes: Sequence[Change], emptied: Sequence[str], again: str) -> None:
    """Make the changes, then delete those of the folders `emptied` that hold nothing any more.

    `again`: what a person may type after it was cut short. Raises `FunctionsProblem`, with everything as it
    was when the folder is not as it was looked at, or cannot be written.
    """
    with private_files.alone_in(folder, ALONE_S):
        check(folder, changes)
        try:
            for change in changes:
                with _telling(folder / change.path, again):
                    _make(folder, change)
                if change.now is None:
                    _drop_empty(folder, emptied)
        finally:
            with suppress(OSError):
                (folder / WRITING).unlink()
            _drop_empty(folder, (*emptied, OURS))


def check(folder: Path, changes: Sequence[Change]) -> None:
    """Raises `FunctionsProblem` where the folder is not as it was looked at, or cannot be written."""
    seen: set[str] = set()
    for change in changes:
        if change.path not in seen and read(folder, change.path) != change.was:
            raise FunctionsProblem(
                f"{folder / change.path} was changed meanwhile, so nothing was written", hint="try again"
            )
        seen.add(change.path)
        _may_write(folder, folder / change.path)


def tidy(folder: Path) -> None:
    """Our folder goes, where a crash left it with nothing in it."""
    for name in begun(folder):
        with suppress(OSError):
            (folder / WRITING).unlink()
        _drop_empty(folder, [name])


def _may_write(folder: Path, file: Path) -> None:
    """A file is replaced in its folder, or its folder is made in the nearest that there is."""
    above = file.parent
    while not above.exists() and above != folder:
        above = above.parent
    if not above.resolve().is_relative_to(folder.resolve()):
        raise FunctionsProblem(f"{above} leads out of {folder}, so nothing was written")
    for place in (above, file):
        if place.exists() and not os.access(place, os.W_OK):
            raise FunctionsProblem(
                f"{place} cannot be written, so nothing was", hint=f"see ls -ld {shlex.quote(str(place))}"
            )


def _make(folder: Path, change: Change) -> None:
    file, writing = folder / change.path, folder / WRITING
    if change.now is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    writing.parent.mkdir(exist_ok=True)
    with writing.open("wb") as out:
        out.write(change.now)
        out.flush()
        os.fsync(out.fileno())
    if change.was is not None:
        with suppress(FileNotFoundError):
            shutil.copymode(file, writing)
    writing.replace(file)


def _drop_empty(folder: Path, names: Sequence[str]) -> None:
    for name in sorted(names, key=len, reverse=True):
        with suppress(OSError):  # it is not empty
            (folder / name).rmdir()


@contextmanager
def _telling(file: Path, again: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FunctionsProblem(
            f"{file} cannot be written: {error.strerror}; what comes after it was not done",
            hint=f"mend that, then {again}",
        ) from None
