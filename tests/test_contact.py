"""Ways in which a call can fail, beside those of test_send_faults.py: a real peer, both transports."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import silent_resolver
from calls import DEADLINE_S, FUNCTIONS, RECORD, TOKEN, TRANSPORTS, Outcome, command, drive, run
from deployment import Deployment, Faults
from heartbeat_cli.client import (
    Connection,
    Deadline,
)
from heartbeat_cli.contact import first_contact
from heartbeat_cli.errors import Unreachable
from peers import Peer, answers, chatty, drips, free_port, redirects, slam

# --- the table: what a peer does, and what each transport makes of it


@dataclasses.dataclass(frozen=True)
class Case:
    """A peer, the cause that each transport names ("done": it gets through), and words of the sentence."""

    peer: Callable[[], Peer]
    ws: str
    http: str
    words: str = ""
    maybe_done: bool = False


def faulty(**faults: Any) -> Callable[[], Peer]:
    return lambda: Deployment(FUNCTIONS, faults=Faults(**faults))


def serving(status: str, body: str, kind: str = "text/plain") -> Callable[[], Peer]:
    return lambda: Peer(answers(status, body, kind))


TABLE = {
    "works": Case(faulty(), "done", "done"),
    "prints log lines": Case(faulty(log_lines=("hello", "{}")), "done", "done"),
    "answers everything but calls": Case(
        faulty(never_answer=True), "timeout", "timeout", "did not answer within 3 s", True
    ),
    "drips byte by byte": Case(
        lambda: Peer(drips()), "timeout", "timeout", "did not answer within 3 s", True
    ),
    "resets at once": Case(lambda: Peer(slam), "cut", "cut", "closed the connection", True),
    "is just restarting": Case(faulty(slam_first=3), "done", "cut", "closed the connection", True),
    # The official client tries again by itself, until the time is up; a POST is not repeated.
    "dies after the commit": Case(faulty(drop_after_commit=1), "done", "cut", "closed the connection", True),
    "lets no WebSocket through": Case(
        faulty(no_upgrade="403 Forbidden"), "cut", "done", "(403 Forbidden)", True
    ),
    "answers 503 as Convex does": Case(
        serving("503 Service Unavailable", '{"code":"Overloaded","message":"later"}', "application/json"),
        "server_error",
        "server_error",
        "Overloaded, later",
        True,
    ),
    "answers with other JSON": Case(
        serving("200 OK", '{"hello": "world"}', "application/json"),
        "not_convex",
        "not_convex",
        "not a Convex",
    ),
    "serves HTTP actions": Case(
        serving("404 Not Found", "No matching routes found"), "wrong_address", "wrong_address", "HTTP actions"
    ),
    "points elsewhere": Case(
        lambda: Peer(redirects("https://user:pw@elsewhere.example:444/a?b")),
        "wrong_address",
        "wrong_address",
        "only points to https://elsewhere.example:444",
    ),
    "speaks no HTTP": Case(
        lambda: Peer(chatty),
        "not_convex",
        "not_convex",
        "does not speak HTTP",
    ),
}
AT_ONCE = 4  # processes; they mostly wait
ROWS = [
    pytest.param(name, transport, id=f"{transport}: {name}") for name in TABLE for transport in TRANSPORTS
]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Mapping[tuple[str, str], Future[Outcome]]]:
    """All rows of the table, run several at a time: each mostly waits."""
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        futures = {}
        for name, case in TABLE.items():
            for transport in TRANSPORTS:
                peer = stack.enter_context(case.peer())
                fails = getattr(case, transport) != "done"
                futures[name, transport] = pool.submit(drive, peer.url, transport, fails=fails)
        yield futures


@pytest.mark.parametrize(("name", "transport"), ROWS)
def test_a_peer_that(outcomes: Mapping[tuple[str, str], Future[Outcome]], name: str, transport: str) -> None:
    """…is named by its cause, in one sentence, with a hint, within the deadline, by either transport."""
    case = TABLE[name]
    outcome = outcomes[name, transport].result()
    cause = getattr(case, transport)

    assert outcome.stderr == ""
    assert outcome.seconds <= DEADLINE_S + 1
    if cause == "done":
        assert outcome.told == {
            "values": [{"outcome": "recorded", "given": {"request": {"n": 1}, "token": "•••"}}]
        }
        assert outcome.code == 0
        return
    assert outcome.code == 75
    assert outcome.error["cause"] == cause
    assert outcome.error["maybeDone"] == case.maybe_done
    assert case.words in outcome.error["message"]
    assert outcome.error["message"].endswith("it may have taken effect all the same") == case.maybe_done
    assert "\n" not in outcome.error["message"]
    assert outcome.error["hint"]
    assert TOKEN not in json.dumps(outcome.told)
    assert "pw@" not in json.dumps(outcome.told)


def test_equal_causes_read_alike(outcomes: Mapping[tuple[str, str], Future[Outcome]]) -> None:
    def sentence(name: str, transport: str) -> str:
        told = outcomes[name, transport].result().error
        return "".join(char for char in told["message"] + told["hint"] if not char.isdigit())

    for name, case in TABLE.items():
        if case.ws == case.http != "done":
            assert sentence(name, "ws") == sentence(name, "http")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_where_nothing_listens_the_call_ends_at_once(transport: str) -> None:
    outcome = drive(f"http://127.0.0.1:{free_port()}", transport)

    assert (outcome.code, outcome.error["cause"], outcome.error["maybeDone"]) == (75, "refused", False)
    assert "Connection refused" in outcome.error["message"]
    assert "heartbeat local up" in outcome.error["hint"]
    assert outcome.seconds < 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_name_without_an_address_ends_the_call(transport: str) -> None:
    outcome = drive("https://no-such-deployment.invalid", transport)

    assert (outcome.code, outcome.error["cause"], outcome.error["maybeDone"]) == (75, "unresolved", False)
    assert "no-such-deployment.invalid" in outcome.error["message"]
    assert outcome.seconds <= DEADLINE_S + 1


# --- a resolver that never answers


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_resolver_that_never_answers_ends_the_call(transport: str) -> None:
    """Where namespaces are not allowed, a name without an address has to do (and the next test)."""
    argv = command("https://happy-animal-123.convex.cloud", transport, RECORD)
    wrapped = silent_resolver.wrap(argv)

    outcome = run(wrapped or argv)

    assert outcome.code == 75
    assert outcome.error["cause"] == "unresolved"
    assert outcome.seconds <= DEADLINE_S + 1
    if wrapped:
        assert "the resolver did not answer within 1.0 s" in outcome.error["message"]


def test_first_contact_waits_a_third_of_the_deadline_for_a_name() -> None:
    never = threading.Event()
    began = time.monotonic()

    with pytest.raises(Unreachable, match="the resolver did not answer") as caught:
        first_contact("https://slow.example", Deadline(1.5), resolve=lambda *_args, **_named: [never.wait()])

    assert caught.value.cause == "unresolved"
    assert 0.4 < time.monotonic() - began < 1.0


def test_an_address_that_takes_no_connection_is_a_timeout_with_nothing_sent() -> None:
    """A listener whose backlog is full drops what arrives, as a firewall does."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
        port = listener.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(contextlib.closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        with pytest.raises(Unreachable, match=r"did not take a connection within 0\.5 s") as caught:
            Connection(f"http://127.0.0.1:{port}", TOKEN, deadline=Deadline(1.5), transport="http").mutation(
                "record", "request", {}
            )

    assert caught.value.cause == "timeout"
    assert not caught.value.maybe_done
