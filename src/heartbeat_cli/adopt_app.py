"""An app that has a Convex functions folder: where that is, what is in it, which npm package it uses."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartbeat_cli.errors import FunctionsProblem, SettingsProblem

DEFAULT_FUNCTIONS = "convex"
# what Convex reads schema and crons from; the functions of any of CODE are pushed
SUFFIXES = (".ts", ".js")
CODE = frozenset({".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts"})
PACKAGE = "convex"
NPM_ADDS = "npm install convex@latest"


@dataclass(frozen=True, slots=True)
class App:
    """An app: its `project` folder (with package.json) and the `folder` of its functions."""

    project: Path
    folder: Path

    def code_file(self, stem: str) -> str | None:
        """The name of `schema.ts` or `schema.js`; None where there is none. Raises `FunctionsProblem`."""
        found = [stem + suffix for suffix in SUFFIXES if (self.folder / (stem + suffix)).exists()]
        if len(found) > 1:
            raise FunctionsProblem(f"{self.folder} has both {found[0]} and {found[1]}", paths=found)
        return found[0] if found else None

    def in_the_way(self, path: str) -> str | None:
        """What stands where our file `path` would: that file, the same module in another language, or a link
        or a file where a folder of its path would be. None where there is nothing.
        """
        above = self.folder
        for part in Path(path).parts[:-1]:
            above /= part
            if above.is_symlink() or (above.exists() and not above.is_dir()):
                return above.relative_to(self.folder).as_posix()
        wanted = self.folder / path
        same = [wanted, *(wanted.with_suffix(suffix) for suffix in sorted(CODE) if wanted.suffix in CODE)]
        found = next((file for file in same if file.exists() or file.is_symlink()), None)
        return found.relative_to(self.folder).as_posix() if found else None

    def outdated_package(self, least: str) -> str | None:
        """What is wrong with the app's npm package `convex`, for people, where it is older than `least` or
        not there; None where nothing is, or nothing can be told.
        """
        installed = self._installed()
        asked = self._asked()
        if installed is None and asked is None:
            return f"the app does not name the npm package {PACKAGE}, and needs it from {least} on"
        have = installed or _least_of(asked or "")
        if have is None or numbers(have) >= numbers(least):
            return None
        said = f"has {PACKAGE} {installed} installed" if installed else f"asks for {PACKAGE} {asked}"
        return f"the app {said}, and needs it from {least} on"

    def _installed(self) -> str | None:
        for folder in (self.project, *self.project.parents):
            version = _json(folder / "node_modules" / PACKAGE / "package.json").get("version")
            if isinstance(version, str):
                return version
        return None

    def _asked(self) -> str | None:
        package = _json(self.project / "package.json")
        for kind in ("dependencies", "devDependencies", "peerDependencies"):
            listed = package.get(kind)
            version = listed.get(PACKAGE) if isinstance(listed, dict) else None
            if isinstance(version, str):
                return version
        return None


def find(app_dir: Path) -> App:
    """The app whose project folder, or whose functions folder, is `app_dir`.

    Raises `SettingsProblem` when it is neither.
    """
    if not app_dir.is_dir():
        raise SettingsProblem(f"there is no folder {app_dir}", hint="Name the folder with the package.json.")
    given = app_dir.resolve()
    folder = given / _functions(given)
    if folder.is_dir() and (given / "package.json").is_file():
        return App(given, folder.resolve())
    if is_functions(given):
        projects = [above for above in given.parents if (above / "package.json").is_file()]
        return App(projects[0] if projects else given.parent, given)
    raise SettingsProblem(
        f"{app_dir} is no Convex app: it has no package.json with a folder {_functions(given)}/ beside it",
        hint="Name the folder with the package.json; npx convex dev makes the functions folder.",
    )


def is_functions(folder: Path) -> bool:
    """Whether it looks like a folder of Convex functions."""
    return any((folder / name).exists() for name in ("_generated", "schema.ts", "schema.js"))


def _functions(project: Path) -> str:
    file = project / "convex.json"
    named = _json(file, strict=True).get("functions", DEFAULT_FUNCTIONS)
    if not isinstance(named, str):
        raise SettingsProblem(f"{file} does not name the folder of the functions in `functions`")
    return named


def _json(file: Path, *, strict: bool = False) -> dict[str, Any]:
    """The object in a file; an empty one where there is none. What is no JSON is an error if `strict`."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        if not strict:
            return {}
        raise SettingsProblem(f"{file} cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}


def _least_of(asked: str) -> str | None:
    """The least version that a range of npm's lets in, where it is of a plain kind."""
    found = re.fullmatch(r"(?:npm:convex@)?(?:\^|~|>=|=|v)?\s*(\d+(?:\.\d+){0,2})(?:[-+].*)?", asked.strip())
    return found[1] if found else None


def numbers(version: str) -> tuple[int, ...]:
    """The three of a version, to be compared."""
    found = [int(number) for number in re.findall(r"\d+", version)[:3]]
    return (*found, *[0] * (3 - len(found)))
