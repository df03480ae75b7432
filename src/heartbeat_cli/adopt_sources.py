"""What of ours goes into an app: the files, as this installation has them.
 A clone holds them in `convex/`, a wheel in `_bundle/app/` (made by `make wheel`); the template of the app's
own `fleet.ts` stands beside this file in both.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from heartbeat_cli import __version__
from heartbeat_cli.adopt_code import Code
from heartbeat_cli.errors import SettingsProblem

FLEET = "fleet.ts"  # written once, then the team's
FOLDERS = ("heartbeat", "mutations", "queries")
# for the minimal tables of our own app: a team's tasks have rules that only the team knows
MINIMAL_ONLY = frozenset({"mutations/addTask.ts", "mutations/completeTask.ts"})

_HERE = Path(__file__).resolve().parent
_CLONE = _HERE.parent.parent
_BUNDLE = _HERE / "_bundle" / "app"


@dataclass(frozen=True, slots=True)
class Sources:
    """Each file with its path in a functions folder; the version they are of; the least npm `convex` they
    need.
    """

    files: dict[str, bytes]
    version: str
    least_convex: str

    @property
    def tables(self) -> frozenset[str]:
        """The names of our tables."""
        code = Code(self.files["heartbeat/tables.ts"].decode())
        begins = code.finds(r"heartbeatTables\s*=\s*\{")[0].end() - 1
        return frozenset(entry.name for entry in code.entries(begins) if entry.name)


@functools.cache
def ours() -> Sources:
    """This installation's. Raises `SettingsProblem` when it was built without."""
    if (_CLONE / "convex" / "heartbeat").is_dir():
        functions, package = _CLONE / "convex", _CLONE / "package.json"
    elif (_BUNDLE / "heartbeat").is_dir():
        functions, package = _BUNDLE, _BUNDLE / "package.json"
    else:
        raise SettingsProblem(
            f"this installation ({_HERE}) holds no functions for an app",
            hint="Install the wheel that `make wheel` builds in a clone, or work in the clone itself.",
        )
    files = {
        file.relative_to(functions).as_posix(): file.read_bytes()
        for name in FOLDERS
        for file in sorted((functions / name).rglob("*.ts"))
    }
    kept = {path: content for path, content in files.items() if path not in MINIMAL_ONLY}
    kept[FLEET] = (_HERE / "adopt" / FLEET).read_bytes()
    least = json.loads(package.read_text(encoding="utf-8"))["peerDependencies"]["convex"]
    return Sources(kept, __version__, least.removeprefix(">="))
