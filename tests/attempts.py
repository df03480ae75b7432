"""`heartbeat send` as cron starts it while something fails, and what became of it once all is well again.

Many such attempts run at once, because most of them wait: `Attempts` starts them, each test looks at its own.
The attempt itself is a process. What its host does before and after, when nothing fails, is done in this one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import pytest

from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, TABLE, Cli, Local
from heartbeat_cli import clock, config, tokens
from heartbeat_cli import send as sending
from heartbeat_cli.client import Connection, Deadline
from heartbeat_cli.command import Edge, Invocation
from heartbeat_cli.process import wait
from heartbeat_cli.times import HOUR_MS

DEADLINE_S = 3.0
OVERTIME_S = 1.0  # what may pass besides the deadline: starting Python (0.1 s here) and leaving
# A start takes 0.1 s of a core, naming a cause another 0.2 s: so many at once leave each a core of two
WORKING_AT_ONCE = 2
STARTED_S = 0.5  # from then on a process that waits for its deadline needs no core
WAITING_AT_ONCE = 16
STARVED_S = 0.3  # without a core: such a machine may leave no time to name a cause
SILENCE_S = 2.0  # after a process ended: so long nothing of its may come
SETTLES_S = 1.0  # what the kernel had taken before it ended is accepted by then
# Of what is to work, however busy the machine is
WELL = {"HEARTBEAT_TRANSPORT": "http", "HEARTBEAT_DEADLINE": "30"}
RECORDED = b'"outcome"'  # in an answer: the heartbeat is recorded, or was before


Result = TypeVar("Result")
Told_co = TypeVar("Told_co", covariant=True)


_working = threading.BoundedSemaphore(WORKING_AT_ONCE)


@dataclass(frozen=True)
class Attempt:
    """How one process ended.

    `seconds` go from its start to its end, without those in which the machine had no core for it, which are
    `starved_s`. `left` are the processes that it left behind, `ended_at` is monotonic.
    """

    code: int
    out: str
    err: str
    seconds: float
    starved_s: float
    ended_at: float
    left: tuple[int, ...]


def attempt(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, *, waits: bool = False, piped: bool = False
) -> Attempt:
    """Run `command` in a session of its own, to its end.

    `waits`: for its deadline, with little to do. `piped`: its standard input has no end.
    """
    with contextlib.ExitStack() as stack:
        with _working:
            began = time.monotonic()
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    env=env,
                    cwd=cwd,
                    stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            wait(lambda: _has_ended(process.pid), STARTED_S if waits else COMMAND_TIMEOUT_S)
        if not wait(lambda: _has_ended(process.pid), COMMAND_TIMEOUT_S):
            process.kill()
        ended = time.monotonic()
        starved_s = _without_a_core(process.pid)
        out, err = process.communicate()
    seconds = ended - began - starved_s
    return Attempt(process.returncode, out, err, seconds, starved_s, ended, _session(process.pid))


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not buried yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _without_a_core(pid: int) -> float:
    """Seconds for which a process could have gone on, but others had the cores; 0 where nobody counts."""
    try:
        _, waited_ns, _ = Path("/proc", str(pid), "schedstat").read_text().split()
    except OSError:
        return 0.0
    return int(waited_ns) / 1e9


def _session(leader: int) -> tuple[int, ...]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == leader:
                    found.append(int(folder.name))
    return tuple(found)


def send(agent: str, summary: str) -> list[str]:
    """The command whose deadline is tested; address, token and transport are in the environment."""
    return [str(HEARTBEAT), "send", agent, "--summary", summary, "--deadline", f"{DEADLINE_S:g}"]


def edge(cli: Cli) -> Edge:
    """What a command of theirs works with when its body runs in this process, where only `http` works."""
    settings = config.load(config.Flags(), cli.environment(WELL), cli.home)
    return Edge(settings, json=True, invocation=Invocation("", json=True), flags=config.Flags())


def sends_well(cli: Cli, agent: str, summary: str) -> sending.Sent:
    """What `heartbeat send` does on a host on which nothing fails, done in this process."""
    well, report = edge(cli), sending.Report(agent, summary=summary)
    return sending.send(report, well.settings, Deadline(well.settings.deadline_s), well.connect, clock.now)


def sentence(attempt: Attempt, beginning: str) -> str:
    """The one line on stderr that begins so."""
    [line] = [line for line in attempt.err.splitlines() if line.startswith(beginning)]
    return line


def agent_of(name: str) -> str:
    """The agent of the row of that name."""
    return "".join(char if char.isalnum() else "-" for char in name.lower())


class World:
    """A real local backend that watches these agents, and what it recorded of them."""

    def __init__(self, running: Local, agents: Sequence[str]) -> None:
        url = running.status().url
        assert url is not None
        self.port = int(url.rpartition(":")[2])
        kept = tokens.stored(running.cli.config_dir, url, [])
        assert kept is not None
        self.token = kept.text
        self._calls = Connection(url, self.token, deadline=Deadline(600), transport="http")
        rows = [{"agent": agent, "schedule": {"kind": "interval", "everyMs": HOUR_MS}} for agent in agents]
        self._calls.mutation("mutations/applySchedule", "schedule", {"source": "table", "agents": rows})

    def recorded(self, agent: str) -> list[str]:
        """The summaries of the heartbeats of this agent, in the order of their text."""
        history = self._calls.query("queries/getAgentHistory", "request", {"agent": agent})
        return sorted(heartbeat["summary"] for heartbeat in history["heartbeats"])

    def ask(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """What this query answers."""
        return self._calls.query(path, "request", request)

    def sender(self, folder: Path, url: str, transport: str = "auto") -> Cli:
        """Somebody on a host of their own, who sends to `url`."""
        folder.mkdir()
        env = {"HEARTBEAT_URL": url, "HEARTBEAT_TOKEN": self.token, "HEARTBEAT_TRANSPORT": transport}
        cli = Cli(folder, env)
        cli.write_schedule(TABLE)
        cli.env["HEARTBEAT_HOME"] = str(cli.home)
        return cli


def spooled(cli: Cli) -> int:
    """How many heartbeats are in somebody's spool, read by another than the program."""
    file = cli.data_dir / "spool" / "spool.db"
    if not file.exists():
        return 0
    with contextlib.closing(sqlite3.connect(file)) as database:
        [count] = database.execute("SELECT count(*) FROM entries").fetchone()
    return int(count)


class Story(Protocol[Told_co]):
    """A row of a table: the attempt that something makes fail, and what there is once all is well."""

    def fails(self) -> Attempt: ...
    def heals(self, first: Attempt) -> Told_co: ...


def told(
    request: pytest.FixtureRequest,
    running: Local,
    names: Collection[str],
    story: Callable[[str, World, contextlib.ExitStack], Story[Result]],
) -> Iterator[Mapping[str, Result]]:
    """What became of each row that a test of this session asks about; the body of a fixture."""
    asked = " ".join(item.name for item in request.session.items)
    world = World(running, [agent_of(name) for name in names])
    with contextlib.ExitStack() as stack:
        stories = {name: story(name, world, stack) for name in names if f"[{name}]" in asked}
        attempts: Attempts[Result] = stack.enter_context(Attempts())
        attempts.start({name: (story.fails, story.heals) for name, story in stories.items()})
        yield attempts


class Attempts(Mapping[str, Result]):
    """Attempts by name: a few at a time, in this order, and each healed once all of them were started.

    `fails(name)` makes the attempt, `heals(name, what it made)` what the test looks at.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WAITING_AT_ONCE)
        self._results: dict[str, Future[Result]] = {}

    def start(self, jobs: Mapping[str, tuple[Callable[[], Attempt], Callable[[Attempt], Result]]]) -> None:
        first = {name: self._pool.submit(fails) for name, (fails, _) in jobs.items()}
        for name, (_, heals) in jobs.items():
            self._results[name] = self._pool.submit(self._heal, first[name], heals)

    def __getitem__(self, name: str) -> Result:
        return self._results[name].result()

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @staticmethod
    def _heal(first: Future[Attempt], heals: Callable[[Attempt], Result]) -> Result:
        made = first.result()
        time.sleep(max(0.0, made.ended_at + SILENCE_S - time.monotonic()))
        return heals(made)
