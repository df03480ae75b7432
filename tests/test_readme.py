"""The README is executed: its session is what the program prints, its commands, flags and verbs exist."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from conftest import REPOSITORY, Cli

README = REPOSITORY / "README.md"
SESSION = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
# what differs from one run to the next: instants, ages, process ids, sizes
WHEN = r"(?:(?:\w{3} )?\d\d:\d\d UTC|in \d+ \w+|\d+ \w+ ago|tomorrow|today|now)"
COMMANDS = re.compile(r"`(heartbeat [^`]+)`")


def plain(session: str) -> list[str]:
    """The lines of a session without what differs from run to run; columns are as wide as their cells."""
    session = re.sub(WHEN, "<when>", session)
    session = re.sub(r"process \d+", "process <pid>", session)
    return [re.sub(r" +", " ", line) for line in session.splitlines()]


@dataclass(frozen=True)
class Newcomer:
    """Somebody with an empty home, whose local backend listens where no other test's does."""

    env: dict[str, str]
    url: str

    def type(self, command: str) -> str:
        """A line typed in the clone, and what the terminal shows then."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=REPOSITORY,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        shown = f"$ {command}\n{done.stdout}"
        for real, written in (
            (self.url, "http://127.0.0.1:7210"),
            (self.env["HOME"], "~"),
            (str(REPOSITORY), "~/convex-heartbeat"),
        ):
            shown = shown.replace(real, written)
        return shown


@pytest.fixture
def newcomer(cli: Cli) -> Iterator[Newcomer]:
    # the folders of somebody who never heard of XDG
    plain_home: dict[str, str | None] = {"XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None}
    url = cli("local", "up", "--port", "0", "--json", env=plain_home).data["url"]
    cli("local", "down", env=plain_home)
    yield Newcomer(cli.environment(plain_home), url)
    cli("local", "down", env=plain_home)


def test_the_session_is_what_the_program_prints(newcomer: Newcomer) -> None:
    text = README.read_text(encoding="utf-8")
    session = SESSION.search(text)
    assert session, "the README has lost its session"
    commands = [line[2:] for line in session[0].splitlines() if line.startswith("$ ")]
    real = "".join(newcomer.type(command) for command in commands)
    if os.environ.get("UPDATE_README"):
        README.write_text(text[: session.start()] + real + text[session.end() :], encoding="utf-8")
    else:
        assert plain(session[0]) == plain(real)


def test_every_command_and_flag_of_the_readme_exists(cli: Cli) -> None:
    helps: dict[str, str] = {}
    for command in set(COMMANDS.findall(README.read_text(encoding="utf-8"))):
        words = command.split()[1:]
        path = [words.pop(0)]
        if path[0] in {"agents", "tasks", "token", "cron", "local", "functions"} and words:
            path.append(words.pop(0))
        name = " ".join(path)
        if name not in helps:
            helps[name] = cli(*path, "--help").out
        for flag in (word for word in words if word.startswith("--")):
            assert flag in helps[name], f"`{command}`: `heartbeat {name}` has no {flag}"
    assert helps


def test_every_verb_of_the_readme_exists() -> None:
    verbs = re.findall(
        r"^([a-z-]+):.*##", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    named = set(re.findall(r"(?:^    |`)make ([a-z]+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= set(verbs)
