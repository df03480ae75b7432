"""`heartbeat send` against everything that can be wrong with a deployment and on the way to it.

Each row: a real peer that fails so, a real process, a deadline of 3 s. Then the same address leads to a real
local backend, and what was spooled is delivered there (by the body of `spool retry`, in this process): it is
recorded once, whatever had happened before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import silent_resolver
from attempts import (
    DEADLINE_S,
    OVERTIME_S,
    RECORDED,
    SETTLES_S,
    STARVED_S,
    Attempt,
    World,
    agent_of,
    attempt,
    edge,
    send,
    sentence,
    spooled,
    told,
)
from calls import TRANSPORTS
from conftest import Cli, Local
from deployment import Deployment, Faults
from heartbeat_cli.commands.spool import deliver_all
from heartbeat_cli.output import Answer
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Which
from peers import SELF_SIGNED, Deaf, Peer, answers, behind_tls, keeping_it, relays, silent, too_late

MAYBE = "it may have taken effect all the same"
# The first contact is one for both transports: what fails there fails alike
EITHER = ("auto",)


@dataclass(frozen=True)
class Row:
    """What is there at first, given the port of the real backend; the cause as the log names it (one of
    several), and words of what is said about it.

    `scheme` is what the sender's address says, if not what the peer speaks. `names`: the sender's host
    resolves no name in this way, and its address has one. `recorded`: it is, but its sender does not hear of
    it; `delivered`: and in the end it does. `piped`: an error is to come through a pipe, and never does.
    """

    peer: Callable[[int], Peer]
    cause: str
    words: str
    transports: tuple[str, ...] = TRANSPORTS
    scheme: Literal["http", "https"] = "http"
    names: silent_resolver.Mode | None = None
    recorded: bool = False
    delivered: bool = False
    piped: bool = False


def serving(status: str, body: str, kind: str = "text/plain") -> Callable[[int], Peer]:
    return lambda _port: Peer(answers(status, body, kind))


def relaying(**trouble: Any) -> Callable[[int], Peer]:
    return lambda port: Peer(relays(port, **trouble))


def behind_tls_relaying(port: int) -> Peer:
    return Peer(behind_tls(relays(port)))


def without_functions(**faults: Any) -> Callable[[int], Peer]:
    return lambda _port: Deployment({}, faults=Faults(**faults))


# Those that take all their time come first
TABLE = {
    "says nothing": Row(lambda _port: Peer(silent), "timeout", "did not answer within 3 s"),
    "says nothing, and standard input does not end": Row(
        lambda _port: Peer(silent), "timeout", "did not answer within 3 s", ("ws",), piped=True
    ),
    "records and says nothing": Row(
        relaying(until=RECORDED, then=keeping_it), "timeout", MAYBE, recorded=True
    ),
    "records when the sender has gone": Row(
        relaying(until=b"POST /api/mutation", then=too_late),
        "timeout",
        MAYBE,
        ("http",),
        recorded=True,
    ),
    "dies after each commit": Row(relaying(until=RECORDED), "timeout|cut", MAYBE, recorded=True),
    # The official client sends again by itself
    "dies after one commit": Row(
        relaying(until=RECORDED, times=1), "", "", ("ws",), recorded=True, delivered=True
    ),
    "takes no connection": Row(
        lambda _port: Deaf(full=True), "timeout", "did not take a connection within 1.0 s", EITHER
    ),
    "has a name and the resolver is silent": Row(
        relaying(),
        "unresolved",
        "localhost could not be resolved: the resolver did not",
        EITHER,
        names="silent",
    ),
    "has a name that is unknown": Row(
        relaying(),
        "unresolved",
        "localhost could not be resolved: Name or service not known",
        EITHER,
        names="unknown",
    ),
    "refuses connections": Row(lambda _port: Deaf(), "refused", "Connection refused", EITHER),
    "closes after each frame": Row(
        without_functions(close_after_each_frame=True), "cut", "closed the connection", ("ws",)
    ),
    "sends FatalError": Row(
        without_functions(fatal_error="too old"), "server_error", "ended the conversation: too old", ("ws",)
    ),
    "has no functions": Row(without_functions(), "function_missing", "has no function "),
    "answers 404": Row(serving("404 Not Found", "nope"), "not_convex", "answers 404 Not Found"),
    "answers 401": Row(serving("401 Unauthorized", "log in"), "not_convex", "answers 401 Unauthorized"),
    "answers 500": Row(
        serving("500 Internal Server Error", "oops"), "server_error", "answered 500 Internal Server Error"
    ),
    "answers with a web page": Row(
        serving("200 OK", "<!doctype html><h1>Welcome</h1>", "text/html"),
        "not_convex",
        "is not a Convex deployment",
    ),
    "speaks no TLS, addressed with": Row(
        relaying(), "tls", "with TLS, but does not speak TLS", scheme="https"
    ),
    "speaks TLS, addressed without": Row(behind_tls_relaying, "tls", "without TLS, but speaks TLS"),
    "shows a self-signed certificate": Row(
        behind_tls_relaying, "tls", "is not trusted: self-signed certificate", scheme="https"
    ),
}
# Where namespaces are not allowed test_contact.py has to do
NAMESPACES = silent_resolver.wrap([]) is not None
ROWS = {
    f"{transport}: {name}": (row, transport)
    for name, row in TABLE.items()
    if row.names is None or NAMESPACES
    for transport in row.transports
}


@dataclass(frozen=True)
class Record:
    """An attempt, and how things stood when its peer was well again."""

    first: Attempt
    came_late_s: float  # the last connection, from the end of the process
    log: str
    recorded_before: list[str]
    spooled_before: int
    second: Answer
    recorded: list[str]
    spooled_after: int


class Story:
    """One row: a host of its own, which sends one heartbeat to an address where things go wrong."""

    def __init__(self, name: str, folder: Path, world: World, peer: Peer) -> None:
        self.row, transport = ROWS[name]
        self.name, self.agent, self.world, self.peer = name, agent_of(name), world, peer
        # a name that only this test's own namespaces do not resolve
        host = "localhost" if self.row.names else "127.0.0.1"
        self.cli: Cli = world.sender(folder, f"{self.row.scheme}://{host}:{peer.port}", transport)

    def fails(self) -> Attempt:
        command = send(self.agent, self.name) + (["--error", "-"] if self.row.piped else [])
        if self.row.names:
            wrapped = silent_resolver.wrap(command, self.row.names)
            assert wrapped is not None
            command = wrapped
        return attempt(
            command,
            self.cli.environment(),
            self.cli.home,
            waits="timeout" in self.row.cause,
            piped=self.row.piped,
        )

    def heals(self, first: Attempt) -> Record:
        log = (self.cli.home / "logs" / "agent-heartbeat.log").read_text()
        before = log, self.world.recorded(self.agent), spooled(self.cli)
        came_late_s = self.peer.last_connection_at - first.ended_at
        well = relays(self.world.port)
        self.peer.becomes(behind_tls(well) if self.row.scheme == "https" else well)
        Spool(self.cli.data_dir).retry(Which())
        second = deliver_all(edge(self.cli))
        recorded = self.world.recorded(self.agent)
        return Record(first, came_late_s, *before, second, recorded, spooled(self.cli))


@pytest.fixture(scope="module")
def records(
    running: Local, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mapping[str, Record]]:
    """What became of each row that a test here asks about."""
    folder = tmp_path_factory.mktemp("senders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "SSL_CERT_FILE", str(SELF_SIGNED)
        )  # trusted by this process, which heals, and by no other
        yield from told(
            request,
            running,
            ROWS,
            lambda name, world, stack: Story(
                name, folder / agent_of(name), world, stack.enter_context(ROWS[name][0].peer(world.port))
            ),
        )


@pytest.mark.parametrize("name", ROWS)
def test_it_ends_in_time_and_says_why_it_was_only_spooled(records: Mapping[str, Record], name: str) -> None:
    row, _ = ROWS[name]
    sent = records[name].first
    assert sent.seconds <= DEADLINE_S + OVERTIME_S
    assert sent.left == ()
    assert sent.code == 0, sent
    if row.delivered:
        assert sent.out.startswith(agent_of(name)) and sent.err == ""
        return
    assert sent.out == ""
    said = sentence(sent, f"heartbeat: {agent_of(name)} is spooled, not delivered: ")
    assert "the deployment counts" not in sent.err
    cause = re.search(f" agent={agent_of(name)} outcome=spooled cause=(\\w+) ", records[name].log)
    assert cause is not None
    if sent.starved_s < STARVED_S or cause[1] != "timeout":
        assert cause[1] in row.cause.split("|")
        assert row.words in said
    assert "Traceback" not in sent.err


@pytest.mark.parametrize("name", ROWS)
def test_nothing_comes_later_and_when_all_is_well_it_is_recorded_once(
    records: Mapping[str, Record], name: str
) -> None:
    row, _ = ROWS[name]
    record = records[name]
    assert record.came_late_s <= SETTLES_S
    assert record.recorded_before == ([name] if row.recorded else [])
    assert record.spooled_before == (0 if row.delivered else 1)
    assert record.second.exit_code == 0, record.second
    assert record.recorded == [name]
    assert record.spooled_after == 0
