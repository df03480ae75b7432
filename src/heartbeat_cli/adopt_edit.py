"""The lines that an app's own `schema.ts` and `crons.ts` gain: where each belongs, and how it is taken back.
Pure.

    missing ──exactly one place is certain──▶ there       the file keeps its indentation, line ends and quotes
       └──────anything else──▶ by hand                    the line is told, and why; nothing is guessed
    there   ──exactly as inserted──▶ gone, byte for byte as before
       ├──────on a line of its own (a formatter moved it)──▶ gone, with that line
       └──────anything else──▶ by hand
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heartbeat_cli.adopt_code import Code, Unclear
from heartbeat_cli.adopt_imports import imported
from heartbeat_cli.adopt_places import (
    CRLF,
    LF,
    MODULES,
    NEEDED,
    PLACES,
    Clash,
    Insertion,
    Place,
    all_lines,
    importing,
)

NO_CRONS = 'import { cronJobs } from "convex/server";\n\nconst crons = cronJobs();\n\nexport default crons;\n'


@dataclass(frozen=True, slots=True)
class Hand:
    """A line that a person has to write, or take out, where, and why."""

    line: str
    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line and how it stands: there, or to be put in (`insertion`), or a person's to write (`problem`)."""

    place: Place
    insertion: Insertion | None = None
    problem: Unclear | None = None

    @property
    def there(self) -> bool:
        """Whether nothing is to be done."""
        return self.insertion is None and self.problem is None

    @property
    def hand(self) -> Hand:
        """As it is told to a person."""
        return Hand(self.place.line, self.place.where, str(self.problem or ""))


@dataclass(frozen=True, slots=True)
class Edited:
    """A file with its lines: what was put in now, by its places in the text as it was, and how each stood."""

    text: str
    insertions: tuple[Insertion, ...]
    lines: tuple[Line, ...]

    @property
    def inserted(self) -> tuple[str, ...]:
        """The texts that were put in, exactly as they stand there."""
        return tuple(each.text for each in self.insertions)

    @property
    def by_hand(self) -> tuple[Hand, ...]:
        """What is left to a person."""
        return tuple(line.hand for line in self.lines if line.problem)


def edit(stem: str, text: str, our_tables: frozenset[str], elsewhere: frozenset[str] = frozenset()) -> Edited:
    """Give the file `stem` (`schema`, `crons`) those of its lines that it lacks; what of ours is used
    `elsewhere` is not lacking.

    Raises `Clash`.
    """
    lines = survey(stem, text, our_tables, elsewhere)
    for line in lines:
        if isinstance(line.problem, Clash):
            raise line.problem
    insertions = [line.insertion for line in lines if line.insertion]
    for insertion in sorted(insertions, key=lambda each: -each.at):
        text = text[: insertion.at] + insertion.text + text[insertion.at :]
    return Edited(text, tuple(insertions), tuple(lines))


def survey(
    stem: str, text: str, our_tables: frozenset[str], elsewhere: frozenset[str] = frozenset()
) -> list[Line]:
    """How each line of the file stands. Only what is used in it is imported: a compiler may refuse more. In a
    file that is not understood, a line is there when it may be.
    """
    try:
        code = Code(text)
    except Unclear as why:
        maybe = {name for place in PLACES[stem] for name in place.names if name in text} | elsewhere
        return [Line(place, problem=None if maybe >= {*place.names} else why) for place in all_lines(stem)]
    used: list[str] = []
    by_hand: list[str] = []
    lines: list[Line] = []
    for place in PLACES[stem]:
        if elsewhere >= set(place.names) and not place.there(code):
            lines.append(Line(place))
            continue
        line = _line(code, place, our_tables)
        lines.append(line)
        if line.problem is None:
            used += place.names
        elif not line.problem.modules:
            by_hand += place.names
    return [*_import(code, stem, used, by_hand), *lines]


def _import(code: Code, stem: str, used: Sequence[str], by_hand: Sequence[str]) -> Iterator[Line]:
    """The import of what is used, and that of what a person has to write."""
    module = MODULES[stem]
    try:
        have = imported(code, module)
    except Unclear as why:
        yield Line(importing(sorted({*used, *by_hand}), module), problem=why)
        return
    if used:
        lacking = sorted({*used} - have) or sorted(used)
        yield _line(code, importing(lacking, module), frozenset())
    if {*by_hand} - have:
        yield Line(
            importing(sorted({*by_hand} - have), module), problem=Unclear("for what is yours to write")
        )


def _line(code: Code, place: Place, our_tables: frozenset[str]) -> Line:
    try:
        return Line(place, None if place.there(code) else place.place(code, our_tables))
    except Unclear as why:
        return Line(place, problem=why)


def absent(stem: str, text: str) -> list[Line]:
    """The tables that the app has to have and has not, as far as that can be told."""
    try:
        code = Code(text)
    except Unclear:
        return []
    return [line for place in NEEDED[stem] if not (line := _line(code, place, frozenset())).there]


def left(stem: str, text: str) -> list[Place]:
    """The lines of ours in the file, whoever wrote them; in one that is not understood, those that may be."""
    try:
        code = Code(text)
        names = imported(code, MODULES[stem]) & {name for place in PLACES[stem] for name in place.names}
        brought = [importing(sorted(names), MODULES[stem])] if names else []
        return [*brought, *(place for place in PLACES[stem] if place.there(code))]
    except Unclear:
        return [place for place in all_lines(stem) if any(name in text for name in place.names)]


def take_back(text: str, inserted: Sequence[str]) -> str:
    """The text without what was inserted, as far as that can be told from the team's own."""
    for piece in inserted:
        text = _without(text, piece)
    return text


def _without(text: str, piece: str) -> str:
    if piece not in text:  # a checkout may have given the file other line ends
        piece = piece.replace(CRLF, LF).replace(LF, CRLF if CRLF in text else LF)
    bare = piece.strip()
    try:
        code = Code(text)
    except Unclear:
        return text
    found = [
        match.start()
        for match in re.finditer(re.escape(bare), text)
        if code.masked[match.start()] == bare[0]  # neither comment nor string
    ]
    if len(found) != 1:
        return text
    at = found[0]
    begins = max(0, at - (len(piece) - len(piece.lstrip())))
    exact = text.startswith(piece, begins)
    line, end = text.rfind(LF, 0, at) + 1, text.find(LF, at) + 1 or len(text)
    alone = text[line:end].strip() == bare
    if exact and (LF in piece or not alone):
        return text[:begins] + text[begins + len(piece) :]
    if alone:
        return text[:line] + text[end:]
    return text[:at] + text[at + len(bare) :].removeprefix(" ")
