"""Taking in an export: all of the file is verified, then sent in calls that may be repeated.

    verified ──▶ a batch ──answered──▶ the next, …, the last ──▶ done
                   ▲ the place of the last answered batch is kept in the data folder; next time that batch is
                   └ sent again, and if the deployment knows it, it goes on there, else from the beginning

The functions know what they have: the place saves time, and is never believed; the first batch is sent again
too. It is kept by what is in the file and where it goes, so that another name for the file, or another file
of that name, changes nothing. None is kept past agents: they are few, and a deployment that has nothing else
may know them from its schedule.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartbeat_cli.move_ends import End, Patient, Told
from heartbeat_cli.move_format import Line, Reader, Verified, open_export, verify
from heartbeat_cli.move_records import KIND_OF, KINDS
from heartbeat_cli.private_files import replace

if TYPE_CHECKING:
    from heartbeat_cli.client import Connection

IMPORT = "mutations/importRecords"
BATCH = 200  # records of one call, the most that the functions take
BATCH_BYTES = 500_000  # of lines in one call, unless one alone is longer: 8 s on a line of half a megabit
KEPT_EACH_S = 1.0  # the place: each time costs an fsync, and being behind costs a second of work
FORGOTTEN_AFTER_S = 30 * 24 * 3600  # places of imports that nobody went on with
REFUSED_KEPT = 100  # of the refused, with why; more are counted


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A record that the deployment did not take: its line, and why."""

    line: int
    code: str
    message: str


@dataclass(slots=True)
class Taken:
    """What became of the records of one kind: stored; of agents, changed; known before; refused."""

    recorded: int = 0
    updated: int = 0
    known: int = 0
    refused: int = 0


@dataclass(slots=True)
class Imported:
    """What an import did, also in the tries before that it went on from; the first of the refused lines."""

    taken: dict[str, Taken] = field(default_factory=lambda: {kind: Taken() for kind in KINDS})
    refused: list[RefusedLine] = field(default_factory=list)
    went_on_from: int = 0  # records

    @property
    def refused_count(self) -> int:
        """All of the refused."""
        return sum(taken.refused for taken in self.taken.values())


@dataclass(frozen=True, slots=True)
class _Place:
    """How far it got: the byte behind the last answered batch, the lines and records before that, what became
    of them; and the byte where that batch begins.
    """

    offset: int = 0
    number: int = 0
    records: int = 0
    done: Imported = field(default_factory=Imported)
    last: int = 0


def import_file(
    target: End, file: Path, places: Path, told: Told, called: Path | None = None
) -> tuple[Verified, Imported]:
    """Take all records of `file` into `target`, each once, whatever was taken before.

    `places`: the folder for places. `called`: what `file` is a copy of. Raises BadFile or UsageProblem before
    anything was sent, Refused, Unreachable; what was sent by then is taken.
    """
    told.progress(f"reading {called or file}")
    verified = verify(file, called)
    kept = _Keeper.of(places, verified.digest, target.url)
    patient = Patient(target, BATCH, told)
    try:
        place = kept.load()
        if place.offset and not _is_known(patient, file, place):
            place = _Place()
        done = _send(patient, file, place, verified.total, kept.save)
    finally:
        patient.close()
    kept.forget()
    return verified, done


def _send(
    patient: Patient, file: Path, place: _Place, total: int, save: Callable[[_Place], None]
) -> Imported:
    done, records = place.done, place.records
    done.went_on_from = records
    keeps = True
    for batch in _batches(file, place.offset, place.number):
        left = batch
        while left:
            answer = _taken(patient, left)
            sent, left = left[: patient.size], left[patient.size :]
            _count(done, sent, answer)
        records += len(batch)
        keeps = keeps and batch[0].kind != KINDS["agents"]
        if keeps:
            save(_Place(batch[-1].end, batch[-1].number, records, done, batch[0].end - batch[0].size))
        patient.told.progress(f"{records:,} of {total:,} records")
    return done


def _taken(patient: Patient, lines: list[Line]) -> dict[str, Any]:
    kind = KIND_OF[lines[0].kind]

    def call(caller: Connection, size: int) -> dict[str, Any]:
        body = {"kind": kind, "records": [line.value for line in lines[:size]]}
        return caller.mutation(IMPORT, "request", body)

    return patient.ask(call)


def _count(done: Imported, sent: list[Line], answer: Mapping[str, Any]) -> None:
    taken = done.taken[KIND_OF[sent[0].kind]]
    taken.recorded += int(answer["recorded"])
    taken.updated += int(answer["updated"])
    taken.known += int(answer["known"])
    taken.refused += len(answer["refused"])
    for refusal in answer["refused"][: REFUSED_KEPT - len(done.refused)]:
        index = int(refusal["index"])
        line = sent[index].number if index < len(sent) else sent[-1].number
        done.refused.append(RefusedLine(line, refusal["code"], refusal["message"]))


def _batches(file: Path, offset: int, number: int = 0) -> Iterator[list[Line]]:
    """Records of one kind that follow on each other, as many as one call takes; from byte `offset` on, before
    which are so many lines.
    """
    batch: list[Line] = []
    size = 0
    with open_export(file) as opened:
        opened.seek(offset)
        for line in Reader(file, opened, number, offset, verifies=False).lines():
            if line.kind not in KIND_OF:
                continue
            full = len(batch) >= BATCH or size + line.size > BATCH_BYTES
            if batch and (full or line.kind != batch[0].kind):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += line.size
    if batch:
        yield batch


def _is_known(patient: Patient, file: Path, place: _Place) -> bool:
    """Whether the deployment has what it answered first and last: it may be another one by now, or an older
    backup.
    """
    answers = [_taken(patient, next(_batches(file, offset))) for offset in (0, place.last)]
    return all(answer["known"] and not answer["recorded"] for answer in answers)


@dataclass(slots=True)
class _Keeper:
    """Keeps the place of one import. A disk that does not take it only costs time."""

    file: Path
    saved_at: float = -KEPT_EACH_S

    @classmethod
    def of(cls, places: Path, digest: str, url: str) -> _Keeper:
        name = hashlib.sha256(f"{digest} {url}".encode()).hexdigest()[:32]
        return cls(places / f"{name}.json")

    def load(self) -> _Place:
        try:
            kept = json.loads(self.file.read_bytes())
            taken = {kind: Taken(**kept["taken"][kind]) for kind in KINDS}
            done = Imported(taken, [RefusedLine(**one) for one in kept["refused"]])
            place = [int(kept[name]) for name in ("offset", "number", "records")]
            return _Place(place[0], place[1], place[2], done, int(kept["last"]))
        except (OSError, ValueError, KeyError, TypeError):
            return _Place()

    def save(self, place: _Place) -> None:
        now = time.monotonic()
        if now - self.saved_at < KEPT_EACH_S:
            return
        self.saved_at = now
        kept = asdict(place)
        kept |= kept.pop("done")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace(self.file, json.dumps(kept).encode())

    def forget(self) -> None:
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)
            for other in self.file.parent.glob("*.json"):
                if time.time() - other.stat().st_mtime > FORGOTTEN_AFTER_S:
                    other.unlink()
