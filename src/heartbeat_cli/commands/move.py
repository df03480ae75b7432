"""`heartbeat export|import`."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from heartbeat_cli import move, output, times
from heartbeat_cli.command import CALLS, PLAIN, Edge, register
from heartbeat_cli.errors import SettingsProblem, UsageProblem
from heartbeat_cli.move_format import Verified
from heartbeat_cli.move_import import Imported
from heartbeat_cli.output import Answer

app = typer.Typer(**PLAIN)

STREAM = Path("-")
ENDING = ("SIGTERM", "SIGHUP")  # Windows has not both
REFUSED_SHOWN = 10  # of the refused lines; JSON has more
COMMON = tuple(name for name in CALLS if name != "transport")  # a move is always made over HTTP

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing while it goes on.")]


@register(app, "export", COMMON)
def export(
    edge: Edge,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write; - for standard output.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    quiet: Quiet = False,
) -> Answer:
    """Write everything that is recorded (agents, heartbeats with their runs, changes of health) into FILE.

    Killed at any time, the same again goes on where it was; FILE appears as a whole or not at all. The
    deadline is that of each call; all of it takes as long as it takes.
    """
    source = move.end_of(edge)
    move.clear(edge.settings.data_dir)
    if file == STREAM:
        return _to_stdout(edge, source, quiet)
    with _told(edge, "export", quiet) as told:
        done = move.export_from(source, file, told, force=force)
    data = {"file": str(done.file), **done.counts, "bytes": done.size, "wentOnFrom": done.went_on_from}
    said = f"{file} holds {move.in_words(dict(done.counts))}"
    if done.went_on_from:
        said += f"; {done.went_on_from:,} of them were there from the last try"
    return Answer(data, [said])


def _to_stdout(edge: Edge, source: move.End, quiet: bool) -> Answer:
    if edge.json:
        raise UsageProblem("--json prints one object, and - prints the export", hint="Leave one of them out.")
    with _folder(edge) as folder, _told(edge, "export", quiet) as told:
        done = move.export_from(source, folder / "export.jsonl", told, force=False)
        try:
            with done.file.open("rb") as written:
                shutil.copyfileobj(written, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # who reads it has seen enough
            raise
        except OSError as error:
            raise SettingsProblem(f"standard output cannot be written: {error.strerror or error}") from None
    return Answer({})


@register(app, "import", COMMON)
def import_(
    edge: Edge,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What export wrote; - for standard input.")],
    quiet: Quiet = False,
) -> Answer:
    """Take everything in FILE into the deployment, each record once, whatever is repeated.

    Agents that it has keep their schedule there, and take over what they reported later elsewhere. Killed at
    any time, the same again goes on where it was. The deadline is that of each call.
    """
    target = move.end_of(edge)
    data_dir = edge.settings.data_dir
    move.clear(data_dir)
    called = Path("standard input") if file == STREAM else file
    with _readable(edge, file, called) as readable, _told(edge, "import", quiet) as told:
        verified, done = move.import_into(target, readable, data_dir, told, called)
    output.say_notes(f"left out, as this program does not know it: {what}" for what in verified.ignored)
    data: dict[str, Any] = {
        "file": str(file.absolute()) if file != STREAM else None,
        "from": verified.origin,
        "exportedAt": verified.at,
        **{kind: asdict(taken) for kind, taken in done.taken.items()},
        "refused": [asdict(one) for one in done.refused],
        "wentOnFrom": done.went_on_from,
        "ignored": list(verified.ignored),
    }
    return Answer(data, list(_told_imported(verified, done)), exit_code=1 if done.refused_count else 0)


def _told_imported(verified: Verified, done: Imported) -> Iterator[str]:
    yield f"imported, as of {times.stamp(verified.at, None)} at {verified.origin}:"
    for kind, taken in done.taken.items():
        parts = [f"{move.amount(taken.recorded, kind)} stored"]
        parts += [f"{taken.updated:,} brought up to date"] if taken.updated else []
        parts += [f"{taken.known:,} known before"] if taken.known else []
        parts += [f"{taken.refused:,} refused"] if taken.refused else []
        yield f"  {', '.join(parts)}"
    for one in done.refused[:REFUSED_SHOWN]:
        yield f"refused: line {one.line}: {one.message}"
    more = done.refused_count - REFUSED_SHOWN
    if more > 0:
        yield f"refused: {more:,} more"


@contextmanager
def _told(edge: Edge, what: str, quiet: bool) -> Iterator[move.Progress]:
    progress = move.Progress(what, silent=quiet or edge.json)
    try:
        yield progress
    finally:
        progress.clear()


@contextmanager
def _readable(edge: Edge, file: Path, called: Path) -> Iterator[Path]:
    """The file itself, or one with what comes through a pipe: it is read twice."""
    if not (file == STREAM or _is_pipe(file)):
        yield file
        return
    with _folder(edge) as folder:
        copied = folder / "import.jsonl"
        try:
            with (
                nullcontext(sys.stdin.buffer) if file == STREAM else file.open("rb") as source,
                copied.open("wb") as out,
            ):
                shutil.copyfileobj(source, out)
        except OSError as error:
            what = f"{called} cannot be copied into {folder.parent}"
            raise SettingsProblem(f"{what}: {error.strerror or error}") from None
        yield copied


def _is_pipe(file: Path) -> bool:
    try:
        return file.is_fifo()
    except OSError:  # opening it tells why
        return False


@contextmanager
def _folder(edge: Edge) -> Iterator[Path]:
    """A private folder that is gone also when we are told to end, as Ctrl-C does. Who has us ignore that, as
    nohup does, is heeded.
    """
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    ending = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ending:
        signal.signal(number, signal.default_int_handler)
    try:
        with move.private_folder(edge.settings.data_dir) as folder:
            yield folder
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)
