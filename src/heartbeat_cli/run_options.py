"""What is typed after `heartbeat run`, read without Typer: importing that takes longer than most commands.

`commands/run.py` declares the same options for the help; a line that cannot be read here goes there, to be
told what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from heartbeat_cli.durations import duration_ms

KILL_AFTER_S = 10.0  # what most programs need to tidy up, and what cron's users wait for
DELAY_MOST_S = 600.0  # as the schedule table has it
OUTPUT_BYTES = 10_000  # ten thousand characters are what a deployment keeps of a run
OUTPUT_MOST_BYTES = 40_000  # the same in characters of four bytes: more would only be cut there
_SIZE = re.compile(r"(\d{1,9})\s*(b|k|kb|kib|mb|mib)?", re.IGNORECASE)
_SIZES = {"": 1, "b": 1, "k": 1000, "kb": 1000, "kib": 1024, "mb": 1_000_000, "mib": 1 << 20}
SEPARATOR = "--"


class Misuse(Exception):
    """The line cannot be meant; `hint` says what can be."""

    def __init__(self, message: str, hint: str = "see heartbeat run --help") -> None:
        super().__init__(message)
        self.hint = hint


class Options:
    """One `heartbeat run`: the agent, the command, and how. Seconds, bytes; None where nothing was given.

    `url`, `home`, `deadline`, `transport`: what was typed, to be judged beside the command.
    """

    __slots__ = (
        "agent",
        "command",
        "deadline",
        "delay_s",
        "home",
        "kill_after_s",
        "max_output",
        "no_output",
        "no_overlap",
        "only_at",
        "quiet",
        "status_from_output",
        "summary",
        "timeout_s",
        "transport",
        "tz",
        "url",
    )

    def __init__(self, agent: str, command: list[str]) -> None:
        self.agent = agent
        self.command = command
        self.timeout_s: float | None = None
        self.kill_after_s = KILL_AFTER_S
        self.max_output = OUTPUT_BYTES
        self.delay_s: float | None = None
        self.summary: str | None = None
        self.only_at: str | None = None
        self.tz: str | None = None
        self.url: str | None = None
        self.home: str | None = None
        self.deadline: str | None = None
        self.transport: str | None = None
        self.no_output = self.no_overlap = self.status_from_output = self.quiet = False


def parse(words: list[str]) -> Options:
    """What the words after `run` mean. Raises `Misuse`."""
    if SEPARATOR not in words:
        raise Misuse(
            "there is no command: it stands after --", hint="heartbeat run AGENT [options] -- COMMAND …"
        )
    place = words.index(SEPARATOR)
    ours, command = words[:place], words[place + 1 :]
    if not command:
        raise Misuse("there is no command after --", hint="heartbeat run AGENT [options] -- COMMAND …")
    options = Options("", command)
    agents: list[str] = []
    left = iter(ours)
    for word in left:
        if not word.startswith("-"):
            agents.append(word)
            continue
        name, equals, value = word.partition("=")
        if name in _FLAGS and not equals:
            setattr(options, _FLAGS[name], True)
            continue
        if name not in _VALUES:
            raise Misuse(f"there is no option {word}")
        if not equals:
            following = next(left, None)
            if following is None:
                raise Misuse(f"{name} needs a value")
            value = following
        field, read = _VALUES[name]
        setattr(options, field, read(name, value))
    if len(agents) != 1:
        raise Misuse("the one agent that runs is named before --" if agents else "no agent is named")
    options.agent = agents[0]
    check_zone(options.tz, options.only_at)
    return options


def check_zone(tz: str | None, only_at: str | None) -> None:
    """A zone means nothing alone. Raises `Misuse`."""
    if tz is not None and only_at is None:
        raise Misuse("--tz is the zone of --only-at, which was not given")


def _text(_: str, value: str) -> str:
    return value


def _duration(name: str, value: str) -> float:
    ms = duration_ms(f"{value}s" if value.strip().isdecimal() else value)
    if ms is None:
        raise Misuse(f"{name} {value!r} is no duration such as 30s, 10m or 2h30m")
    return ms / 1000


def delay(name: str, value: str) -> float:
    """A random delay's most, in seconds. Raises `Misuse`, naming the option."""
    seconds = _duration(name, value)
    if seconds > DELAY_MOST_S:
        raise Misuse(f"{name} {value!r} is more than 10 min")
    return seconds


def _size(name: str, value: str) -> int:
    found = _SIZE.fullmatch(value.strip())
    size = int(found[1]) * _SIZES[(found[2] or "").lower()] if found else 0
    if not 0 < size <= OUTPUT_MOST_BYTES:
        raise Misuse(f"{name} {value!r} is no size such as 4kB, at most 40kB", hint="for none: --no-output")
    return size


_FLAGS = {
    "--no-output": "no_output",
    "--no-overlap": "no_overlap",
    "--status-from-output": "status_from_output",
    "--quiet": "quiet",
}
_VALUES: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "--timeout": ("timeout_s", _duration),
    "--kill-after": ("kill_after_s", _duration),
    "--max-output": ("max_output", _size),
    "--delay": ("delay_s", delay),
    "--summary": ("summary", _text),
    "--only-at": ("only_at", _text),
    "--tz": ("tz", _text),
    "--url": ("url", _text),
    "--home": ("home", _text),
    "--deadline": ("deadline", _text),
    "--transport": ("transport", _text),
}
