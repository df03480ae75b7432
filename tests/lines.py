"""Many command lines in one process, each with its exit code, stdout and stderr: Python starts once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Self

from conftest import COMMAND_TIMEOUT_S, Cli, Ran

_LINE_BY_LINE = """
import contextlib, io, json, sys
from heartbeat_cli.cli import run
lines, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO())
for line in lines:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(json.loads(line))
    print(json.dumps((code, out.getvalue(), err.getvalue())), flush=True)
"""


class Prompt:
    """The process: it does what each line says, over plain HTTP, and waits for the next one."""

    def __init__(self, cli: Cli, env: Mapping[str, str | None] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LINE_BY_LINE],
            env=cli.environment({"HEARTBEAT_TRANSPORT": "http", **(env or {})}),
            cwd=cli.home if cli.home.is_dir() else cli.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=COMMAND_TIMEOUT_S)

    def __call__(self, *words: str) -> Ran:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)
        return Ran(*json.loads(self._process.stdout.readline()))


def many(cli: Cli, lines: Sequence[str], env: Mapping[str, str | None] | None = None) -> list[Ran]:
    """What the command does with these lines, over plain HTTP, in this environment."""
    with Prompt(cli, env) as prompt:
        return [prompt(*line.split()) for line in lines]
