"""Plain HTTP: one attempt, the admin key in its header, answers of any shape and size."""

from __future__ import annotations

import pytest

from calls import FUNCTIONS
from deployment import Deployment, Faults
from heartbeat_cli.answer import Failure, Value
from heartbeat_cli.client import (
    Deadline,
    greeting,
    run_admin,
)
from heartbeat_cli.errors import Refused, SettingsProblem, Unreachable
from heartbeat_cli.transport_http import HttpTransport
from peers import Peer, answers


def test_a_call_is_made_once_and_never_repeated() -> None:
    """Over HTTP a deployment cannot tell a repetition from a second call."""
    with Deployment(FUNCTIONS, faults=Faults(drop_after_commit=1)) as peer:
        with pytest.raises(Unreachable) as caught:
            HttpTransport(peer.url, Deadline(5)).call("mutation", "record", dict)
        assert [path for path, _ in peer.calls] == ["record"]
    assert (caught.value.cause, caught.value.maybe_done) == ("cut", True)


def test_one_transport_serves_one_call_after_another() -> None:
    with Deployment(FUNCTIONS) as peer:
        transport = HttpTransport(peer.url, Deadline(5))
        for _ in range(3):
            assert transport.call("query", "count", dict) == Value(FUNCTIONS["count"]({}))
        transport.close()


@pytest.mark.parametrize(
    "answer", ["", "[]", "null", '{"status": "success"}', '{"status": "error"}', "[" * 100_000]
)
def test_an_answer_of_another_shape_is_no_deployments(answer: str) -> None:
    with Peer(answers("200 OK", answer, "application/json")) as peer, pytest.raises(Unreachable) as caught:
        HttpTransport(peer.url, Deadline(5)).call("query", "count", dict)
    assert caught.value.cause == "not_convex"


def test_an_error_of_the_older_convention_is_an_error_of_the_function() -> None:
    text = '{"status": "error", "errorMessage": "boom"}'
    with Peer(answers("560 Function Failed", text, "application/json")) as peer:
        assert HttpTransport(peer.url, Deadline(5)).call("query", "count", dict) == Failure("boom")


def test_the_admin_key_travels_in_its_header_and_calls_any_function() -> None:
    with Deployment(FUNCTIONS) as peer:
        answer = run_admin(peer.url, "key-1", "record", {"n": 1}, Deadline(5))

    assert answer == {"outcome": "recorded", "given": {"n": 1}}
    assert peer.requests[0].path == "/api/function"
    assert peer.requests[0].headers["authorization"] == "Convex key-1"


def test_a_wrong_admin_key_is_refused() -> None:
    bad_key = answers(
        "403 Forbidden", '{"code":"BadDeployKey","message":"The key key-1 is bad"}', "application/json"
    )
    with Peer(bad_key) as peer, pytest.raises(Refused) as caught:
        run_admin(peer.url, "key-1", "record", {}, Deadline(5))

    assert caught.value.code == "unauthorized"
    assert "key-1" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two\nlines", "ключ", "blank-after "])
def test_what_is_no_admin_key_is_never_shown(key: str) -> None:
    with pytest.raises(SettingsProblem, match="not one line of printable characters") as caught:
        run_admin("http://127.0.0.1:1", key, "record", {}, Deadline(5))

    assert not key or key not in str(caught.value)


def test_a_deployment_tells_its_version_and_anything_else_is_named() -> None:
    with Deployment(FUNCTIONS, version="2026.11") as peer:
        assert greeting(peer.url, Deadline(5)).version == "2026.11"
    with Peer(answers("200 OK", "<html>", "text/html")) as peer, pytest.raises(Unreachable) as caught:
        greeting(peer.url, Deadline(5))

    assert caught.value.cause == "not_convex"
