"""The team's own files that gain lines, as they are on the disk: what would be written into them, what is
there, what is taken back, and which others of their files use ours.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heartbeat_cli import adopt_disk, adopt_edit
from heartbeat_cli.adopt_app import CODE, App
from heartbeat_cli.adopt_code import Code, Unclear
from heartbeat_cli.adopt_disk import Change
from heartbeat_cli.adopt_edit import NO_CRONS, Hand
from heartbeat_cli.adopt_manifest import Edit, Manifest, digest
from heartbeat_cli.adopt_places import PLACES, Clash, Place
from heartbeat_cli.errors import FunctionsProblem

CONTEXT = 1  # lines shown around those that change
NOT_PUSHED = frozenset({"_generated", "node_modules"})
TAKE_OUT = "it is not as it was put in, or was put in by hand: take it out"


@dataclass(frozen=True, slots=True)
class Lines:
    """What becomes of one file: how it changes, what the manifest has to say of it then, and what a person
    has to do.
    """

    path: str
    change: Change | None
    record: Edit | None
    by_hand: tuple[Hand, ...]


def wanted(app: App, stem: str, manifest: Manifest, our_tables: frozenset[str]) -> Iterator[Lines]:
    """What has to be written into the file `stem`: none where all of it is there.

    Raises `FunctionsProblem` where the app has something else of a name of ours.
    """
    path, text, why_not = _file(app, stem)
    record = manifest.edit_of(path)
    if why_not is not None:
        places = zip(PLACES[stem], [is_there for *_, is_there in present(app, stem)], strict=True)
        hands = [Hand(place.line, place.where, why_not) for place, is_there in places if not is_there]
        yield Lines(path, None, record if record.inserted else None, tuple(hands))
        return
    created = text is None
    before = NO_CRONS if text is None else text
    try:
        edited = adopt_edit.edit(stem, before, our_tables)
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
    yield Lines(path, change, record if record.inserted else None, edited.by_hand)


def present(app: App, stem: str) -> Iterator[tuple[str, Place, bool]]:
    """Each line of the file `stem`, and whether it is there."""
    path, text, _ = _file(app, stem)
    there = [False] * len(PLACES[stem]) if text is None else adopt_edit.there(stem, text)
    yield from ((path, place, is_there) for place, is_there in zip(PLACES[stem], there, strict=True))


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
    still = zip(PLACES[stem], adopt_edit.there(stem, after), strict=True)
    hands = [Hand(place.line, place.where, why_not or TAKE_OUT) for place, is_there in still if is_there]
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


def uses(app: App, ours: Sequence[str]) -> Iterator[tuple[str, Hand]]:
    """Where files of the team's import ours, with the line."""
    modules = {posixpath.splitext(path)[0] for path in ours}
    skipped = {*ours, *(f"{stem}{suffix}" for stem in PLACES for suffix in CODE)}
    for path in _code_files(app.folder):
        if path in skipped:
            continue
        text = (adopt_disk.read(app.folder, path) or b"").decode(errors="replace")
        try:
            masked = Code(text).masked
        except Unclear:
            masked = re.sub(r"(?<=[\"'])[^\"'\n]*(?=[\"'])", lambda found: "\0" * len(found[0]), text)
        for found in re.finditer(r"([\"'])(\0+)\1", masked):
            named = text[found.start(2) : found.end(2)]
            if not named.startswith("."):
                continue
            module = posixpath.normpath(posixpath.join(posixpath.dirname(path), named))
            if module in modules or posixpath.splitext(module)[0] in modules:
                number = text.count("\n", 0, found.start()) + 1
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
