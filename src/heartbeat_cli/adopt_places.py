"""Where in an app's own files our lines belong: its imports, its tables, the table agents, its crons. Pure.

One entry of `PLACES` for each file that gains lines, and of `MODULES`; a further file is one more of each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from heartbeat_cli.adopt_code import Code, Entry, Unclear
from heartbeat_cli.adopt_imports import imported, imported_from, imports

TABLES, FIELD, CRONS = "heartbeatTables", "heartbeatField", "addHeartbeatCrons"
# spread into a schema, and known to hold neither agents nor tasks
OTHERS = frozenset({TABLES, "authTables"})
STEPS = 8  # names followed to where a table is defined; nobody goes through more
CRLF, LF = "\r\n", "\n"


class Clash(Unclear):
    """Why this app and the heartbeat functions cannot live together as they are: a sentence."""


@dataclass(frozen=True, slots=True)
class Insertion:
    """A text to be put in before the place `at` of another."""

    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """One line that a file gains: the `names` of ours in it, the line as it is told to people, where, and how
    it is found or placed.

    `there` and `place` raise `Unclear`; `place`, which is told the names of our tables, also `Clash`, where
    the app has something else of that name. One that may stand `anywhere` is there, too, when it stands in
    another file of the app, as a table may.
    """

    names: tuple[str, ...]
    line: str
    where: str
    there: Callable[[Code], bool]
    place: Callable[[Code, frozenset[str]], Insertion]
    anywhere: bool = False


# --- imports


def importing(names: Sequence[str], module: str) -> Place:
    """The line that imports these names of ours."""
    listed = ", ".join(names)

    def there(code: Code) -> bool:
        return imported(code, module) >= set(names)

    def place(code: Code, _: frozenset[str]) -> Insertion:
        have = imports(code)
        for name in names:
            declared = code.finds(rf"(?:const|let|var|function|class)\s+{name}(?![\w$])")
            if declared or any(name in each.names for each in have):
                raise Unclear(f"it has a {name} already")
        if not have:
            raise Unclear("it has no import to put this one below")
        last = have[-1]
        line = f"import {{ {listed} }} from {last.quote}{module}{last.quote}{last.semicolon}"
        return _below(code, last.end, line)

    line = f'import {{ {listed} }} from "{module}";'
    return Place(tuple(names), line, "below the other imports", there, place)


# --- objects


def _into(code: Code, brace: int, entry: str) -> Insertion:
    """As the first entry of the object literal at `brace`: on a line of its own where the others stand so."""
    first, close = code.after_blanks(brace + 1), code.closing(brace)
    if code.end_of_line(brace) < first:
        within = _indent(code.text, first) if first < close else _indent(code.text, close) + "  "
        return _below(code, brace, f"{within}{entry},")
    if first == close or code.text[brace + 1] == " ":
        return Insertion(brace + 1, f" {entry}," + (" " if code.text[brace + 1] == "}" else ""))
    return Insertion(brace + 1, f"{entry}, ")


def _below(code: Code, at: int, line: str) -> Insertion:
    """As a line of its own below the one of this place; a comment that begins there stays above."""
    text, end = code.text, code.end_of_line(at)
    if end == len(text):
        return Insertion(end, (CRLF if CRLF in text else LF) + line)
    return Insertion(end + 1, line + (CRLF if text[end - 1 : end] == "\r" else LF))


def _indent(text: str, at: int) -> str:
    line = text[text.rfind(LF, 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip())]


def _follow(code: Code, at: int, wanted: str, what: str) -> re.Match[str]:
    """The beginning of the expression at `at`, which is to match `wanted`: there, or where the name that
    stands there is given its value.
    """
    for _ in range(STEPS):
        at = code.after_blanks(at)
        found = re.compile(wanted).match(code.masked, at)
        if found:
            return found
        name = re.compile(_NAME).match(code.masked, at)
        if name is None:
            break
        at = _declared(code, name[1], what)
    head = re.compile(r"[\w$.]+").match(code.masked, at)
    raise Unclear(f"{what} is made by {head[0]}(…)" if head else f"{what} is not understood")


# alone, with indexes behind it, or as convex-helpers has it: `table` of what its Table(…) made
_NAME = r"([\w$]+)\s*(?:\.\s*table\s*)?(?=[,;)}]|\.\s*(?:index|searchIndex|vectorIndex)\b)"


def _declared(code: Code, name: str, what: str) -> int:
    """Where the value of this name begins. A table may be used in many places; the fields of one must not,
    for they would gain ours everywhere.
    """
    found = _constant(code, name)
    if found is None:
        modules = imported_from(code, name)
        whence = f"imported from {modules[0]}" if modules else "which is not defined in this file"
        raise Unclear(f"{what} is {name}, {whence}", modules)
    value = code.after_blanks(found.end())
    used = len(re.findall(rf"(?<![\w$]){re.escape(name)}(?![\w$])", code.masked)) - 1
    a_table = re.compile(rf"{_TABLE}|Table\s*\(").match(code.masked, value)
    if not a_table and (found["export"] or used > 1):
        raise Unclear(f"{what} is {name}, which is used elsewhere too")
    return value


def _constant(code: Code, name: str) -> re.Match[str] | None:
    """The beginning of the one constant of this name, up to its value."""
    found = code.finds(rf"(?P<export>export\s+)?const\s+{re.escape(name)}\s*(?::[^=;]*)?=(?![=>])")
    return found[0] if len(found) == 1 and code.outermost(found[0].start()) else None


_TABLE = r"(?:[\w$]+\s*\.\s*)?defineTable\s*\("


def _tables(code: Code) -> int:
    calls = list(re.finditer(r"(?<![\w$])(?<!function )defineSchema\s*\(", code.masked))
    if len(calls) != 1:
        raise Unclear("it calls defineSchema not exactly once")
    return _follow(code, calls[0].end(), r"\{", "what defineSchema gets").start()


def _entries(code: Code, brace: int, steps: int = STEPS) -> Iterator[Entry]:
    """Those of an object; for an object of this file that is spread into it, those of that."""
    for entry in code.entries(brace):
        name = re.compile(r"\.\.\.\s*([\w$]+)\s*[,}]").match(code.masked, entry.value)
        found = _constant(code, name[1]) if name and steps else None
        value = code.after_blanks(found.end()) if found else 0
        if found and code.masked[value] == "{":
            yield from _entries(code, value, steps - 1)
        else:
            yield entry


def _shown(code: Code) -> tuple[list[Entry], list[str]]:
    """The tables that the schema names, and, as it is written, whatever else may bring some into it."""
    entries = list(_entries(code, _tables(code)))
    unnamed = [
        re.compile(r"(?:\.\.\.\s*)?([\w$]*)").match(code.masked, e.value) for e in entries if not e.name
    ]
    return [entry for entry in entries if entry.name], [
        found[1] for found in unnamed if found and found[1] not in OTHERS
    ]


def _fields(code: Code) -> int:
    entries, others = _shown(code)
    agents = [entry for entry in entries if entry.name == "agents"]
    if len(agents) > 1:
        raise Unclear("it has two tables agents")
    if not agents:
        modules = tuple(module for name in others for module in imported_from(code, name))
        raise Unclear("it does not show a table agents" if others else "it has no table agents", modules)
    what = "the table agents"
    table = _follow(code, agents[0].value, _TABLE, what)
    fields = _follow(code, table.end(), r"[\w$]+\s*\.\s*object\s*\(|\{", what)
    return _follow(code, fields.end(), r"\{", what).start() if fields[0] != "{" else fields.start()


# --- the places


def _spread_tables(code: Code, our_tables: frozenset[str]) -> Insertion:
    brace = _tables(code)
    taken = sorted({entry.name for entry in _entries(code, brace) if entry.name} & our_tables)
    if taken:
        raise Clash(f"the schema has a table with the name of one of ours: {', '.join(taken)}")
    return _into(code, brace, f"...{TABLES}")


def _heartbeat_field(code: Code, _: frozenset[str]) -> Insertion:
    brace = _fields(code)
    if any(entry.name == "heartbeat" for entry in code.entries(brace)):
        raise Clash("the table agents has a field heartbeat of its own, and ours has that name")
    return _into(code, brace, f"heartbeat: {FIELD}")


def _call_crons(code: Code, _: frozenset[str]) -> Insertion:
    made = code.finds(r"(?:const|let|var)\s+([\w$]+)\s*(?::[^=;]*)?=\s*(?:[\w$]+\s*\.\s*)?cronJobs\s*\(\s*\)")
    if len(made) != 1 or not code.outermost(made[0].start()):
        raise Unclear("it has not exactly one variable that cronJobs() made")
    name = made[0][1]
    exports = code.finds(rf"export\s+default\s+{re.escape(name)}(?![\w$])")
    at = exports[0].start() if len(exports) == 1 else 0
    if not at or not code.outermost(at) or code.masked[at - 1] != LF:
        raise Unclear(f"it has no line that exports {name} as its default")
    semicolon = ";" if code.masked.startswith(";", code.after_blanks(exports[0].end())) else ""
    end = CRLF if code.text.startswith(CRLF, at - 2) else LF
    apart = end if code.text[:at].endswith(end * 2) else ""
    return Insertion(at, f"{CRONS}({name}){semicolon}{end}{apart}")


def _absent(name: str, fields: str) -> Place:
    """A table that the app has to have: what to paste where its schema has none. Nobody but the team can
    place it; it counts as there where it may be.
    """

    def there(code: Code) -> bool:
        try:
            entries, others = _shown(code)
        except Unclear:
            return True
        return bool(others) or any(entry.name == name for entry in entries)

    def place(code: Code, _: frozenset[str]) -> Insertion:
        raise Unclear(f"it has no table {name}")

    return Place((), f"{name}: defineTable({{ {fields} }}),", _IN_SCHEMA, there, place)


_IN_SCHEMA = "in the object that defineSchema gets"
# with these fields, fleet.ts passes the type check as it is copied
NEEDED: Mapping[str, tuple[Place, ...]] = {
    "schema": (
        _absent("agents", "name: v.string()"),
        _absent(
            "tasks",
            "title: v.string(), status: v.string(), assignees: v.array(v.string()), "
            "updatedAt: v.optional(v.number())",
        ),
    ),
    "crons": (),
}
MODULES: Mapping[str, str] = {"schema": "./heartbeat/tables", "crons": "./heartbeat/crons"}
PLACES: Mapping[str, tuple[Place, ...]] = {
    "schema": (
        Place(
            (TABLES,),
            f"...{TABLES},",
            _IN_SCHEMA,
            lambda code: bool(re.search(rf"\.\.\.\s*{TABLES}\b", code.masked)),
            _spread_tables,
            anywhere=True,
        ),
        Place(
            (FIELD,),
            f"heartbeat: {FIELD},",
            "among the fields of the table agents",
            lambda code: bool(code.finds(rf"heartbeat\s*:\s*{FIELD}\b")),
            _heartbeat_field,
            anywhere=True,
        ),
    ),
    "crons": (
        Place(
            (CRONS,),
            f"{CRONS}(crons);",
            "above export default crons",
            lambda code: bool(code.finds(rf"{CRONS}\s*\(")),
            _call_crons,
        ),
    ),
}


def all_lines(stem: str) -> tuple[Place, ...]:
    """Every line that this file may gain, with the whole import."""
    names = sorted(name for place in PLACES[stem] for name in place.names)
    return (importing(names, MODULES[stem]), *PLACES[stem])
