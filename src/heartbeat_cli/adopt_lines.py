"""The team's own files that gain lines, as they are on the disk: what would be written into them, what is
there, what is taken back, and which others of their files use ours.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from heartbeat_cli import adopt_disk, adopt_edit
from heartbeat_cli.adopt_app import CODE, App
from heartbeat_cli.adopt_code import Code, Unclear
from heartbeat_cli.adopt_disk import Change
from heartbeat_cli.adopt_edit import NO_CRONS, Hand, Line
from heartbeat_cli.adopt_imports import imports
from heartbeat_cli.adopt_manifest import Edit, Manifest, digest
from heartbeat_cli.adopt_places import PLACES, Clash, Place, all_lines, importing
from heartbeat_cli.errors import FunctionsProblem

CONTEXT = 1  # lines shown around those that change
NOT_PUSHED = frozenset({"_generated", "node_modules"})
NO_NAMES = frozenset({"as", "default", "from", "import", "type"})  # words of an import that are its own
TAKE_OUT = "it is not as it was put in, or was put in by hand: take it out"


@dataclass(frozen=True, slots=True)
class Lines:
    """What becomes of one file: how it changes, what the manifest has to say of it then, and what a person
    has to do, each in its file, which may be another.
    """

    path: str
    change: Change | None
    record: Edit | None
    by_hand: tuple[tuple[str, Hand], ...]


def wanted(
    app: App, stem: str, manifest: Manifest, ours: Collection[str], our_tables: frozenset[str]
) -> Iterator[Lines]:
    """What has to be written into the file `stem`: none where all of it is there.

    Raises `FunctionsProblem` where the app has something else of a name of ours.
    """
    path, text, why_not = _file(app, stem)
    record = manifest.edit_of(path)
    if why_not is not None:
        hands = [(file, line.hand) for file, line in present(app, stem, ours, our_tables) if line.problem]
        yield Lines(path, None, record if record.inserted else None, tuple(hands))
        return
    created = text is None
    before = NO_CRONS if text is None else text
    try:
        edited = adopt_edit.edit(stem, before, our_tables, _elsewhere(app, stem, {*ours, path}))
    except Clash as clash:
        raise FunctionsProblem(
            f"{app.folder / path}: {clash}; nothing was written",
            paths=[path],
            hint="rename yours, then try again",
        ) from None
    change = None
    if edited.inserted:
        was = None if created else before.encode()
        now = edited.text.encode()
        change = Change(path, was, now)
        earlier = [piece for piece in record.inserted if adopt_edit.take_back(before, [piece]) != before]
        inserted = (*(() if created else earlier), *edited.inserted)
        record = Edit(path, inserted, digest(now) if created else record.created)
    told = _in_their_files(app, path, [*adopt_edit.absent(stem, before), *edited.lines])
    hands = [(file, line.hand) for file, line in told if line.problem]
    yield Lines(path, change, record if record.inserted else None, tuple(hands))


def present(
    app: App, stem: str, ours: Collection[str], our_tables: frozenset[str]
) -> Iterator[tuple[str, Line]]:
    """Each line of the file `stem` and how it stands, with the file that it belongs in."""
    path, text, why_not = _file(app, stem)
    elsewhere = _elsewhere(app, stem, {*ours, path})
    if text is None and why_not is not None:
        lines = [
            Line(place) if elsewhere >= {*place.names} else _not(place, why_not) for place in all_lines(stem)
        ]
    else:
        before = NO_CRONS if text is None else text
        lines = [*adopt_edit.absent(stem, before), *adopt_edit.survey(stem, before, our_tables, elsewhere)]
        if why_not is not None:
            lines = [_not(line.place, why_not) if line.insertion else line for line in lines]
    yield from _in_their_files(app, path, lines)


def _not(place: Place, why: str) -> Line:
    return Line(place, problem=Unclear(why))


def _elsewhere(app: App, stem: str, but: Collection[str]) -> frozenset[str]:
    """What of ours that may stand anywhere is used in the app's other files: a table may be in any. Those of
    tests, which have two dots in their names, are no part of what is pushed.
    """
    places = [place for place in PLACES[stem] if place.anywhere]
    found: set[str] = set()
    for path in _code_files(app.folder) if places else ():
        text = "" if path in but or "." in Path(path).stem else _text(app, path)
        if any(name in text for place in places for name in place.names):
            with suppress(Unclear):
                code = Code(text)
                found.update(name for place in places if place.there(code) for name in place.names)
    return frozenset(found)


def _in_their_files(app: App, path: str, lines: Iterable[Line]) -> Iterator[tuple[str, Line]]:
    """The lines, each with the file it belongs in: for what `path` only imports, that which has it, with an
    import of its own.
    """
    for line in lines:
        file = _holder(app, path, line.problem.modules) if line.problem else None
        if file is not None and line.problem and line.place.names:
            ours = posixpath.relpath("heartbeat/tables", posixpath.dirname(file) or ".")
            module = ours if ours[0] == "." else f"./{ours}"
            yield file, Line(importing(line.place.names, module), problem=line.problem)
        yield file or path, line


def _holder(app: App, path: str, modules: Sequence[str]) -> str | None:
    """The one file of these modules, as `path` names them, in which the table agents may be."""
    files = []
    for named in modules:
        module = posixpath.normpath(posixpath.join(posixpath.dirname(path), named))
        bare = module if posixpath.splitext(module)[1] not in CODE else posixpath.splitext(module)[0]
        tries = [f"{bare}{between}{suffix}" for between in ("", "/index") for suffix in sorted(CODE)]
        files += [file for file in tries if (app.folder / file).is_file()][:1]
    if len(files) > 1:
        files = [file for file in files if _names_agents(_text(app, file))]
    return files[0] if len(files) == 1 else None


def _names_agents(text: str) -> bool:
    """Whether its code does; in one that is not understood, it may."""
    try:
        return bool(Code(text).finds(r"agents\b"))
    except Unclear:
        return True


def _text(app: App, path: str) -> str:
    return (adopt_disk.read(app.folder, path) or b"").decode(errors="replace")


def taken_back(app: App, stem: str, manifest: Manifest) -> Iterator[Lines]:
    """What is to be done to the file `stem` so that nothing of ours is in it."""
    path, text, why_not = _file(app, stem)
    record = manifest.edit_of(path)
    if text is None:
        return
    was, after = text.encode(), text
    if why_not is None and record.created == digest(was):
        yield Lines(path, Change(path, was, None), None, ())
        return
    if why_not is None:
        after = adopt_edit.take_back(text, record.inserted)
    hands = [
        (path, Hand(place.line, place.where, why_not or TAKE_OUT)) for place in adopt_edit.left(stem, after)
    ]
    yield Lines(path, None if after == text else Change(path, was, after.encode()), None, tuple(hands))


def _file(app: App, stem: str) -> tuple[str, str | None, str | None]:
    """The file's name, what it says (None: nothing that can be read), and, where we may not write it, why."""
    name = app.code_file(stem)
    if name is None:
        path = stem + (".js" if app.code_file("schema") == "schema.js" else ".ts")
        blocked = app.in_the_way(path)
        missing = (
            None if stem == "crons" else f"there is no {path}: write one with your tables, and with this"
        )
        return path, None, f"{blocked} is in its place" if blocked else missing
    content = adopt_disk.read(app.folder, name) or b""
    linked = "it is a link to another file" if (app.folder / name).is_symlink() else None
    try:
        return name, content.decode(), linked
    except UnicodeDecodeError:
        return name, None, "it is not in UTF-8"


def uses(app: App, ours: Collection[str]) -> Iterator[tuple[str, Hand]]:
    """Where files of the team's import ours, or use what they import, with the line."""
    modules = {posixpath.splitext(path)[0] for path in ours}
    skipped = {*ours, *(f"{stem}{suffix}" for stem in PLACES for suffix in CODE)}

    def is_ours(path: str, named: str) -> bool:
        module = posixpath.normpath(posixpath.join(posixpath.dirname(path), named))
        return named[:1] == "." and bool({module, posixpath.splitext(module)[0]} & modules)

    for path in _code_files(app.folder):
        text = "" if path in skipped else _text(app, path)
        names: set[str] = set()
        try:
            code = Code(text)
            masked = code.masked
            names.update(*(each.names for each in imports(code) if is_ours(path, each.source)))
        except Unclear:
            masked = re.sub(r"(?<=[\"'])[^\"'\n]*(?=[\"'])", lambda found: "\0" * len(found[0]), text)
        named = [
            at.start()
            for at in re.finditer(r"([\"'])(\0+)\1", masked)
            if is_ours(path, text[at.start(2) : at.end(2)])
        ]
        called = [at.start() for at in re.finditer(r"(?<![\w$.])[\w$]+", masked) if at[0] in names - NO_NAMES]
        for number in sorted({text.count("\n", 0, at) + 1 for at in (*named, *called)}):
            line = text.splitlines()[number - 1].strip()
            yield path, Hand(line, f"line {number}", "it uses what would be gone: take it out")


def _code_files(folder: Path) -> Iterator[str]:
    for above, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_PUSHED and name[0] != ".")
        for name in sorted(files):
            file = Path(above, name)
            if file.suffix in CODE and name[0] != ".":
                yield file.relative_to(folder).as_posix()


def diff(change: Change) -> Iterator[str]:
    """How a file changes, for people: its name, then lines with + and -, and some around them."""
    yield f"{change.path}:" + (" (new)" if change.was is None else " (deleted)" if change.now is None else "")
    sides = [(side or b"").decode(errors="replace").split("\n") for side in (change.was, change.now)]
    before, after = ([line.removesuffix("\r") for line in side] for side in sides)
    found = difflib.unified_diff(before, after, n=CONTEXT, lineterm="")
    for number, line in enumerate(list(found)[2:]):
        if not line.startswith("@@"):
            yield f"  {line[:1]} {line[1:]}".rstrip()
        elif number:
            yield "    …"
