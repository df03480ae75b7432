"""Why the official client gets no answer: asked of peers that fail in one way each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from calls import FUNCTIONS
from deployment import Deployment, Faults
from heartbeat_cli.deadline import Late
from heartbeat_cli.diagnosis import trouble
from peers import Peer, answers, silent, slam


def faulty(**faults: Any) -> Callable[[], Peer]:
    return lambda: Deployment(FUNCTIONS, faults=Faults(**faults))


@pytest.mark.parametrize(
    ("peer", "cause", "words"),
    [
        (faulty(no_upgrade="403 Forbidden"), "cut", "no WebSocket gets through to it (403 Forbidden)"),
        (faulty(fatal_error="too old"), "server_error", "ended the conversation: too old"),
        (faulty(close_after_each_frame=True), "cut", "closed the connection"),
        (lambda: Peer(slam), "cut", "closed the connection"),
        (lambda: Peer(answers("404 Not Found", "nope")), "not_convex", "answers 404 Not Found"),
        (lambda: Peer(answers("503 Later", "busy")), "server_error", "answered 503 Later"),
    ],
    ids=["no upgrade", "fatal", "closes", "resets", "404", "503"],
)
def test_each_failure_has_its_sentence(peer: Callable[[], Peer], cause: str, words: str) -> None:
    with peer() as bad:
        found = trouble(bad.url, timeout_s=5)
    assert found is not None
    assert found.cause == cause and words in str(found)


def test_a_deployment_that_is_well_has_none() -> None:
    with Deployment(FUNCTIONS) as well:
        assert trouble(well.url, timeout_s=5) is None
        assert well.calls == [], "asking runs nothing"


@pytest.mark.parametrize(
    "peer", [lambda: Peer(silent), faulty(never_answer=True)], ids=["silent", "no answers"]
)
def test_one_that_says_nothing_is_late_and_no_later(peer: Callable[[], Peer]) -> None:
    with peer() as mute:
        began = time.monotonic()
        with pytest.raises(Late):
            trouble(mute.url, timeout_s=0.5)
        assert time.monotonic() - began < 2
