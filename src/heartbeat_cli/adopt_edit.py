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
from collections.abc import Sequence
from dataclasses import dataclass

from heartbeat_cli.adopt_code import Code, Unclear
from heartbeat_cli.adopt_places import CRONS, FIELD, LF, PLACES, TABLES, Insertion

NO_CRONS = 'import { cronJobs } from "convex/server";\n\nconst crons = cronJobs();\n\nexport default crons;\n'


@dataclass(frozen=True, slots=True)
class Hand:
    """A line that a person has to write, or take out, where, and why."""

    line: str
    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Edited:
    """A file with its lines: what was put in now, by its places in the text as it was, and what was not."""

    text: str
    insertions: tuple[Insertion, ...]
    by_hand: tuple[Hand, ...]

    @property
    def inserted(self) -> tuple[str, ...]:
        """The texts that were put in, exactly as they stand there."""
        return tuple(each.text for each in self.insertions)


def edit(stem: str, text: str, our_tables: frozenset[str]) -> Edited:
    """Give the file `stem` (`schema`, `crons`) those of its lines that it lacks.

    Raises `Clash`.
    """
    try:
        code = Code(text)
    except Unclear as why:
        return Edited(text, (), tuple(by_hand(stem, str(why))))
    insertions: list[Insertion] = []
    hands: list[Hand] = []
    for place in PLACES[stem]:
        try:
            if not place.there(code):
                insertions.append(place.place(code, our_tables))
        except Unclear as why:
            hands.append(Hand(place.line, place.where, str(why)))
    for insertion in sorted(insertions, key=lambda each: -each.at):
        text = text[: insertion.at] + insertion.text + text[insertion.at :]
    return Edited(text, tuple(insertions), tuple(hands))


def by_hand(stem: str, why: str) -> list[Hand]:
    """All lines of the file, for a person."""
    return [Hand(place.line, place.where, why) for place in PLACES[stem]]


def there(stem: str, text: str) -> list[bool]:
    """Of each place of the file whether its line is there; in a file that is not understood, whether it may
    be.
    """
    try:
        code = Code(text)
        return [place.there(code) for place in PLACES[stem]]
    except Unclear:
        return [any(name in text for name in (TABLES, FIELD, CRONS))] * len(PLACES[stem])


def take_back(text: str, inserted: Sequence[str]) -> str:
    """The text without what was inserted, as far as that can be told from the team's own."""
    for piece in inserted:
        text = _without(text, piece)
    return text


def _without(text: str, piece: str) -> str:
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
