"""Which functions a Convex deployment holds that a folder of functions does not.

A push replaces everything in a deployment: what is there and not in the folder is gone afterwards. So before
a push somebody has to ask the target what it holds (`convex function-spec` prints it as JSON) and compare.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from .adopt_app import CODE
from .adopt_code import Code, Unclear
from .errors import SettingsProblem, UsageProblem

# An export that the Convex bundler would register: `export default mutation({`, `export const x = query(`
_REGISTERED = re.compile(
    r"^export\s+(?:(?P<default>default)|const\s+(?P<name>\w+)\s*=)\s*"
    r"(?:internal)?(?:query|mutation|action)\s*\(",
    re.IGNORECASE | re.MULTILINE,
)


def foreign_functions(spec_text: str, app_dir: Path) -> list[str]:
    """Name what a push of `app_dir` would take away from a deployment.

    `spec_text` is the JSON that `convex function-spec` prints: `{"url", "functions": [{"identifier":
    "dir/file.js:export", …} | {"functionType": "HttpAction", "method", "path"}]}`. The names come back
    sorted, as `dir/file:export` or `GET /path`.

    Raises UsageProblem when the text is no such JSON (a deployment that could not be asked must never look
    like an empty one), SettingsProblem when `app_dir` holds no functions.
    """
    own = set(_own_functions(app_dir))
    if not own:
        raise SettingsProblem(
            f"{app_dir} holds no Convex functions", hint="Name the convex/ folder to be pushed."
        )
    return sorted(set(_deployed(spec_text)) - own)


def _deployed(spec_text: str) -> Iterator[str]:
    try:
        spec = json.loads(spec_text)
        for function in spec["functions"]:
            if "identifier" in function:
                path, _, export = function["identifier"].partition(":")
                yield f"{path.removesuffix('.js')}:{export or 'default'}"
            else:
                yield f"{function['method']} {function['path']}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise UsageProblem(
            "standard input is not the JSON that `convex function-spec` prints",
            hint="Nothing was pushed. See above why the deployment could not be asked for its functions.",
        ) from problem


def _own_functions(app_dir: Path) -> Iterator[str]:
    for file in sorted(file for file in app_dir.rglob("*") if file.suffix in CODE):
        module = file.relative_to(app_dir).with_suffix("").as_posix()
        if module.startswith("_generated/") or "." in module or "node_modules/" in module:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for export in _REGISTERED.finditer(text):
            yield f"{module}:{export['name'] or 'default'}"
        if module == "http":
            yield from _own_routes(text)


def _own_routes(text: str) -> Iterator[str]:
    """What `http.route({ path: "/x", method: "GET", … })` answers, where it is written out."""
    try:
        code = Code(text)
    except Unclear:  # then they are told as foreign, and somebody looks
        return
    for call in re.finditer(r"\.\s*route\s*\(\s*(?=\{)", code.masked):
        said = {
            entry.name: code.string_at(entry.value)
            for entry in code.entries(call.end())
            if code.masked[entry.value] in {'"', "'"}
        }
        path = said.get("path") or f"{said.get('pathPrefix', '')}*"
        yield f"{said.get('method', '')} {path}"
