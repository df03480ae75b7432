"""Writing an export: resumable, and there as a whole or not at all.

    (nothing) ──first page──▶ FILE.part ──page and checkpoint, again and again──▶ the end, synced ──▶ FILE
                                  ▲    killed at any instant    │
                                  └── next time: cut to its last whole checkpoint, and on from there; but
                                      anew after an hour, for what is in it is as of then

A checkpoint carries the digest of everything before it, so that a part is believed up to exactly where it is
what was written. One process at a time writes a part, under a lock on it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from heartbeat_cli import __version__
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable, UsageProblem
from heartbeat_cli.move_ends import End, Patient, Told
from heartbeat_cli.move_format import (
    CHECKPOINT,
    END,
    FORMAT,
    HEADER,
    WHAT,
    BadFile,
    Reader,
    encoded,
    header,
)
from heartbeat_cli.move_records import KINDS, Misfit, checked
from heartbeat_cli.private_files import open_private, sync, try_lock, writing

if TYPE_CHECKING:
    from heartbeat_cli.client import Connection

EXPORT = "queries/exportRecords"
BY = f"convex-heartbeat {__version__}"
PART = ".part"
STALE_AFTER_MS = 3_600_000  # a part: what agents say at its end would be of heartbeats that are not in it
PAGE = (
    500  # records of one call: some 300 kB, the most often; the functions end a page of longer ones earlier
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file holds now: how many records of each kind, in how many bytes; `went_on_from` of them were
    there from an export that was cut off.
    """

    file: Path
    counts: Mapping[str, int]
    size: int
    went_on_from: int


def part_of(file: Path) -> Path:
    """Where `file` grows until it is whole."""
    return file.with_name(file.name + PART)


@dataclass(slots=True)
class _Place:
    """How far a part got: where the next page begins, how many records there are, and their digest."""

    next: str = next(iter(KINDS))
    cursor: str | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    offset: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def export(source: End, file: Path, told: Told, *, force: bool, at: int) -> Exported:
    """Write all that `source` has recorded into `file`; goes on with what an earlier try left beside it.

    `at`: now, in epoch ms. What is recorded meanwhile comes at the end of its kind, or is left for the next
    export. Raises UsageProblem (`file` exists and `force` is not given, or cannot be one),
    SettingsProblem (it cannot be written), Refused, Unreachable; the part then stays, unless it is empty.
    """
    file = file.absolute()
    part = part_of(file)
    with writing(file):
        _check(file, part, force=force)
    with writing(file), _locked(part) as out:
        head = {"what": WHAT, "format": FORMAT, "from": source.url, "at": at, "by": BY}
        place = _resumed(out, part, head, told, force=force)
        went_on_from = place.total
        patient = Patient(source, PAGE, told)
        try:
            _write(patient, out, place, head)
        except Refused as refused:
            if not went_on_from or refused.data.get("field") != "cursor":
                raise
            told.note("the deployment does not know any more where the last try was: beginning anew")
            place, went_on_from = _begin(out), 0
            _write(patient, out, place, head)
        finally:
            patient.close()
        out.flush()
        os.fsync(out.fileno())
        part.replace(file)
        sync(file.parent)
    return Exported(file, place.counts, place.offset, went_on_from)


def _check(file: Path, part: Path, *, force: bool) -> None:
    """Raise UsageProblem if a file cannot be put there, or may not. Nothing but a file is ever replaced: no
    pipe, no device, no link, which leads to what another program reads.
    """
    if file.is_dir():
        raise UsageProblem(f"{file} is a folder", hint="Name a file in it.")
    for place in (file, part):
        if place.is_symlink() or (place.exists() and not place.is_file()):
            raise UsageProblem(f"{place} is no plain file", hint="Name another, or - for standard output.")
    if file.exists() and not force:
        raise UsageProblem(f"{file} exists", hint="Name another file, or add --force to replace it.")


def _write(patient: Patient, out: BinaryIO, place: _Place, head: Mapping[str, Any]) -> None:
    """Everything from `place` on, the end too; `place` tells then how much there is."""
    kinds = list(KINDS)
    for kind in kinds[kinds.index(place.next) :]:
        done = False
        while not done:
            page = _page(patient, kind, place.cursor)
            if place.offset == 0:
                _append(out, place, encoded(HEADER, head))
            records = page["records"]
            _append(out, place, b"".join(_lines(patient.end.url, kind, records)))
            place.counts[kind] += len(records)
            before, place.cursor, done = place.cursor, page["continueCursor"], page["isDone"]
            if not done and place.cursor == before:
                raise Unreachable(f"{EXPORT} at {patient.end.url} does not get on", cause="server_error")
            following = kinds[kinds.index(kind) + 1 :]
            if not done:
                _checkpoint(out, place, kind)
            elif following:
                place.cursor = None
                _checkpoint(out, place, following[0])
            patient.told.progress(f"{place.total:,} records")
    _append(out, place, encoded(END, {"counts": place.counts, "sha256": place.digest.hexdigest()}))


def _page(patient: Patient, kind: str, cursor: str | None) -> dict[str, Any]:
    def call(caller: Connection, size: int) -> dict[str, Any]:
        return caller.query(EXPORT, "request", {"kind": kind, "cursor": cursor, "limit": size})

    return patient.ask(call)


def _lines(url: str, kind: str, records: list[dict[str, Any]]) -> Iterator[bytes]:
    for record in records:
        try:
            checked(KINDS[kind], record)
        except Misfit as misfit:
            raise Unreachable(
                f"{EXPORT} at {url} answered something that is no {KINDS[kind]}: {misfit}",
                cause="server_error",
            ) from None
        yield encoded(KINDS[kind], record)


def _append(out: BinaryIO, place: _Place, data: bytes) -> None:
    out.write(data)
    place.offset += len(data)
    place.digest.update(data)


def _checkpoint(out: BinaryIO, place: _Place, following: str) -> None:
    place.next = following
    mark = {"next": following, "cursor": place.cursor, "counts": place.counts}
    _append(out, place, encoded(CHECKPOINT, {**mark, "sha256": place.digest.hexdigest()}))
    out.flush()


def _resumed(out: BinaryIO, part: Path, head: Mapping[str, Any], told: Told, *, force: bool) -> _Place:
    """Where to go on in `out`, which is cut to there: its last checkpoint, or its beginning. `head`: what its
    header would be now.
    """
    place = _Place()
    reader = Reader(part, out)
    lines = reader.lines()
    try:
        if os.fstat(out.fileno()).st_size:
            found = header(reader, lines)
            if found["from"] != head["from"]:
                raise UsageProblem(f"{part} is of another deployment")
            if head["at"] - found["at"] > STALE_AFTER_MS:
                told.note(f"{part} was begun more than an hour ago: beginning anew")
                return _begin(out)
        for line in lines:
            if line.kind == CHECKPOINT:
                counts = dict.fromkeys(KINDS, 0) | line.value["counts"]
                cursor, digest = line.value["cursor"], reader.copied_digest()
                place = _Place(line.value["next"], cursor, counts, line.end, digest)
    except BadFile as bad:
        # what was being written when it was cut off; but a file that never was a part is somebody's
        if reader.number <= 1 and not force and not _torn(out):
            said = str(bad).removeprefix(f"{part}").removeprefix(" is no export of ours:").lstrip(", ")
            raise UsageProblem(f"{part} is in the way: {said}", hint="Remove it, or add --force.") from None
    except UsageProblem as problem:
        if not force:
            problem.hint = "Export from that one, or add --force to begin anew."
            raise
        place = _Place()
    out.seek(place.offset)
    out.truncate()
    return place


def _torn(out: BinaryIO) -> bool:
    """Whether it may be the beginning of a part of ours: cut off within its header, or never on the disk."""
    out.seek(0)
    begun = out.read(len(_BEGINNING))
    return not begun.strip(b"\0") or begun == _BEGINNING[: len(begun)]


_BEGINNING = encoded(HEADER, {"what": WHAT})[: -len("}\n")]


def _begin(out: BinaryIO) -> _Place:
    out.seek(0)
    out.truncate()
    return _Place()


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The part, made if there is none, for this process alone. It is gone afterwards if nothing is in it."""
    with os.fdopen(open_private(part, getattr(os, "O_NOFOLLOW", 0)), "r+b") as out:
        if try_lock(out.fileno()) is False:
            raise HeartbeatError(f"another export writes {part} just now")
        with suppress(OSError):
            if not os.path.samestat(os.fstat(out.fileno()), part.stat()):
                raise HeartbeatError(f"another export has just finished {part}")
        try:
            yield out
        finally:
            out.flush()
            if os.fstat(out.fileno()).st_size == 0:
                part.unlink(missing_ok=True)
