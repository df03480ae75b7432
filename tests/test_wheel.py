"""The wheel that `make wheel` builds, installed alone with its extra `local`: no repository, no npm, no node
on PATH, an empty home.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import NODE, REPOSITORY, TABLE, Cli, Ran
from test_make import make

INSTALL_TIMEOUT_S = 300  # some 70 MB to download, Node.js among it


pytestmark = pytest.mark.long  # builds the wheel and installs it into an environment of its own


@pytest.fixture(scope="module")
def wheel() -> Path:
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    # not to be set up again: that would change the environment in which these tests run
    built = make("wheel", {"PATH": path}, "--old-file=setup")
    assert built.returncode == 0, built.stderr
    return max((REPOSITORY / "dist").glob("convex_heartbeat-*.whl"), key=lambda file: file.stat().st_mtime)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, its extra `local`, and what they need at the locked versions."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    # pip wants each requirement hashed or none, and what a wheel asks for is not: so the versions alone
    locked = re.findall(r"^[^#\s].*==[^\\\n]*", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(locked))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", "-c", str(constraints), f"{wheel}[local]"],
        check=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    return folder


class Stranger:
    """Somebody who has the wheel and nothing else: an empty folder, an empty home, nothing on PATH."""

    def __init__(self, environment: Path, folder: Path) -> None:
        nothing = folder / "nothing"
        nothing.mkdir()
        self.cli = Cli(folder, {"PATH": str(nothing)})
        self.program = str(environment / "bin" / "heartbeat")

    def __call__(self, *words: str) -> Ran:
        return self.cli(*words, program=(self.program,))


@pytest.fixture
def stranger(environment: Path, tmp_path: Path) -> Iterator[Stranger]:
    stranger = Stranger(environment, tmp_path)
    yield stranger
    assert stranger("local", "down").code == 0


def test_the_wheel_alone_goes_from_an_empty_folder_to_a_dashboard(stranger: Stranger) -> None:
    up = stranger("local", "up", "--port", "0", "--json")
    assert up.code == 0, up
    stranger.cli.write_schedule(TABLE)
    applied = stranger("apply", "--agents-only", "--yes", "--json")
    assert applied.code == 0, applied
    sent = stranger("send", "hint", "--summary", "from the wheel", "--json")
    assert sent.code == 0, sent
    assert sent.data["outcome"] == "recorded"
    shown = stranger("dashboard", "--json")
    assert shown.code == 0, shown
    agents = {agent["agent"]: agent for agent in shown.data["agents"]}
    assert agents["hint"]["summary"] == "from the wheel"
    assert sorted(agents) == ["hint", "rams", "torv"]
    status = stranger("local", "status", "--check", "--json")
    assert (status.code, status.data["older"]) == (0, [])


def test_a_folder_of_functions_is_refused_without_npm_in_a_sentence(
    stranger: Stranger, tmp_path: Path
) -> None:
    functions = tmp_path / "convex"
    functions.mkdir()
    (functions / "hello.ts").write_text("export const hello = 1;\n")
    ran = stranger("local", "up", "--port", "0", "--functions", str(functions))
    assert ran.code == 2
    assert "npm" in ran.err


def test_the_wheel_alone_puts_our_functions_into_an_app_and_takes_them_out(
    stranger: Stranger, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    shutil.copytree(REPOSITORY / "tests" / "adopted" / "app", app)
    before = {file: file.read_bytes() for file in app.rglob("*") if file.is_file()}
    added = stranger("functions", "add", "--write", "--yes", str(app))
    assert added.code == 0, added
    for file in (REPOSITORY / "convex" / "heartbeat").rglob("*.ts"):
        assert (app / file.relative_to(REPOSITORY)).read_bytes() == file.read_bytes()
    assert not (app / "convex" / "mutations" / "addTask.ts").exists()
    assert stranger("functions", "status", str(app)).code == 0
    assert stranger("functions", "remove", "--yes", str(app)).code == 0
    assert {file: file.read_bytes() for file in app.rglob("*") if file.is_file()} == before


def test_the_wheel_holds_the_licences_of_what_is_bundled_and_no_path_of_this_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as package:
        bundled = {
            name.partition("_bundle/")[2]: package.read(name).decode()
            for name in package.namelist()
            if "_bundle/" in name
        }
    licences = bundled["THIRD_PARTY_LICENSES.txt"]
    assert sorted(name for name in bundled if not name.startswith("app/")) == [
        "THIRD_PARTY_LICENSES.txt",
        "backend/main.mjs",
        "backend/worker.mjs",
        "functions.mjs",
    ]
    assert "convex 1." in licences
    assert "Apache License" in licences
    assert "ws 8." in licences
    assert "Permission is hereby granted" in licences
    assert not [name for name, text in bundled.items() if str(REPOSITORY) in text]
