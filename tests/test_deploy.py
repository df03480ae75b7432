"""`make deploy` names what a push would delete, and pushes nothing unless the deployment could be asked."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import COMPILED, NODE, REPOSITORY

PUSH_REFUSED = "This local backend takes no pushes"
CODE_OF_MAKE = 2
PATIENCE_S = 60


@dataclass(frozen=True)
class Deployment:
    """Where a push goes to, as the official CLI is told."""

    url: str
    admin_key: str


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Deployment]]:
    """Real deployments of folders of functions, each started once: no test changes one."""
    processes = []

    @functools.cache
    def start(functions: Path) -> Deployment:
        folder = tmp_path_factory.mktemp("deployment")
        command = [str(NODE), str(REPOSITORY / "backend" / "main.ts"), "--functions", str(functions)]
        command += ["--data", str(folder / "db"), "--admin-key-file", str(folder / "key")]
        command += ["--port", "0", "--site-port", "0"]
        env = {"PATH": os.environ["PATH"], "NODE_COMPILE_CACHE": str(COMPILED)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        processes.append(process)
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        return Deployment(url, (folder / "key").read_text().strip())

    yield start
    for process in processes:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


@pytest.fixture
def deploy(tmp_path: Path) -> Callable[[Deployment], subprocess.CompletedProcess[str]]:
    """`make deploy` in a copy of the project: the official CLI writes into the folder that it pushes."""
    for name in ("Makefile", "package.json"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "convex", tmp_path / "convex")
    for name in (".venv", "node_modules"):
        (tmp_path / name).symlink_to(REPOSITORY / name)

    def deploy(target: Deployment) -> subprocess.CompletedProcess[str]:
        # CI: the official CLI then reports no errors to its makers
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CI": "1"}
        environment |= {
            "CONVEX_SELF_HOSTED_URL": target.url,
            "CONVEX_SELF_HOSTED_ADMIN_KEY": target.admin_key,
        }
        # nothing is to be set up: the locked files of the environments are the repository's
        command = ["make", "deploy", "ASK_SECONDS=2", "-o", "setup"]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return deploy


def test_a_deployment_with_functions_of_somebody_else_is_left_alone_and_they_are_named(
    start: Callable[[Path], Deployment], deploy: Callable[[Deployment], subprocess.CompletedProcess[str]]
) -> None:
    done = deploy(start(REPOSITORY / "tests" / "backend" / "app"))
    assert done.returncode == CODE_OF_MAKE
    named = [line.strip() for line in done.stderr.splitlines()]
    assert {"notes:add", "notes:addInternal", "GET /files/*", "POST /notes"} <= set(named)
    assert "a push would delete what is listed above" in done.stderr
    assert PUSH_REFUSED not in done.stderr


def test_a_deployment_with_our_own_functions_is_pushed_to_and_its_refusal_is_shown(
    start: Callable[[Path], Deployment], deploy: Callable[[Deployment], subprocess.CompletedProcess[str]]
) -> None:
    done = deploy(start(REPOSITORY / "convex"))
    assert done.returncode == CODE_OF_MAKE
    assert "every function of the deployment is in the folder" in done.stdout
    assert PUSH_REFUSED in done.stderr


def test_an_address_where_nobody_answers_is_not_pushed_to(
    deploy: Callable[[Deployment], subprocess.CompletedProcess[str]],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        done = deploy(Deployment(f"http://127.0.0.1:{taken.getsockname()[1]}", "any"))
    assert done.returncode == CODE_OF_MAKE
    assert "could not be asked which functions it holds (see above), so nothing was pushed" in done.stderr
    assert "timed out after 2 seconds" in done.stderr
    assert "Deploying" not in done.stderr


def test_a_wrong_admin_key_is_not_pushed_with(
    start: Callable[[Path], Deployment], deploy: Callable[[Deployment], subprocess.CompletedProcess[str]]
) -> None:
    done = deploy(Deployment(start(REPOSITORY / "convex").url, "wrong"))
    assert done.returncode == CODE_OF_MAKE
    assert "so nothing was pushed" in done.stderr
    assert "Deploying" not in done.stderr
