"""The file of an export, line by line: what docs/export-format.md says, read and written here only.

A header, records, checkpoints in between, an end with counts: one JSON object a line, in ASCII. A reader
believes nothing: what a line lacks, or holds of another kind, is a `BadFile` that names the line. Fields and
kinds that it does not know are left out, and told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from heartbeat_cli.errors import HeartbeatError, UsageProblem
from heartbeat_cli.move_records import KIND_OF, KINDS, QUOTED_MAX, RECORDS, TEXT, Misfit, one_of, shape
from heartbeat_cli.shapes import COUNT, INSTANT

WHAT = "convex-heartbeat export"
FORMAT = 1  # raised only by a change that a reader of the one before would misread
LINE_MAX = 4 * 2**20  # bytes; the longest heartbeat there can be takes a fifth of it
HEADER, CHECKPOINT, END = "header", "checkpoint", "end"


class BadFile(HeartbeatError):
    """A file that is no whole export; the message names it, and the line (from 1) that says so."""


_COUNTS = shape(dict.fromkeys((f"{kind}?" for kind in KINDS), COUNT))
_HEADER = shape({"what": TEXT, "format": COUNT, "from": TEXT, "at": INSTANT, "by?": TEXT})
_CHECKPOINT = shape(
    {
        "next": one_of(*KINDS),
        "cursor": lambda value: value is None or isinstance(value, str),
        "counts": _COUNTS,
        "sha256": TEXT,
    }
)
_END = shape({"counts": _COUNTS, "sha256": TEXT})
_CONTROL_LINES = {HEADER: _HEADER, CHECKPOINT: _CHECKPOINT, END: _END}


def _no_number(word: str) -> Any:
    raise ValueError(word)


def encoded(kind: str, value: Mapping[str, Any]) -> bytes:
    """One line, with its end."""
    return json.dumps({"kind": kind, **value}, separators=(",", ":")).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a known kind: its number (from 1), where the next one begins, its size in bytes, what it
    holds.
    """

    number: int
    end: int
    size: int
    kind: str
    value: dict[str, Any]


@dataclass(slots=True)
class Reader:
    """Reads the lines of an export, and keeps in mind what was left out, and the digest of what was read.

    `path`: what its errors call it. `verifies`: from the beginning on, digests are held against what was
    read; else they were before.
    """

    path: Path
    file: BinaryIO
    number: int = 0
    offset: int = 0
    verifies: bool = True
    ignored_kinds: set[str] = field(default_factory=set)
    ignored_fields: set[str] = field(default_factory=set)
    _digest: Any = field(default_factory=hashlib.sha256)
    _before: str = ""

    def lines(self) -> Iterator[Line]:
        """From here to the end of the file. Raises `BadFile`."""
        while raw := self.file.readline(LINE_MAX + 1):
            self.number += 1
            if not raw.endswith(b"\n"):
                raise self.bad("is longer than any record" if len(raw) > LINE_MAX else "is cut off")
            value = self._parsed(raw)
            kind = value.pop("kind", None)
            if not isinstance(kind, str):
                raise self.bad("is of no kind")
            if self.verifies:
                self._check_digest(kind, value)
                self._digest.update(raw)
            self.offset += len(raw)
            known = RECORDS.get(kind) or _CONTROL_LINES.get(kind)
            if known is None:
                self.ignored_kinds.add(kind[:QUOTED_MAX])
                continue
            try:
                fitted = known.fit(value, "", self.ignored_fields)
            except Misfit as misfit:
                raise self.bad(f"is no {kind}: {misfit}") from None
            yield Line(self.number, self.offset, len(raw), kind, fitted)

    def digest(self) -> str:
        """SHA-256 of all that was read."""
        return str(self._digest.hexdigest())

    def copied_digest(self) -> Any:
        """The SHA-256 of all that was read, to go on with."""
        return self._digest.copy()

    def bad(self, what: str) -> BadFile:
        """The error that this line is."""
        return BadFile(f"{self.path}, line {self.number}: it {what}")

    def _parsed(self, raw: bytes) -> dict[str, Any]:
        try:
            value = json.loads(raw, parse_constant=_no_number)
        except (ValueError, RecursionError):  # also what is no UTF-8
            raise self.bad("is no JSON") from None
        if not isinstance(value, dict):
            raise self.bad("is no JSON object")
        return value

    def _check_digest(self, kind: str, value: Mapping[str, Any]) -> None:
        """What is before a checkpoint, or the end, is what its writer wrote."""
        said = value.get("sha256")
        if kind in {CHECKPOINT, END} and said is not None and said != self.digest():
            since = self._before or "the beginning"
            raise self.bad(f"does not fit what is before it: something between {since} and here was changed")
        if kind == CHECKPOINT:
            self._before = f"line {self.number}"


@dataclass(frozen=True, slots=True)
class Verified:
    """A whole export: where it is from and from when (epoch ms), how many records of each kind it holds, the
    SHA-256 of all of it, the kinds and fields that were left out.
    """

    origin: str
    at: int
    counts: Mapping[str, int]
    digest: str
    ignored: tuple[str, ...]

    @property
    def total(self) -> int:
        """All records."""
        return sum(self.counts.values())


def verify(path: Path, called: Path | None = None) -> Verified:
    """Read all of a file: it is ours, of a format that we read, whole and unchanged. Raises `BadFile`.

    `called`: what errors call it, if it is a copy.
    """
    counts = dict.fromkeys(KINDS, 0)
    called = called or path
    with open_export(path) as file:
        reader = Reader(called, file)
        lines = reader.lines()
        head = header(reader, lines)
        end: Line | None = None
        for line in lines:
            if end is not None or line.kind == HEADER:
                raise reader.bad("comes after the end" if end else "is a second header")
            if line.kind in KIND_OF:
                counts[KIND_OF[line.kind]] += 1
            elif line.value["counts"] != {kind: counts[kind] for kind in line.value["counts"]}:
                raise reader.bad(f"counts {_told(line.value['counts'])}, and before it are {_told(counts)}")
            if line.kind == END:
                end = line
        if end is None:
            raise BadFile(f"{called} ends after line {reader.number}, without its end: it is no whole export")
        ignored = [f"lines of the kind {kind}" for kind in sorted(reader.ignored_kinds)]
        ignored += [f"the field {name}" for name in sorted(reader.ignored_fields)]
        return Verified(head["from"], int(head["at"]), counts, reader.digest(), tuple(ignored))


def header(reader: Reader, lines: Iterator[Line]) -> dict[str, Any]:
    """The first line, which says what the file is. Raises `BadFile`."""
    try:
        line = next(lines, None)
    except BadFile as bad:
        said = str(bad).removeprefix(f"{reader.path}, ")
        raise BadFile(f"{reader.path} is no export of ours: {said}") from None
    if line is None or line.kind != HEADER or line.value["what"] != WHAT:
        raise BadFile(f"{reader.path} is no export of ours: line 1 does not say that it is one")
    if line.value["format"] != FORMAT:
        raise BadFile(
            f"{reader.path}, line 1: it is of format {line.value['format']:g}, this program reads {FORMAT}",
            hint="a newer program writes it: update this one",
        )
    return line.value


def open_export(path: Path) -> BinaryIO:
    """A file to read. Raises `UsageProblem` where there is none."""
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error.strerror or error}") from None


def _told(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{int(number):,} {kind}" for kind, number in counts.items())
