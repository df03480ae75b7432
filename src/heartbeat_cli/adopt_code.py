"""TypeScript or JavaScript in which only code can be found: comments and the insides of strings, templates
and regular expressions are blanked out, letter by letter, so that every place keeps its number. Pure.
 This is no parser. What it cannot tell with certainty (a slash that may divide or begin a regular expression,
a string that does not end, brackets that do not match) is `Unclear`, and then nobody edits the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

HIDDEN = "\0"  # for each letter inside a string, a template or a regular expression: no word, no blank
_PART = re.compile(
    r"""(?P<comment>//[^\n\r\u2028\u2029]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\n\r]|\\(?:\r\n|.))*"|'(?:[^'\\\n\r]|\\(?:\r\n|.))*')
      | (?P<word>[\w$]+)
      | (?P<blank>[\s\ufeff]+)
      | (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_REGEX = re.compile(r"/(?:[^\\/\[\n\r]|\\[^\n\r]|\[(?:[^\]\\\n\r]|\\[^\n\r])*\])+/[\w$]*")
# words after which a slash begins a regular expression, as no value has ended
_BEFORE_REGEX = frozenset(
    {"await", "case", "default", "delete", "do", "else", "export", "in", "instanceof", "new", "of"}
    | {"return", "throw", "typeof", "void", "yield"}
)
_PAIRS = {")": "(", "]": "[", "}": "{"}


class Unclear(Exception):
    """Why something cannot be placed with certainty: half a sentence for people. `modules`: those that are
    imported here and may hold the place for it.
    """

    def __init__(self, why: str, modules: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.modules = modules


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an object literal: its name (None: computed, or spread), and where its value begins, which
    for a shorthand is the name, and for a spread its dots.
    """

    name: str | None
    value: int


class Code:
    """A text, and `masked`: the same with blanks for comments and `HIDDEN` inside strings and their like.

    Raises `Unclear` for a text that cannot be told apart.
    """

    def __init__(self, text: str) -> None:
        if re.search(r"\r(?!\n)", text):
            raise Unclear("its lines end in carriage returns")
        parts: list[str] = []
        _scan(text, 0, parts, in_template=False)
        self.text = text
        self.masked = "".join(parts)
        self._match, self._depth = _brackets(self.masked)

    def closing(self, opening: int) -> int:
        """Where the bracket that opens at `opening` is closed."""
        return self._match[opening]

    def outermost(self, at: int) -> bool:
        """Whether this is inside no bracket."""
        return self._depth[at] == 0

    def after_blanks(self, at: int) -> int:
        """The first place from `at` on that is neither blank nor comment."""
        while at < len(self.masked) and (self.masked[at].isspace() or self.masked[at] == "\ufeff"):
            at += 1
        return at

    def end_of_line(self, at: int) -> int:
        """Where the first line break from `at` on is (one inside a comment is none), or the end."""
        found = self.masked.find("\n", at)
        return len(self.text) if found < 0 else found

    def finds(self, pattern: str) -> list[re.Match[str]]:
        """Where the code has it, beginning with a word of its own."""
        return list(re.finditer(rf"(?<![\w$.]){pattern}", self.masked))

    def string_at(self, at: int) -> str:
        """What the string that begins at `at` says, as it is written."""
        return self.text[at + 1 : self.masked.index(self.masked[at], at + 1)]

    def entries(self, brace: int) -> Iterator[Entry]:
        """Those of the object literal that begins at `brace`."""
        at, end = self.after_blanks(brace + 1), self._match[brace]
        while at < end:
            yield self._entry(at)
            while at < end and self.masked[at] != ",":
                at = self._match.get(at, at) + 1
            at = self.after_blanks(at + 1)

    def _entry(self, at: int) -> Entry:
        named = re.compile(r"([\w$]+)\s*(:|(?=[,}]))").match(self.masked, at)
        if named:
            return Entry(named[1], self.after_blanks(named.end()) if named[2] else at)
        quoted = re.compile(r"([\"'])\0*\1\s*:").match(self.masked, at)
        if quoted:
            return Entry(self.string_at(at), self.after_blanks(quoted.end()))
        return Entry(None, at)


def _scan(text: str, at: int, parts: list[str], *, in_template: bool) -> int:
    """Append the masked form of the code from `at` on; returns where it ends, in a template at its `}`."""
    before, braces = "", 0
    while at < len(text):
        part, kind = next((found[0], found.lastgroup) for found in _PART.finditer(text, at))
        if kind == "comment":
            parts.append(" " * len(part))
        elif kind == "blank":
            parts.append(part)
        elif part == "/":
            part = _slash(text, at, before)
            parts.append(part if len(part) == 1 else _hidden(part))
            before = part if len(part) == 1 else "]"  # a value has ended
        elif part == "`":
            part = text[at : _template_end(text, at + 1)]
            parts.append(_hidden(part))
            before = "]"
        elif kind == "string":
            parts.append(_hidden(part))
            before = "]"
        elif part in {'"', "'"}:
            raise Unclear("it has a string that does not end on its line")
        else:
            braces += {"{": 1, "}": -1}.get(part, 0)
            if in_template and braces < 0:
                return at
            parts.append(part)
            before = before + part if part in "+-" and before == part else part
        at += len(part)
    if in_template:
        raise Unclear("it has a template that does not end")
    return at


def _hidden(part: str) -> str:
    return part[0] + HIDDEN * (len(part) - 2) + part[0]


def _slash(text: str, at: int, before: str) -> str:
    """The regular expression that begins at this slash, or the slash alone, where it divides."""
    if text.startswith("/*", at):
        raise Unclear("it has a comment that does not end")
    word = before[:1].isalnum() or before[:1] in {"_", "$"}
    if (word and before not in _BEFORE_REGEX) or before == "]":
        return "/"
    found = _REGEX.match(text, at)
    if before in {")", "}", "++", "--"}:
        if found is None:
            return "/"
        raise Unclear("it has a slash that may divide or begin a regular expression")
    if found is None:
        raise Unclear("it has a regular expression that does not end")
    return found[0]


def _template_end(text: str, at: int) -> int:
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == "`":
            return at + 1
        elif text.startswith("${", at):
            at = _scan(text, at + 2, [], in_template=True) + 1
        else:
            at += 1
    raise Unclear("it has a template that does not end")


def _brackets(masked: str) -> tuple[dict[int, int], list[int]]:
    """Each opening bracket with its closing one, and how many are open at each place."""
    match: dict[int, int] = {}
    depth: list[int] = []
    opened: list[int] = []
    for at, char in enumerate(masked):
        if char in _PAIRS:
            if not opened or masked[opened[-1]] != _PAIRS[char]:
                raise Unclear("its brackets do not match")
            match[opened.pop()] = at
        depth.append(len(opened))
        if char in "([{":
            opened.append(at)
    if opened:
        raise Unclear("its brackets do not match")
    return match, [*depth, 0]
