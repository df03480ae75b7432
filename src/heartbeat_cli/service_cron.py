"""The local backend in the user's crontab: started when the machine starts, and looked after each minute."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from heartbeat_cli.crontab_text import escaped

NAME = "local"  # of the block
# The second alone would do, a minute later. At boot both may come at once, which does no harm
WHEN = ("@reboot", "* * * * *")


def lines(command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """The lines; `command` is `heartbeat local keep`, `variables` what it needs and cron lacks."""
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    # What it has to say is in the backend's log: nobody reads cron's mail
    job = escaped(" ".join([*words, *map(shlex.quote, command), ">/dev/null 2>&1"]))
    return [f"{when} {job}" for when in WHEN]
