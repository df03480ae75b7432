"""Calls through `heartbeat_cli.client`, in a process of their own: `python drive.py SPEC`, SPEC being JSON.

Prints when it began and what came of it as one JSON object, and exits as the command line would.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import NoReturn

from heartbeat_cli.client import Connection, Deadline, leave
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable
from heartbeat_cli.proxies import proxy_applies


def main() -> NoReturn:
    spec = json.loads(sys.argv[1])
    began = time.monotonic()  # one clock for all processes of a machine
    deadline = Deadline(spec["deadline"])
    connection = Connection(
        spec["url"],
        spec["token"],
        deadline=deadline,
        transport=spec["transport"],
        proxied=proxy_applies(spec["url"], os.environ),
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
        print(json.dumps({"began": began, "error": told}))
        leave(error.exit_code)
    except KeyboardInterrupt:
        leave(130)
    print(json.dumps({"began": began, "values": values}))
    leave(0)


if __name__ == "__main__":
    main()
