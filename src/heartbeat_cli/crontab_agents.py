"""Which agents of the schedule get lines in this host's crontab: those that its token may report for.

The token is the one that is kept for the address (cron has no other), and tokens.toml says whom it is for. A
command that our block runs already goes on running: what the token may is no reason to stop an agent.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from heartbeat_cli import crontab_text, tokens
from heartbeat_cli.config import TOKEN_VARIABLE
from heartbeat_cli.errors import SettingsProblem

if TYPE_CHECKING:
    from heartbeat_cli.config import Settings

# What one of our jobs is given: NAME=word and so on, as shlex.quote writes words. The command that it runs
# stands before that, and may look like it
_WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"])*"""
_GIVEN = re.compile(rf"(?<!\S)HEARTBEAT_HOME={_WORD}(?: [A-Z_]+={_WORD})*(?!.*HEARTBEAT_HOME=)")
SPOOL_LABEL = "the spool: what could not be delivered"


def reported(settings: Settings, above: Mapping[str, str]) -> frozenset[str] | None:
    """The agents that jobs of this host's cron may report for; None for all, and where nobody knows.

    `above`: what the crontab sets above our lines.
    """
    if settings.url is None or TOKEN_VARIABLE in above:
        return None
    try:
        kept = tokens.stored(settings.config_dir, settings.url, [])
    except SettingsProblem:  # which every command that needs the token tells
        return None
    if kept is not None and kept.scope == "read":
        return frozenset()
    return None if kept is None or kept.agents is None else frozenset(kept.agents)


def running(text: bytes, block: str) -> list[str]:
    """The agents whose command is run by this block."""
    stands = crontab_text.block_of(text, block) or []
    found = sections([line.decode(*crontab_text.ENCODING).removesuffix("\n") for line in stands])
    return [agent for agent, lines in found.items() if any(job.startswith("set -- ") for _, job in lines)]


def variables(text: bytes, block: str) -> dict[str, str]:
    """What the crontab gives to the jobs of this block: in lines above it, and in front of our program."""
    for entry in crontab_text.entries(text):
        found = _GIVEN.search(entry.command.decode(*crontab_text.ENCODING)) if entry.block == block else None
        if found:
            with suppress(ValueError):  # somebody else wrote it
                given = dict(word.split("=", 1) for word in shlex.split(found[0]))
                return crontab_text.variables(text, entry.number) | given
    return crontab_text.variables(text, crontab_text.block_begins(text, block))


def sections(lines: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """The lines of each agent, under the comment that names it: (five fields, job)."""
    found: dict[str, list[tuple[str, str]]] = {}
    current = ""
    for line in lines:
        if line.startswith("# "):
            label = line.removeprefix("# ")
            current = label if label == SPOOL_LABEL else label.partition(":")[0]
        elif len(parts := line.split(maxsplit=5)) > 5:  # noqa: PLR2004 - five fields and what to do
            found.setdefault(current, []).append((" ".join(parts[:5]), parts[5]))
    return found
