"""The two commands of the README, and what they say on a machine that lacks something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import REPOSITORY, Newcomer


def make(
    verb: str, env: dict[str, str], *settings: str, folder: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run a verb as a user would: from a shell that is no make of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", verb, *settings],
        cwd=folder,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def bare_clone(tmp_path: Path) -> Path:
    """As much of a clone as comes before anything is installed."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "package-lock.json"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def fake_python(folder: Path, script: str) -> str:
    python = folder / "python-of-a-bare-machine"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return f"PYTHON={python}"


def test_a_machine_that_cannot_make_a_venv_is_told_the_apt_line(bare_clone: Path) -> None:
    python = fake_python(
        bare_clone, '[ "$1" = -c ] && exit 0\nmkdir -p .venv/bin; echo ensurepip is not available; exit 1'
    )
    result = make("setup", {}, python, folder=bare_clone)
    assert result.returncode != 0
    assert "sudo apt install python3-venv" in result.stderr
    assert result.stdout == ""
    assert not (bare_clone / ".venv").exists(), "a half-made environment would look finished to the next call"


def test_a_python_that_is_too_old_is_named(bare_clone: Path) -> None:
    python = fake_python(bare_clone, '[ "$1" = -V ] && echo Python 3.9.2 && exit 0\nexit 1')
    result = make("setup", {}, python, folder=bare_clone)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert "Python 3.9.2" in result.stderr


def test_a_machine_without_python_is_told_so(bare_clone: Path) -> None:
    result = make("setup", {}, "PYTHON=python-that-is-not-there", folder=bare_clone)
    assert result.returncode != 0
    assert "there is no python-that-is-not-there" in result.stderr


def test_a_second_run_is_quick_doubles_nothing_and_keeps_the_data(newcomer: Newcomer) -> None:
    elsewhere = {"CONVEX_URL": "https://happy-otter-123.convex.cloud", "HEARTBEAT_TOKEN": "of-that-other-one"}
    newcomer.type("make run")
    started = time.monotonic()
    again = newcomer.type("make run", elsewhere)
    assert time.monotonic() - started < 10
    assert "already running" in again
    assert "nothing to change" in again
    assert "4 agents:" in again
    assert "happy-otter" not in again, "make run always means the local backend"
    shown = newcomer.type(".venv/bin/heartbeat agents show hint; .venv/bin/heartbeat token list")
    assert shown.count("drift detection scan") == 1
    assert len(re.findall(r"UTC +ok +0/0", shown)) == 2, "one heartbeat for each run, and both are kept"
    assert shown.count("admin") == 1
