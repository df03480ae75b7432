"""What a file of the app imports, and from where. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from heartbeat_cli.adopt_code import Code, Unclear


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement: where it ends, from where it is, the names it brings, and its style."""

    end: int
    source: str
    names: frozenset[str]
    quote: str
    semicolon: str


_ATTRIBUTES = r"(?:\s*with\s*\{[^}]*\})?"


def imports(code: Code) -> list[Import]:
    """Those of a file. Raises `Unclear`."""
    found = []
    for match in code.finds(r"import(?=[\s{*\"'])"):
        if not code.outermost(match.start()):
            continue
        string = re.compile(rf"[^;\"']*([\"'])\0*\1{_ATTRIBUTES}[^\S\n]*(?P<semicolon>;)?").match(
            code.masked, match.end()
        )
        if string is None:
            raise Unclear("it has an import that is not understood")
        at = string.start(1)
        names = re.findall(r"[\w$]+", code.masked[match.end() : at])
        found.append(
            Import(
                string.end(), code.string_at(at), frozenset(names), code.text[at], string["semicolon"] or ""
            )
        )
    return found


def imported(code: Code, module: str) -> frozenset[str]:
    """The words in what is imported from this module. Raises `Unclear`."""
    sources = (module, f"{module}.js", f"{module}.ts")
    return frozenset(name for each in imports(code) if each.source in sources for name in each.names)


def imported_from(code: Code, name: str) -> tuple[str, ...]:
    """The module of the app's own that brings this name, where one does."""
    return tuple(each.source for each in imports(code) if name in each.names and each.source[:1] == ".")
