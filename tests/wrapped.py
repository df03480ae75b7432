"""`heartbeat run` as a test sees it: its process, what it left, and what a real backend knows of the run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attempts import World
from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, Cli, alive, wait_for

PROCESSES_MARK = "HEARTBEAT_TEST_RUN"  # a variable that all processes of one run inherit
DEADLINE_S = 10.0


@dataclass
class Wrapped:
    """One `heartbeat run` that goes on. All its processes, wherever they moved, carry its mark."""

    process: subprocess.Popen[bytes]
    mark: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def processes(self) -> dict[int, str]:
        """The command line of each process of it that is left."""
        return marked(self.mark)

    def end(self) -> tuple[int, bytes, bytes]:
        """Wait for its end: exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=COMMAND_TIMEOUT_S)
        return self.process.returncode, out, err

    def leaves_nothing(self) -> None:
        """In the end no process of it is there any more."""
        wait_for(lambda: not self.processes())


def marked(mark: str) -> dict[int, str]:
    wanted = f"{PROCESSES_MARK}={mark}".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0") and alive(int(folder.name)):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
    return found


class Host:
    """Somebody who wraps commands, on a host of their own."""

    def __init__(self, cli: Cli, agent: str) -> None:
        self.cli = cli
        self.agent = agent
        self.cli.env.setdefault("HEARTBEAT_DEADLINE", f"{DEADLINE_S:g}")
        self._count = 0

    def words(self, command: Sequence[str], *options: str) -> list[str]:
        return [str(HEARTBEAT), "run", self.agent, *options, "--", *command]

    def begin(
        self,
        *command: str,
        options: Sequence[str] = (),
        before: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        **given: Any,
    ) -> Wrapped:
        self._count += 1
        mark = f"{self.cli.folder}-{self._count}"
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL} | dict.fromkeys(
            ("stdout", "stderr"), subprocess.PIPE
        )
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*before, *self.words(command, *options)],
            env=self.cli.environment(env) | {PROCESSES_MARK: mark},
            cwd=self.cli.folder,
            **pipes | given,
        )
        return Wrapped(process, mark)

    def run(self, *command: str, **given: Any) -> tuple[int, bytes, bytes]:
        """To the end; it leaves nothing behind."""
        wrapped = self.begin(*command, **given)
        ended = wrapped.end()
        wrapped.leaves_nothing()
        return ended

    def spooled(self) -> list[dict[str, Any]]:
        """The heartbeats that wait in the spool, oldest first."""
        file = self.cli.data_dir / "spool" / "spool.db"
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(file)) as database:
            if not database.execute("SELECT 1 FROM sqlite_schema").fetchone():  # it is being made
                return []
            rows = database.execute("SELECT body FROM entries ORDER BY number").fetchall()
        return [json.loads(body) for [body] in rows]


@contextlib.contextmanager
def ending(wrapped: Wrapped) -> Iterator[Wrapped]:
    """Whatever becomes of the test, nothing of it is left."""
    try:
        yield wrapped
    finally:
        while left := wrapped.processes():  # one may have begun another meanwhile
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        wrapped.process.communicate(timeout=COMMAND_TIMEOUT_S)


def runs(world: World, agent: str) -> list[dict[str, Any]]:
    """What the backend tells of the runs of an agent, the newest first."""
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"isDone": False}
    while not page["isDone"]:
        cursor = {"cursor": page["continueCursor"]} if found else {}
        page = world.ask("queries/getAgentRuns", {"agent": agent, "limit": 100} | cursor)
        found += page["runs"]
    return found


@pytest.fixture
def host_of(world: World, tmp_path: Path) -> Callable[[str], Host]:
    """Makes the host of an agent, whose backend is the `world` of the test's module."""
    return lambda agent: Host(world.sender(tmp_path / agent, f"http://127.0.0.1:{world.port}"), agent)
