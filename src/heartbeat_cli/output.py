"""What goes out: agents' text made harmless, the JSON envelope, lines and tables for people.

stdout is the answer, stderr is everything else. Text that an agent, a schedule or a deployment supplied is
data: it passes through `shown` before it reaches a terminal or the log, and never through anything that reads
markup. JSON is ASCII: its own escapes make every character harmless on a terminal too, and lose none.
"""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from heartbeat_cli.errors import HeartbeatError, ScheduleProblem
from heartbeat_cli.scrub import scrubbed

if TYPE_CHECKING:
    from rich.text import Text

SCHEMA = 1  # of the JSON envelope; raised only by a change that breaks a reader
SHOWN_LIMIT = 10_000  # characters of one text: cut before anything looks at it, so that 10 MB cost nothing
NARROWEST = 60  # columns; a table for less would show nothing, so the terminal wraps it
UNLIMITED = 100_000  # columns, for output that is piped: nothing is cut
ZERO_WIDTH_JOINER = "\u200d"  # inside emoji; harmless, and its escape would tear them apart
# Marks on one letter: no living script stacks more; a hundred of them paint over the lines above and below
MARKS_LIMIT = 5
MARKS = frozenset({"Mn", "Me"})


def shown(text: str, limit: int = SHOWN_LIMIT) -> str:
    r"""`text` on one line, with everything that a terminal might obey made visible.

    Control characters of both sets (escape sequences begin with one), line breaks, bidirectional and other
    invisible formatting characters and lone surrogates appear as `\x1b`, `\n`, `\u202e`, and so do more marks
    on one letter than any script has; other blanks become a plain one.
    """
    cut = text[:limit] + ("…" if len(text) > limit else "")
    if cut.isascii():
        return cut if cut.isprintable() else "".join(map(_visible, cut))
    out: list[str] = []
    marks = 0
    for char in cut:
        marks = marks + 1 if char == ZERO_WIDTH_JOINER or unicodedata.category(char) in MARKS else 0
        out.append(_escape(char) if marks > MARKS_LIMIT else char if marks else _visible(char))
    return "".join(out)


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    if char != "\n" and char.isspace() and ord(char) >= 0xA0 and char not in "\u2028\u2029":  # noqa: PLR2004 - NBSP on
        return " "
    return {"\n": "\\n", "\r": "\\r", "\t": " "}.get(char) or _escape(char)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


@dataclass(slots=True)
class Table:
    """Rows of cells under a header, which is left out when its titles are empty.

    The last column takes the width that the others leave, and wraps there. A cell is a plain text (made
    harmless here) or a rich `Text` that the caller has styled.
    """

    header: Sequence[str]
    rows: list[Sequence[str | Text]] = field(default_factory=list)
    last_lines: int = 2  # how many lines the last column may take on a terminal
    spare: int | None = None  # the column that is left out where it would take width from the last one


@dataclass(slots=True)
class Answer:
    """What a command found: `data` for JSON, `lines` for people (a table takes several), and the exit code.

    `says_deployment` marks an answer that names the deployment itself, or is to say nothing at all.
    """

    data: dict[str, Any]
    lines: Sequence[str | Text | Table] = ()
    exit_code: int = 0
    says_deployment: bool = False


def envelope(command: str, deployment: str | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """The one JSON object of a command that did what it was asked for."""
    return {"schema": SCHEMA, "ok": True, "command": command, "deployment": deployment, "data": data}


def failure(command: str, deployment: str | None, error: HeartbeatError) -> dict[str, Any]:
    """The envelope of a command that failed: what every error has, and what this one has besides."""
    detail = {"code": error.code, "message": str(error), "hint": error.hint, "exitCode": error.exit_code}
    detail |= error.details
    return {"schema": SCHEMA, "ok": False, "command": command, "deployment": deployment, "error": detail}


def tell(text: str) -> bool:
    """Lines of the answer on stdout, at once. False when they could not be written.

    A full disk or a reader that has seen enough changes nothing about what was done, or the exit code.
    """
    trouble = _write(sys.stdout, text)
    if trouble is not None and not isinstance(trouble, BrokenPipeError):
        say(f"heartbeat: the answer could not be written: {getattr(trouble, 'strerror', None) or trouble}")
    return trouble is None


def say(text: str) -> None:
    """One line on stderr, made harmless: everything that is not the answer. Where it cannot be written, it is
    not.
    """
    _write(sys.stderr, shown(text))


def say_notes(notes: Iterable[str]) -> None:
    """What else people should know of what was done, a line each on stderr."""
    for note in notes:
        say(f"heartbeat: {note}")


def _write(stream: TextIO, text: str) -> Exception | None:
    try:
        stream.write(scrubbed(text) + "\n")
        stream.flush()
    except (OSError, ValueError) as error:  # a full disk, a closed pipe, a closed stream
        return error
    return None


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line of stdout."""
    # ASCII only: JSON's own escapes make every control and bidirectional character harmless
    tell(json.dumps(value, ensure_ascii=True, separators=(", ", ": ")))


def say_error(error: HeartbeatError) -> None:
    """The error's sentence on stderr, each of its lines where there are several, and what to do next."""
    say(f"heartbeat: {error}")
    if isinstance(error, ScheduleProblem) and len(error.problems) > 1:
        for line, message in error.problems:
            say(f"  line {line}: {message}")
    if error.hint:
        say(f"  {error.hint}")


def print_answer(answer: Answer, *, colour: bool, columns: int | None) -> None:
    """The answer for people, on stdout: narrow and coloured on a terminal, whole and plain into a pipe."""
    if not answer.lines:
        return
    plain = [line for line in answer.lines if isinstance(line, str)]
    if len(plain) == len(answer.lines):
        tell("\n".join(map(shown, plain)))
        return
    text = io.StringIO()
    page = Page(text, look_of(sys.stdout, colour=colour, columns=columns))
    for line in answer.lines:
        if isinstance(line, Table):
            page.table(line)
        else:
            page.line(line)
    tell(text.getvalue().removesuffix("\n"))


@dataclass(frozen=True, slots=True)
class Look:
    """How a page looks: so many columns wide, with colours or not."""

    columns: int
    colour: bool


def look_of(stream: TextIO, *, colour: bool, columns: int | None) -> Look:
    """What `stream` is to be given, which depends on whether somebody looks at it: decided here, once."""
    terminal = stream.isatty()
    width = columns or (_terminal_width(stream) if terminal else UNLIMITED)
    return Look(max(NARROWEST, width), terminal and colour)


class Page:
    """What tables and lines are written to, for people."""

    def __init__(self, stream: TextIO, look: Look) -> None:
        from rich.console import Console  # noqa: PLC0415 - 60 ms that `send` does not pay

        self.width = look.columns
        self.console = Console(
            file=stream,
            width=self.width,
            force_terminal=look.colour,
            color_system="auto" if look.colour else None,
            no_color=not look.colour,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=False,
            legacy_windows=False,
            _environ={},  # the environment is config.py's to read
        )

    def line(self, text: str | Text) -> None:
        """One line, as long as it is: a terminal wraps it."""
        self.console.print(_text(text), soft_wrap=True)

    def table(self, table: Table) -> None:
        """All rows, each column as wide as the page lets it."""
        header = list(table.header)
        cells = [[_text(cell) for cell in row] for row in table.rows]
        widths = self._widths(header, cells)
        if table.spare is not None and widths[-1] < min(SPARE_LEAST, self._natural(header, cells)[-1]):
            del header[table.spare]
            for row in cells:
                del row[table.spare]
            widths = self._widths(header, cells)
        if any(header):
            self._row([_text(title, "bold") for title in header], widths)
        for row in cells:
            self._row(row, widths, last_lines=table.last_lines)

    def _widths(self, header: Sequence[str], cells: list[list[Text]]) -> list[int]:
        """Each column as wide as it needs; on a narrow page the first gives way to the last."""
        widths = self._natural(header, cells)
        room = self.width - GAP * (len(widths) - 1)
        share = min(widths[-1], max(LAST_LEAST, room // 4))
        over = sum(widths[:-1]) + share - room
        if over > 0:
            widths[0] = max(min(widths[0], FIRST_LEAST), widths[0] - over)
        widths[-1] = max(1, min(widths[-1], room - sum(widths[:-1])))
        return widths

    @staticmethod
    def _natural(header: Sequence[str], cells: list[list[Text]]) -> list[int]:
        return [
            max(len(title), *(row[index].cell_len for row in cells), 0) for index, title in enumerate(header)
        ]

    def _row(self, cells: Sequence[Text], widths: Sequence[int], *, last_lines: int = 1) -> None:
        *fixed, last = cells
        line = _text("")
        for cell, width in zip(fixed, widths, strict=False):
            cell.truncate(width, overflow="ellipsis")
            line.append_text(cell)
            line.append(" " * (width - cell.cell_len + GAP))
        indent = " " * line.cell_len
        wrapped = list(last.wrap(self.console, widths[-1], overflow="fold")) or [last]
        if len(wrapped) > last_lines:
            for part in wrapped:
                part.rstrip()  # the blank at which it was broken
            rest = _text(" ").join(wrapped[last_lines - 1 :])
            rest.truncate(widths[-1], overflow="ellipsis")
            wrapped = [*wrapped[: last_lines - 1], rest]
        for number, part in enumerate(wrapped):
            part.rstrip()
            start = line if number == 0 else _text(indent)
            whole = start.append_text(part)
            whole.rstrip()
            self.console.print(whole, soft_wrap=True)


GAP = 2  # blanks between columns
FIRST_LEAST = 12  # columns that the first column (a name) keeps on a narrow page
LAST_LEAST = 16  # columns that the last one (what was said) keeps
SPARE_LEAST = 40  # columns that the last one has to have before there is room for one that can be spared


def _text(value: str | Text, style: str = "") -> Text:
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(shown(value), style=style) if isinstance(value, str) else value


def _terminal_width(stream: TextIO) -> int:
    import os  # noqa: PLC0415 - with the terminal at hand only

    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
