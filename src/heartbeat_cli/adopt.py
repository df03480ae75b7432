"""Our functions in an app that exists: what adding, updating and removing them would do, planned and then
done.

Each file of ours in the app is one of:

    missing    not there                                      add, update write it
    ours       as this program has it
    outdated   as we wrote it, and this program has another   update replaces it
    dropped    as we wrote it, and this program has none      update deletes it
    changed    not as we wrote it: the team's now             shown, and left (remove --changed takes it too)

A path that we did not write is never written: it is named, and nothing is done. Which files are ours, and
what we put into the team's, stands in the manifest (adopt_manifest.py, which says what a crash leaves).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from heartbeat_cli import adopt_disk, adopt_manifest
from heartbeat_cli.adopt_app import App, numbers
from heartbeat_cli.adopt_disk import Change
from heartbeat_cli.adopt_edit import Hand, Line
from heartbeat_cli.adopt_lines import diff, present, taken_back, uses, wanted
from heartbeat_cli.adopt_manifest import Manifest, digest
from heartbeat_cli.adopt_places import PLACES
from heartbeat_cli.adopt_sources import FLEET, Sources
from heartbeat_cli.errors import FunctionsProblem

State = Literal["missing", "ours", "outdated", "dropped", "changed"]
COMPLETED = "heartbeat functions add completes it, heartbeat functions remove takes it back"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done to an app's functions folder; nothing is, before `carry_out`.

    `added`, `replaced`, `deleted`, `kept` are files of ours (kept: changed by the team, and left). `diff` is
    what changes in the team's own files, and `differs` how those that were kept differ from ours, for people.
    `by_hand` are the lines that a person has to write, or take out, each with its file. `again` is what helps
    when it is cut short.
    """

    app: App
    changes: tuple[Change, ...] = ()
    emptied: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    by_hand: tuple[tuple[str, Hand], ...] = ()
    notes: tuple[str, ...] = ()
    again: str = COMPLETED

    def carry_out(self) -> None:
        """Do it. Raises `FunctionsProblem`, with everything as it was unless it says otherwise."""
        adopt_disk.carry_out(self.app.folder, self.changes, self.emptied, self.again)


@dataclass(frozen=True, slots=True)
class Found:
    """How an app's functions folder is: each file of ours with its state, each line with the file it belongs
    in.

    `news` are the files that the team changed and that this program has another version of than they were
    last shown.
    """

    manifest: Manifest | None
    files: Mapping[str, State]
    lines: tuple[tuple[str, Line], ...]
    news: tuple[str, ...]

    @property
    def cut_short(self) -> bool:
        """Whether something began to write and did not end."""
        return self.manifest is not None and bool(self.manifest.coming)


def look(app: App, sources: Sources) -> Found:
    """Only looks. Raises `FunctionsProblem` when the manifest, or a file, cannot be read."""
    manifest = adopt_manifest.read(app.folder)
    states = _states(app, manifest or Manifest(), sources)
    ours = {*states, *sources.files}
    lines = [line for stem in PLACES for line in present(app, stem, ours, sources.tables)]
    return Found(manifest, states, tuple(lines), tuple(_news(manifest or Manifest(), states, sources)))


def add(app: App, sources: Sources, *, write_lines: bool) -> Plan:
    """Our files into the folder, those that are missing; with `write_lines` also the lines of the team's
    files.

    Raises `FunctionsProblem` where a path of ours is taken, or the app has something else of a name of ours.
    """
    was = adopt_manifest.read(app.folder)
    manifest = was or Manifest()
    states = _states(app, manifest, sources)
    _nothing_in_the_way(app, manifest, sources)
    ours = {*states, *sources.files}
    lines = [each for stem in PLACES for each in wanted(app, stem, manifest, ours, sources.tables)]
    behind = any(state in {"outdated", "dropped"} for state in states.values())
    missing = () if behind else tuple(path for path, state in states.items() if state == "missing")
    records = tuple(each.record for each in lines if each.record) if write_lines else manifest.edits
    coming = {path: digest(sources.files[path]) for path in missing}
    during = Manifest(
        manifest.version if behind else sources.version,
        manifest.files,
        {**manifest.coming, **coming},
        records,
        _folders(app, manifest, missing),
    )
    after = during if behind else _settled(during, states, sources, shown={FLEET})
    theirs = [each.change for each in lines if each.change]
    files = [Change(path, None, sources.files[path]) for path in missing]
    return Plan(
        app,
        _framed(app, during, [*files, *(theirs if write_lines else [])], after),
        added=missing,
        diff=tuple(line for change in theirs for line in diff(change)),
        by_hand=tuple(hand for each in lines for hand in each.by_hand),
        notes=("the files are of another version than this program's: heartbeat functions update",) * behind,
    )


def update(app: App, sources: Sources) -> Plan:
    """Our files as this program has them; what the team changed is left. The team's own files are not
    touched.

    Raises `FunctionsProblem` when there is nothing of ours, it is of a newer version, or a new path is taken.
    """
    manifest = _there(app)
    if numbers(manifest.version) > numbers(sources.version):
        raise FunctionsProblem(
            f"the functions in {app.folder} are of version {manifest.version}, and this program's are older "
            f"({sources.version}); nothing was written",
            hint="update this program",
        )
    states = _states(app, manifest, sources)
    _nothing_in_the_way(app, manifest, sources)
    by_state = {word: tuple(path for path in states if states[path] == word) for word in set(states.values())}
    added, replaced = by_state.get("missing", ()), by_state.get("outdated", ())
    deleted = by_state.get("dropped", ())
    written = (*added, *replaced)
    coming = {path: digest(sources.files[path]) for path in written}
    during = Manifest(sources.version, manifest.files, coming, manifest.edits, _folders(app, manifest, added))
    after = _settled(during, states, sources, shown=states)
    changes = [Change(path, adopt_disk.read(app.folder, path), sources.files[path]) for path in written]
    changes += [Change(path, adopt_disk.read(app.folder, path), None) for path in deleted]
    news = _news(manifest, states, sources)
    return Plan(
        app,
        _framed(app, during, changes, after),
        tuple(name for name in manifest.folders if any(path.startswith(f"{name}/") for path in deleted)),
        added=added,
        replaced=replaced,
        deleted=deleted,
        kept=by_state.get("changed", ()),
        differs=tuple(_differs(app, news, sources)),
        again="heartbeat functions update completes it",
    )


def remove(app: App, sources: Sources, *, changed: bool) -> Plan:
    """Everything of ours out of the folder, as the manifest says; with `changed` also the files that the team
    changed. What of the team's own code still uses ours is named.

    Raises `FunctionsProblem` when there is nothing of ours.
    """
    manifest = _there(app)
    lines = [each for stem in PLACES for each in taken_back(app, stem, manifest)]
    contents = {path: adopt_disk.read(app.folder, path) for path in manifest.paths}
    there = {path: content for path, content in contents.items() if content is not None}
    theirs = [path for path, content in there.items() if not manifest.is_ours(path, content)]
    kept = () if changed else tuple(theirs)
    deleted = tuple(path for path in there if path not in kept)
    left = Manifest(manifest.version, {path: manifest.known(path) for path in kept}, folders=manifest.folders)
    raw = adopt_disk.read(app.folder, adopt_manifest.PATH)
    line_changes = [each.change for each in lines if each.change]
    hands = [hand for each in lines for hand in each.by_hand]
    shown = [path for path in theirs if path in sources.files and path != FLEET]
    return Plan(
        app,
        (
            *line_changes,
            *(Change(path, there[path], None) for path in deleted),
            Change(adopt_manifest.PATH, raw, left.dump() if kept else None),
        ),
        manifest.folders,
        deleted=deleted,
        kept=kept,
        diff=tuple(line for change in line_changes for line in diff(change)),
        differs=tuple(_differs(app, shown, sources)),
        by_hand=(*hands, *uses(app, {*manifest.paths, *sources.files})),
        again="heartbeat functions remove completes it",
    )


def _there(app: App) -> Manifest:
    manifest = adopt_manifest.read(app.folder)
    if manifest is None:
        raise FunctionsProblem(
            f"{app.folder} holds no functions of ours", hint="heartbeat functions add APP_DIR puts them there"
        )
    return manifest


def _states(app: App, manifest: Manifest, sources: Sources) -> dict[str, State]:
    """Of each file that is, or was, ours. One that is in nobody's way and not there yet is missing."""
    states: dict[str, State] = {}
    for path in sorted({*sources.files, *manifest.paths}):
        content, source = adopt_disk.read(app.folder, path), sources.files.get(path)
        if content is None:
            if source is not None:
                states[path] = "missing"
        elif source is not None and digest(content) == digest(source):
            states[path] = "ours"
        elif manifest.is_ours(path, content) and not (app.folder / path).is_symlink():
            states[path] = "dropped" if source is None else "outdated"
        else:
            states[path] = "changed"
    return states


def _news(manifest: Manifest, states: Mapping[str, State], sources: Sources) -> list[str]:
    return [
        path
        for path, state in states.items()
        if state == "changed"
        and path in sources.files
        and manifest.known(path) != digest(sources.files[path])
    ]


def _nothing_in_the_way(app: App, manifest: Manifest, sources: Sources) -> None:
    known = {*manifest.paths, adopt_manifest.PATH} if manifest.version else set()
    new = [path for path in (*sources.files, adopt_manifest.PATH) if path not in known]
    taken = sorted({found for path in new if (found := app.in_the_way(path)) is not None})
    if taken:
        raise FunctionsProblem(
            f"nothing was written, as {app.folder} has others where our files would be: {', '.join(taken)}",
            paths=taken,
            hint="they are left as they are: the heartbeat functions need these paths, so move yours",
        )


def _folders(app: App, manifest: Manifest, paths: Sequence[str]) -> tuple[str, ...]:
    """Those that we made, and those that have to be made for `paths`."""
    needed = {above.as_posix() for path in paths for above in PurePosixPath(path).parents} - {"."}
    new = {name for name in needed if not (app.folder / name).exists()}
    return tuple(sorted({*manifest.folders, *new, *(needed & adopt_disk.begun(app.folder))}))


def _settled(
    during: Manifest, states: Mapping[str, State], sources: Sources, *, shown: Collection[str]
) -> Manifest:
    """The manifest when all is written. A file that the team changed stays known as what we wrote, so that it
    is told that there is a newer one, until how it differs from that one was `shown`.
    """
    files = {}
    for path, state in states.items():
        if path in sources.files and (state != "changed" or path in shown):
            files[path] = digest(sources.files[path])
        elif state == "changed":
            files[path] = during.known(path)
    return Manifest(during.version, files, {}, during.edits, during.folders)


def _framed(app: App, during: Manifest, changes: Sequence[Change], after: Manifest) -> tuple[Change, ...]:
    """The changes between the manifest that announces them and the one that says they were made."""
    raw = adopt_disk.read(app.folder, adopt_manifest.PATH)
    first, last = during.dump(), after.dump()
    if not changes:
        return () if raw == last else (Change(adopt_manifest.PATH, raw, last),)
    return (Change(adopt_manifest.PATH, raw, first), *changes, Change(adopt_manifest.PATH, first, last))


def _differs(app: App, paths: Sequence[str], sources: Sources) -> list[str]:
    """How the team's differ from ours: minus is what they have."""
    return [
        line
        for path in paths
        for line in diff(Change(path, adopt_disk.read(app.folder, path), sources.files[path]))
    ]
