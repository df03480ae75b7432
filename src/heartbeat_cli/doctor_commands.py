"""Whether the agents' own commands are found by cron's shell, which knows few folders: told without running
them. A command that works in a terminal and not under cron is the commonest trouble of all.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from heartbeat_cli.crontab_check import EDIT
from heartbeat_cli.crontab_lines import SHELL
from heartbeat_cli.doctor_cron import Cron
from heartbeat_cli.doctor_finding import Checks, Finding, ok, problem
from heartbeat_cli.schedule import Row

STARTERS = frozenset({"&&", "||", ";", "|", "&", "("})  # a command follows in the shell's grammar
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
# Words in which there is nothing for the shell to expand. A path from somewhere else is not known here
PLAIN_NAME = re.compile(r"[\w@%+=:,.-]+")
PLAIN_PATH = re.compile(r"/[\w@%+=:,./-]*")
WHICH_ARE_MISSING = 'for name; do command -v -- "$name" >/dev/null 2>&1 || printf "%s\\n" "$name"; done'


@dataclass(frozen=True, slots=True)
class Words:
    """What a command needs: `names` that the shell is to find, `programs` and `files` by their paths."""

    names: tuple[str, ...]
    programs: tuple[str, ...]
    files: tuple[str, ...]


def checks(cron: Cron) -> Checks:
    """Every check of this group."""
    yield "commands", partial(commands, cron)


def words_of(command: str, home: str) -> Words | None:
    """What can be told of a shell command without running it; None for one that no shell takes.

    The first word of each simple command, but for assignments, and what follows it at once if that is a path:
    the script of an interpreter. `~` is `home`.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    first, second = list[str](), list[str]()
    place = 0
    try:
        for token in lexer:
            if token in STARTERS:
                place = 0
            elif place or not ASSIGNMENT.match(token):
                place += 1
                path = f"{home}{token[1:]}" if token.startswith("~/") else token
                [[], first, second, []][min(place, 3)].append(path)
    except ValueError:
        return None
    return Words(
        tuple(found for found in first if PLAIN_NAME.fullmatch(found)),
        tuple(found for found in first if PLAIN_PATH.fullmatch(found)),
        tuple(found for found in second if PLAIN_PATH.fullmatch(found)),
    )


def commands(cron: Cron) -> Iterator[Finding]:
    """Is what the agents' commands name there, and on cron's PATH?"""
    given = cron.environment.needed()
    rows = [(row, words_of(row.command, given["HOME"])) for row in cron.rows() if row.command]
    if not rows:
        return
    if not os.access(given["SHELL"], os.X_OK):
        yield problem(f"the crontab has cron run its lines with {given['SHELL']}, which is not there", EDIT)
    names = sorted({name for _, words in rows if words for name in words.names})
    missing = set(cron.run([SHELL, "-c", WHICH_ARE_MISSING, SHELL, *names]).stdout.splitlines())
    troubles = [trouble for row, words in rows for trouble in _troubles(cron, row, words, missing)]
    yield from troubles
    if not troubles:
        path = given.get("PATH", "")
        yield ok(f"what the commands of {len(rows)} agents name is there, by cron's PATH {path}")


def _troubles(cron: Cron, row: Row, words: Words | None, missing: set[str]) -> Iterator[Finding]:
    edit = f"edit line {row.line} of {cron.settings.schedule_path}"
    if words is None:
        yield problem(f"{row.agent}: its command has a quote that does not end", edit)
        return
    for name in words.names:
        if name in missing:
            path = cron.environment.needed().get("PATH", "")
            here = shutil.which(name, path=cron.settings.inherited.get("PATH"))
            instead = f": write {here} for {name}" if here else ""
            yield problem(f"{row.agent}: {name} is not on cron's PATH ({path})", f"{edit}{instead}")
    for program in words.programs:
        if not os.access(program, os.X_OK):
            what = "may not be run" if os.access(program, os.F_OK) else "is not there"
            yield problem(f"{row.agent}: {program} {what}", edit)
    for file in words.files:
        if not os.access(file, os.F_OK):
            yield problem(f"{row.agent}: {file} is not there", edit)
