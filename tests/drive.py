"""Calls through `heartbeat_cli.client`, in a process of their own: `python drive.py SPEC`, SPEC being JSON.

Prints when it began and what came of it as one JSON object, and exits as the command line would. (`work` is
that without the process.)
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from heartbeat_cli.client import Connection, Deadline, leave
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable
from heartbeat_cli.proxies import proxy_applies


def work(spec: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[int, dict[str, object]]:
    """Make the calls of `spec`; how the command line would exit, and what came of it."""
    began = time.monotonic()  # one clock for all processes of a machine
    connection = Connection(
        spec["url"],
        spec["token"],
        deadline=Deadline(spec["deadline"]),
        transport=spec["transport"],
        proxied=proxy_applies(spec["url"], environ),
    )
    try:
        values = [getattr(connection, kind)(path, "request", body) for kind, path, body in spec["calls"]]
    except HeartbeatError as error:
        told: dict[str, object] = {
            "message": str(error),
            "hint": error.hint,
            "code": error.code,
            "repr": repr(error),
        }
        if isinstance(error, Unreachable):
            told |= {"cause": error.cause, "maybeDone": error.maybe_done}
        if isinstance(error, Refused):
            told["data"] = error.data
        return error.exit_code, {"began": began, "error": told}
    return 0, {"began": began, "values": values}


def main() -> NoReturn:
    spec = json.loads(sys.argv[1])
    if spec["fails"]:  # so much of the time that is left a busy machine may take for the import alone
        importlib.import_module("heartbeat_cli.diagnosis")
    try:
        code, told = work(spec, os.environ)
    except KeyboardInterrupt:
        leave(130)
    print(json.dumps(told))
    leave(code)


if __name__ == "__main__":
    main()
