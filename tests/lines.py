"""Many command lines in one process, each with its exit code, stdout and stderr: Python starts once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from conftest import Cli, Ran

_MANY = """
import contextlib, io, json, sys
from heartbeat_cli.cli import run
ran = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    ran.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ran))
"""


def many(cli: Cli, lines: Sequence[str], env: Mapping[str, str | None] | None = None) -> list[Ran]:
    """What the command does with these lines, over plain HTTP, in this environment."""
    words = [line.split() for line in lines]
    ran = cli(
        json.dumps(words),
        program=(sys.executable, "-c", _MANY),
        env={"HEARTBEAT_TRANSPORT": "http", **(env or {})},
    )
    assert ran.code == 0, ran.err
    return [Ran(*each) for each in json.loads(ran.out)]
