"""`heartbeat functions add|status|update|remove|foreign`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from heartbeat_cli import adopt, adopt_app, adopt_sources, functions, output
from heartbeat_cli.adopt_edit import Hand
from heartbeat_cli.adopt_sources import FLEET, Sources
from heartbeat_cli.command import NONE, PLAIN, Edge, register
from heartbeat_cli.output import Answer

TO_DO = 1  # exit code: something is left for a person
STILL_THERE = (
    "next: npx convex deploy; Convex refuses it while a document of agents has the field heartbeat, "
    "which heartbeat uninstall takes away"
)

app = typer.Typer(**PLAIN)

AppDir = Annotated[
    Path, typer.Argument(metavar="APP_DIR", help="The app: the folder with its package.json and convex/.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


@register(app, "functions add", NONE)
def add(
    edge: Edge,
    app_dir: AppDir,
    write: Annotated[
        bool,
        typer.Option("--write", help="Also write the lines that schema.ts and crons.ts gain: shows, asks."),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Answer:
    """Put our functions into the folder of an app that you have; nothing that is there is overwritten."""
    target, sources = adopt_app.find(app_dir), adopt_sources.ours()
    plan = adopt.add(target, sources, write_lines=write)
    output.say_notes(plan.notes)
    told = ["these lines are yours to write (or: --write):"] if plan.diff and not write else []
    shown = [*_files(plan), *told, *plan.diff, *by_hand(plan.by_hand)]
    left = write and bool(plan.by_hand)
    steps = ["write the lines above" + ("" if write else f", or: heartbeat functions add --write {app_dir}")]
    steps = [*(steps if told or plan.by_hand else ()), *_next(target, sources)]
    then = ["next:", *(f"  {number}. {step}" for number, step in enumerate(steps, start=1))]
    talk = _Talk("added", shown, "Write this?" if write else None, then, left)
    return _done(edge, plan, talk, yes=yes, dry_run=dry_run)


@register(app, "functions status", NONE)
def status(edge: Edge, app_dir: AppDir) -> Answer:
    """Compare an app's copy of our functions with this program's; exit 1 where something is to be done."""
    target, sources = adopt_app.find(app_dir), adopt_sources.ours()
    found = adopt.look(target, sources)
    package = target.outdated_package(sources.least_convex)
    data: dict[str, Any] = {
        "folder": str(target.folder),
        "adopted": found.manifest is not None,
        "version": found.manifest.version if found.manifest else None,
        "programVersion": sources.version,
        "cutShort": found.cut_short,
        "files": [{"path": path, "state": state} for path, state in found.files.items()],
        "lines": [
            {"file": file, "line": line.place.line, "where": line.place.where, "there": line.there}
            for file, line in found.lines
        ],
        "package": package,
    }
    if found.manifest is None:
        told = f"{target.folder} holds no functions of ours: heartbeat functions add {app_dir}"
        return Answer(data, [told], exit_code=TO_DO)
    to_do = list(_to_do(found, package, app_dir))
    changed = [path for path, state in found.files.items() if state == "changed" and path != FLEET]
    ours = f"{target.folder}: {len(found.files)} files of ours, version {found.manifest.version}"
    return Answer(
        data,
        [
            f"{ours}, {len(changed)} of them changed by you" if changed else ours,
            *(f"  changed by you: {path}" for path in changed),
            *to_do,
        ],
        exit_code=TO_DO if to_do else 0,
    )


@register(app, "functions update", NONE)
def update(edge: Edge, app_dir: AppDir, yes: Yes = False, dry_run: DryRun = False) -> Answer:
    """Make an app's copy of our functions this program's; what you changed is shown and left. Asks."""
    target, sources = adopt_app.find(app_dir), adopt_sources.ours()
    plan = adopt.update(target, sources)
    differs = (
        ["you changed these, and there is a newer one (+), shown once:", *plan.differs]
        if plan.differs
        else []
    )
    missing = not all(line.there for _, line in adopt.look(target, sources).lines)
    then = [f"some lines are missing: heartbeat functions status {app_dir} names them"] if missing else []
    then += ["next: npx convex deploy"] if plan.changes else []
    talk = _Talk("updated", [*_files(plan), *differs], "Write this?", then, missing or bool(differs))
    return _done(edge, plan, talk, yes=yes, dry_run=dry_run)


@register(app, "functions remove", NONE)
def remove(
    edge: Edge,
    app_dir: AppDir,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="Also delete the files of ours that you changed, such as fleet.ts."),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Answer:
    """Take our functions and lines out of an app again: shows what would go, asks, does it."""
    target, sources = adopt_app.find(app_dir), adopt_sources.ours()
    plan = adopt.remove(target, sources, changed=changed)
    kept = [f"  kept, as you changed it: {path}" for path in plan.kept]
    if kept:
        kept.append(f"  (delete these too: heartbeat functions remove --changed {app_dir})")
    differs = ["you changed these; ours is +:", *plan.differs] if plan.differs else []
    then = [STILL_THERE] if plan.changes else []
    shown = [*_files(plan), *kept, *plan.diff, *differs, *by_hand(plan.by_hand)]
    talk = _Talk("removed", shown, "Remove this?", then, bool(plan.kept or plan.by_hand))
    return _done(edge, plan, talk, yes=yes, dry_run=dry_run)


@register(app, "functions foreign", NONE)
def foreign(
    edge: Edge, app_dir: Annotated[Path, typer.Argument(help="The convex/ folder, or the app, to be pushed.")]
) -> Answer:
    """Read `convex function-spec` from standard input; name what a push of APP_DIR would delete."""
    folder = adopt_app.find(app_dir).folder if (app_dir / "package.json").is_file() else app_dir
    names = functions.foreign_functions(sys.stdin.read(), folder)
    if not names:
        return Answer({"foreign": []}, ["every function of the deployment is in the folder"])
    if not edge.json:
        for name in names:
            output.say(f"  {name}")
        verb = "a function that is" if len(names) == 1 else f"{len(names)} functions that are"
        output.say(
            f"heartbeat: the deployment has {verb} not in {app_dir}; a push would delete what is listed above"
        )
    return Answer({"foreign": names}, exit_code=1)


@dataclass(frozen=True, slots=True)
class _Talk:
    """What is said around a plan: what is `shown` before it is done, the `question` (None: nobody is asked),
    the `word` for its having been done, what is next, and whether something is `left` for a person even so.
    """

    word: str
    shown: Sequence[str]
    question: str | None
    then: Sequence[str]
    left: bool


def _done(edge: Edge, plan: adopt.Plan, talk: _Talk, *, yes: bool, dry_run: bool) -> Answer:
    """Show, ask where there is a question, do it, and say what is next once it is done."""
    lines, outcome, last = [*talk.shown], talk.word, f"{talk.word}: {plan.app.folder}"
    then = [] if dry_run else [*talk.then]
    if dry_run:
        outcome, last = "planned", "nothing was written (dry run)"
    elif not plan.changes:
        outcome, last = "unchanged", "nothing to write"
    else:
        if talk.question and not yes:
            edge.ask(lines, talk.question, hint="add --yes, or --dry-run to look")
            lines = []
        plan.carry_out()
    data = {"outcome": outcome, **as_json(plan), "next": then}
    return Answer(data, [*lines, last, *then], exit_code=TO_DO if talk.left and not dry_run else 0)


def as_json(plan: adopt.Plan) -> dict[str, Any]:
    """What is planned, or done, for JSON."""
    return {
        "folder": str(plan.app.folder),
        "added": list(plan.added),
        "replaced": list(plan.replaced),
        "deleted": list(plan.deleted),
        "kept": list(plan.kept),
        "diff": list(plan.diff),
        "differs": list(plan.differs),
        "byHand": [
            {"file": file, "line": hand.line, "where": hand.where, "why": hand.why}
            for file, hand in plan.by_hand
        ],
    }


def _files(plan: adopt.Plan) -> Iterator[str]:
    """The files of ours by folder: nobody reads forty names."""
    for word, paths in (("new", plan.added), ("replaced", plan.replaced), ("deleted", plan.deleted)):
        if paths:
            tops = Counter(path.partition("/")[0] for path in paths)
            told = [
                f"{top}/ ({count} files)" if f"{top}/" in "".join(paths) else top
                for top, count in tops.items()
            ]
            yield f"{word} in {plan.app.folder}: {', '.join(told)}"


def by_hand(hands: Iterable[tuple[str, Hand]]) -> Iterator[str]:
    """What a person has to write, or take out, for people."""
    for file, hand in hands:
        yield f"by hand, in {file}, {hand.where} ({hand.why}):"
        yield f"  {hand.line}"


def _next(target: adopt_app.App, sources: Sources) -> list[str]:
    """What is the team's to do, in its order."""
    package = target.outdated_package(sources.least_convex)
    steps = [f"say in {target.folder / FLEET} what your agents and tasks are: it is yours to edit"]
    if package:
        steps.append(f"{package}: {adopt_app.NPM_ADDS}")
    steps.append(f"let formatters and linters leave our files alone: {_to_ignore(target, sources)}")
    return [*steps, "push it: npx convex deploy", "then, on each host: heartbeat connect URL"]


def _to_ignore(target: adopt_app.App, sources: Sources) -> str:
    """Lines for a .prettierignore: the folders that hold nothing of the team's; of the others, a word."""
    inside = os.path.relpath(target.folder, target.project)
    shared = [
        name
        for name in adopt_sources.FOLDERS
        if any(
            file.suffix in adopt_app.CODE and file.relative_to(target.folder).as_posix() not in sources.files
            for file in (target.folder / name).rglob("*")
        )
    ]
    lines = " ".join(f"{inside}/{name}/" for name in adopt_sources.FOLDERS if name not in shared)
    more = f" and ours in {', '.join(f'{inside}/{name}' for name in shared)}" if shared else ""
    return f"in .prettierignore, a line each: {lines}{more}"


def _to_do(found: adopt.Found, package: str | None, app_dir: Path) -> Iterator[str]:
    if found.cut_short:
        yield f"something was cut short: heartbeat functions add {app_dir}, or remove"
    counted = Counter(found.files.values())
    behind = [f"{counted[state]} {state}" for state in ("missing", "outdated", "dropped") if counted[state]]
    if behind:
        yield f"files: {', '.join(behind)}: heartbeat functions update {app_dir}"
    for path in found.news:
        yield f"changed by you, and there is a newer one: {path} (heartbeat functions update shows it)"
    for file, line in found.lines:
        if not line.there:
            why = f" (by hand: {line.problem})" if line.problem else ""
            yield f"missing in {file}, {line.place.where}: {line.place.line}{why}"
    if any(line.insertion for _, line in found.lines):
        yield f"  mend it: heartbeat functions add --write {app_dir}"
    if package:
        yield f"{package}: {adopt_app.NPM_ADDS}"
