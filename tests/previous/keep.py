"""Keeps the contract of a tree for the tests of the version after it:

    python tests/previous/keep.py NUMBER [TREE]

writes NUMBER.zip beside this file: the package of TREE (this repository by default) as Python imports it
from PYTHONPATH, and `functions.mjs`, its functions as the local backend runs them. The same tree makes the
same bytes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def keep(number: int, tree: Path) -> Path:
    """Write the file and return its path."""
    with tempfile.TemporaryDirectory() as folder:
        # esbuild looks for npm's packages above the functions, and a tree from `git archive` has none
        shutil.copytree(tree / "convex", Path(folder, "convex"))
        Path(folder, "node_modules").symlink_to(REPOSITORY / "node_modules")
        functions = Path(folder, "functions.mjs")
        bundle = [
            "node",
            str(REPOSITORY / "backend" / "bundle.ts"),
            str(Path(folder, "convex")),
            str(functions),
        ]
        subprocess.run(bundle, check=True, stdout=subprocess.DEVNULL)
        files = {"functions.mjs": functions.read_bytes()}
    package = tree / "src"
    for file in sorted(package.rglob("*.py")):
        files[file.relative_to(package).as_posix()] = file.read_bytes()
    kept = HERE / f"{number}.zip"
    with zipfile.ZipFile(kept, "w") as archive:
        for name, content in files.items():
            # ZipInfo's own date, the same each time
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)
    return kept


if __name__ == "__main__":
    print(keep(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY))
