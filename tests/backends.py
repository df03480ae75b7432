"""The real local backend as a process that a test starts, kills and starts again on the same data."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from conftest import BACKEND, CLOCK, COMMAND_TIMEOUT_S, COMPILED, NODE
from heartbeat_cli.client import Deadline, run_admin

ADMIN_S = 30.0  # far beyond what an internal function takes


class Backend:
    """One data folder in `folder`, served by at most one process at a time; `clock` is the file it reads."""

    def __init__(self, folder: Path, bundle: Path, clock: Path) -> None:
        self.folder = folder
        self.database = folder / "db" / "data.sqlite3"
        self.log = folder / "backend.log"
        self._admin_key = folder / "admin-key"
        self._bundle = bundle
        self._clock = clock
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        folder.mkdir(exist_ok=True)

    def spawn(self, port: int = 0) -> subprocess.Popen[str]:
        """Start a process, which is not ready yet; on any free port, if none is given."""
        command = [str(NODE), "--import", CLOCK.as_uri(), str(BACKEND / "main.ts")]
        command += ["--functions", str(self._bundle), "--data", str(self.folder / "db")]
        command += ["--port", str(port), "--site-port", "0", "--admin-key-file", str(self._admin_key)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment()
            )
        return self.process

    def wait_until_ready(self) -> bool:
        """Wait for the process that was spawned last; false if it ended before it was ready."""
        assert self.process is not None and self.process.stdout is not None
        with self.process.stdout:  # it says no more
            line = self.process.stdout.readline()
        if not line.endswith("\n"):
            return False
        self.url = json.loads(line)["url"]
        return True

    def start(self, port: int = 0) -> str:
        """Spawn, wait, and say where it answers."""
        self.spawn(port)
        assert self.wait_until_ready(), self.log.read_text()
        return self.url

    def kill(self) -> None:
        """SIGKILL, and wait for the end; nothing if none runs."""
        if self.process is not None and self.process.poll() is None:
            self._end(SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return self._end(SIGTERM)

    def admin(self, path: str, args: Mapping[str, Any], seconds: float = ADMIN_S) -> Any:
        """What any function, also an internal one, answers to the owner of the deployment."""
        key = self._admin_key.read_text().splitlines()[0]
        return run_admin(self.url, key, path, args, Deadline(seconds))

    def check(self) -> Any:
        """What `--check` says of the data; no process may be running."""
        command = [str(NODE), str(BACKEND / "main.ts"), "--check", "--data", str(self.folder / "db")]
        done = subprocess.run(
            command,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return json.loads(done.stdout)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "STORY_CLOCK": str(self._clock),
            "NODE_COMPILE_CACHE": str(COMPILED),
        }

    def _end(self, signal: int) -> int:
        assert self.process is not None
        self.process.send_signal(signal)
        return self.process.wait(timeout=COMMAND_TIMEOUT_S)
