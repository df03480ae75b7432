"""Moving all that is recorded from one deployment to another: into a file, out of a file, or both at once.

    export (move_export.py)   a deployment ──pages──▶ FILE
    import (move_import.py)   FILE ──batches──▶ a deployment
    copy                      a deployment ──▶ a file in the data folder, gone afterwards ──▶ the other

What there is stays where it was, and may be moved again at any time: whatever is known there is known. So a
move that was killed, wherever, is done by doing it again.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.move_ends import End, Told
from heartbeat_cli.move_export import Exported, export, part_of
from heartbeat_cli.move_format import Verified
from heartbeat_cli.move_import import Imported, import_file
from heartbeat_cli.move_records import KINDS
from heartbeat_cli.output import look_of, shown
from heartbeat_cli.private_files import alone_in, try_lock, writing

if TYPE_CHECKING:
    from heartbeat_cli.command import Edge

__all__ = ["Copied", "End", "Progress", "Told", "copy", "end_of", "export_from", "import_into", "places"]

LINE_EACH_S = 5.0  # into a file or a pipe: what somebody who looks now and then wants to know
REDRAWN_EACH_S = 0.1  # on a terminal: as often as anybody can read
FOLDER = "tmp"  # what the names of private folders begin with
LOCK = "lock"  # in each of them, locked as long as its move goes on
ALONE_S = 1.0  # others take a few milliseconds to make theirs


def end_of(edge: Edge) -> End:
    """The deployment of a command as the end of a move. Raises `SettingsProblem` as `Edge.connect` does."""
    over_http = replace(edge, settings=replace(edge.settings, transport="http"))
    settings = edge.settings
    url = settings.deployment()
    settings.needed_token()
    return End(url, settings.deadline_s, over_http.connect)


def places(data_dir: Path) -> Path:
    """The folder for what a move keeps on this host while it goes on."""
    return data_dir / "moves"


def made(folder: Path) -> Path:
    """The folder, there by now, our user's alone. Raises `SettingsProblem`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsProblem(f"{folder} cannot be made: {error.strerror or error}") from None
    return folder


@contextmanager
def private_folder(data_dir: Path) -> Iterator[Path]:
    """A folder of our user's alone for a file that is gone afterwards, on the disk that the data is on. If we
    are killed, the next move finds it, unlocked. Raises `SettingsProblem`.
    """
    parent = made(places(data_dir))
    with ExitStack() as stack:
        with writing(parent), alone_in(parent, ALONE_S):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix=FOLDER, dir=parent))
            lock = stack.enter_context((Path(name) / LOCK).open("wb"))
            try_lock(lock.fileno())
        yield Path(name)


def clear(data_dir: Path) -> None:
    """Remove the private folders of moves that were killed."""
    parent = places(data_dir)
    with alone_in(parent, ALONE_S):
        for folder in parent.glob(f"{FOLDER}*/"):
            with suppress(OSError), (folder / LOCK).open("rb") as lock:
                if try_lock(lock.fileno()):
                    shutil.rmtree(folder, ignore_errors=True)


def export_from(source: End, file: Path, told: Told, *, force: bool) -> Exported:
    """As `move_export.export`, now."""
    return export(source, file, told, force=force, at=time.time_ns() // 1_000_000)


def import_into(
    target: End, file: Path, data_dir: Path, told: Told, called: Path | None = None
) -> tuple[Verified, Imported]:
    """As `move_import.import_file`, with its places in the data folder."""
    return import_file(target, file, places(data_dir), told, called)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy read there, and what became of it here."""

    exported: Exported
    imported: Imported


def copy(source: End, target: End, data_dir: Path, told: Told) -> Copied:
    """Take all that `source` has recorded into `target`, each once, whatever was taken before.

    It reads everything anew, also after one that was killed: what was recorded there since then has to come
    along. Raises as `export_from` and `import_into` do.
    """
    folder = made(places(data_dir))
    name = hashlib.sha256(f"{source.url} {target.url}".encode()).hexdigest()[:32]
    file = folder / f"{name}.jsonl"
    part_of(file).unlink(missing_ok=True)
    exported = export_from(source, file, told, force=True)
    _, imported = import_into(target, file, data_dir, told)
    file.unlink()
    return Copied(exported, imported)


def amount(number: int, kind: str) -> str:
    """`1 flip`, `12 flips`."""
    return f"{number:,} {KINDS[kind] if number == 1 else kind}"


def in_words(counts: dict[str, int]) -> str:
    """`100,000 heartbeats, 12 flips and 4 agents`."""
    parts = [amount(counts[kind], kind) for kind in KINDS]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


class Progress:
    """Tells people on stderr how far a move is: one line that is redrawn on a terminal, else a line each few
    seconds; nothing at all if `silent`.
    """

    def __init__(
        self,
        what: str,
        *,
        silent: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._silent = silent
        self._stream = stream or sys.stderr
        self._clock = clock
        self._redraws = self._stream.isatty()
        self._next = clock() + (0 if self._redraws else LINE_EACH_S)
        self._width = 0

    def progress(self, text: str) -> None:
        now = self._clock()
        if self._silent or now < self._next:
            return
        self._next = now + (REDRAWN_EACH_S if self._redraws else LINE_EACH_S)
        line = shown(f"heartbeat: {self._what}: {text}")
        if not self._redraws:
            self._write(f"{line}\n")
            return
        columns = look_of(self._stream, colour=False, columns=None).columns
        if len(line) >= columns:  # what is wrapped cannot be drawn over
            line = f"{line[: columns - 2]}…"
        self._write(f"\r{line.ljust(self._width)}")
        self._width = len(line)

    def note(self, text: str) -> None:
        if self._silent:
            return
        self.clear()
        self._write(shown(f"heartbeat: {text}") + "\n")

    def clear(self) -> None:
        """Take the line away that is redrawn."""
        if self._width:
            self._write(f"\r{' ' * self._width}\r")
            self._width = 0

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
