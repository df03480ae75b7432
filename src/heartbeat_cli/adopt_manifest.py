"""What of an app's functions folder is ours: `heartbeat/manifest.json`, committed with the app.

    {"format": 1,
     "version": "0.1.0",                                   of this package, when it was written
     "files": {"heartbeat/crons.ts": "<sha256>", …},       as we wrote them
     "coming": {…},                                        only while it is being written: as they are to be
     "edits": [{"path": "schema.ts", "inserted": ["…"]},   exactly the texts that we put in
               {"path": "crons.ts", "inserted": […], "created": "<sha256>"}],   the whole file is ours
     "folders": ["heartbeat", "mutations"]}                that we made

It is written before anything else, and deleted after everything else: whatever is cut short, it knows what of
ours may be there, so that a second `add` or `update` completes it and `remove` takes it back.

    none ──add──▶ coming ──all files there──▶ whole ──update──▶ coming ──▶ whole
                     └────────remove──────────▶ none ◀──remove────┘
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from heartbeat_cli.errors import FunctionsProblem

PATH = "heartbeat/manifest.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Edit:
    """What we put into a file of the team's, or (`created`: its SHA-256) into one that we made for it."""

    path: str
    inserted: tuple[str, ...]
    created: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """As above."""

    version: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    coming: Mapping[str, str] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def paths(self) -> list[str]:
        """Every file that we may have written."""
        return sorted({*self.files, *self.coming})

    def is_ours(self, path: str, content: bytes) -> bool:
        """Whether a file is as we wrote it, or were about to."""
        found = digest(content)
        return found in {self.files.get(path), self.coming.get(path)}

    def known(self, path: str) -> str:
        """What we wrote there last, or were about to: a SHA-256, or nothing."""
        return self.files.get(path) or self.coming.get(path, "")

    def edit_of(self, path: str) -> Edit:
        """What we put into this file; nothing, perhaps."""
        return next((edit for edit in self.edits if edit.path == path), Edit(path, ()))

    def dump(self) -> bytes:
        """As it is written."""
        whole: dict[str, Any] = {
            "format": FORMAT,
            "version": self.version,
            "files": dict(sorted(self.files.items())),
        }
        if self.coming:
            whole["coming"] = dict(sorted(self.coming.items()))
        whole["edits"] = [
            {"path": edit.path, "inserted": list(edit.inserted)}
            | ({"created": edit.created} if edit.created else {})
            for edit in self.edits
        ]
        whole["folders"] = sorted(self.folders)
        return (json.dumps(whole, indent=2) + "\n").encode()


def digest(content: bytes) -> str:
    """SHA-256, hex, whatever line ends a checkout gave the text."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def read(folder: Path) -> Manifest | None:
    """That of a functions folder; None where there is none.

    Raises `FunctionsProblem` when it cannot be read, is damaged, or is of a form not known here. A path in it
    that leads out of the folder counts as damage.
    """
    file = folder / PATH
    try:
        whole = json.loads(file.read_bytes())
        if whole["format"] != FORMAT:
            raise FunctionsProblem(
                f"{file} is of form {whole['format']}, and this program knows {FORMAT}",
                hint="a newer heartbeat wrote it: update this program",
            )
        return Manifest(
            version=_text(whole["version"]),
            files=_hashes(whole["files"]),
            coming=_hashes(whole.get("coming", {})),
            edits=tuple(
                Edit(
                    _path(edit["path"]),
                    tuple(_text(piece) for piece in edit["inserted"]),
                    _text(edit["created"]) if "created" in edit else None,
                )
                for edit in whole["edits"]
            ),
            folders=tuple(_path(folder) for folder in whole["folders"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FunctionsProblem(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FunctionsProblem(
            f"{file} is damaged", hint="take it from the app's history: it is committed with the app"
        ) from None


def _hashes(value: Any) -> dict[str, str]:
    return {_path(path): _text(sha) for path, sha in value.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _path(value: Any) -> str:
    text = _text(value)
    path = PurePosixPath(text)
    if path.is_absolute() or {"..", "."} & {*path.parts, text} or "\\" in text or path.as_posix() != text:
        raise ValueError
    return text
