"""The tables of a markdown page, with the numbers of their lines. What is in them is not looked at. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

Line = tuple[int, list[str]]
"""Of a table: its number in the page, from 1, and its cells."""

_ALIGNMENT = re.compile(r":?-+:?")


def tables(text: str) -> tuple[list[list[Line]], list[Line]]:
    """Each markdown table as its lines, header first, without the alignment row; and the lines that begin as
    rows do and belong to none, which nobody may drop in silence.
    """
    lines = list(_prose(text.removeprefix("\ufeff")))
    found: list[list[Line]] = []
    lost: list[Line] = []
    inside = at_alignment = False
    for index, (line, bare) in enumerate(lines):
        if at_alignment:
            at_alignment = False
            continue
        cells = _cells(bare)
        following = lines[index + 1][1] if index + 1 < len(lines) else ""
        if inside and "|" in bare:
            found[-1].append((line, cells))
        elif "|" in bare and _is_alignment(following, len(cells)):
            inside = at_alignment = True
            found.append([(line, cells)])
        else:
            inside = False
            if bare.startswith("|"):
                lost.append((line, cells))
    return found, lost


def _is_alignment(line: str, width: int) -> bool:
    if "-" not in line:
        return False
    cells = _cells(line)
    return len(cells) == width and all(_ALIGNMENT.fullmatch(cell) for cell in cells)


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that markdown reads as text, with their numbers; a blank one stands for blank lines and code.

    Comments are left out as if they were not there. Indented lines are code only after a blank line, or code.
    """
    fence = ""
    in_comment = in_code = False
    after_blank = True
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r").expandtabs(4)
        bare = line.strip()
        opened = re.match(r"(`{3,}|~{3,})", bare)
        if fence:
            if bare and set(bare) == {fence[0]} and len(bare) >= len(fence):
                fence = ""
            continue
        if in_comment or bare.startswith("<!--"):
            in_comment = "-->" not in line
            continue
        in_code = bool(bare) and line.startswith("    ") and (in_code or after_blank)
        after_blank = not bare
        if opened and not in_code:
            fence = opened[1]
        yield number, "" if in_code or fence else bare


def _cells(line: str) -> list[str]:
    r"""The cells of a table line; `\|` is a | inside a cell, backticks around a cell are left out."""
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith(r"\|"):
        inner = inner[:-1]
    return [_cell(part) for part in re.split(r"(?<!\\)\|", inner)]


def _cell(part: str) -> str:
    text = part.strip().replace(r"\|", "|")
    if len(text) > 1 and text[0] == text[-1] == "`":
        return text.strip("`").strip()
    # people escape the stars of a cron expression for markdown's sake
    return re.sub(r"\\([*_`])", r"\1", text)
