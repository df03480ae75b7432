from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from calls import FUNCTIONS, TOKEN, TRANSPORTS, drive
from heartbeat_cli.client import (
    Connection,
    Deadline,
    probe_version,
    run_admin,
    whole_numbers,
)
from heartbeat_cli.deadline import within
from heartbeat_cli.errors import Refused, SettingsProblem, Unreachable, UsageProblem
from peers import (
    SELF_SIGNED,
    Deployment,
    Peer,
    answers,
    free_port,
    silent,
)

# --- answers


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_whole_numbers_come_back_as_int(transport: str) -> None:
    with Deployment(FUNCTIONS) as peer:
        outcome = drive(peer.url, transport, ("query", "count", {}))

    returned = json.dumps(outcome.told["values"], sort_keys=True)
    assert returned == '[{"half": 0.5, "list": [3, {"deep": 1000000000000000}], "open": 12}]'


def test_numbers_that_are_not_whole_or_not_exact_stay_as_they_are() -> None:
    kept = [0.5, float("inf"), 2.0**60, True, None, "1.0", b"1"]

    assert whole_numbers(kept) == kept
    assert [type(value) for value in whole_numbers(kept)] == [type(value) for value in kept]
    assert [repr(value) for value in whole_numbers([1.0, -0.0, -3.0])] == ["1", "0", "-3"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", ["query", "mutation"])
def test_a_refusal_keeps_its_code_its_sentence_and_its_data(transport: str, kind: str) -> None:
    with Deployment(FUNCTIONS) as peer:
        outcome = drive(peer.url, transport, (kind, "refuse", {}))

    assert outcome.code == 1
    assert outcome.error["code"] == "unknown_agent"
    assert outcome.error["message"] == "there is no agent hint"
    assert outcome.error["data"] == {
        "code": "unknown_agent",
        "message": "there is no agent hint",
        "retryAfterMs": 5,
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_refusal_in_plain_words_is_one_too(transport: str) -> None:
    with Deployment(FUNCTIONS) as peer:
        outcome = drive(peer.url, transport, ("mutation", "refuseInWords", {}))

    assert (outcome.code, outcome.error["code"]) == (1, "refused")
    assert outcome.error["message"] == "refused: closed on Sundays"


@pytest.mark.parametrize(
    ("path", "words", "hint"),
    [
        ("throw", "Error: the tasks table is on fire", "request id 0123456789abcdef"),
        ("hidden", "failed at http://127.0.0.1: Server Error", "of another version"),
        ("invalid", "another version than this program: ArgumentValidationError: extra field", "make deploy"),
        ("quote", "•••", "request id"),
        ("nothing", "its answer is not an object", "make deploy"),
        ("missing", "has no function missing", "make deploy"),
    ],
)
def test_an_error_of_a_function_is_told_in_one_line_by_both_transports(
    path: str, words: str, hint: str
) -> None:
    with Deployment(FUNCTIONS) as peer:
        told = [drive(peer.url, transport, ("mutation", path, {})) for transport in TRANSPORTS]

    assert told[0].error == told[1].error
    assert told[0].code == 75
    assert words in told[0].error["message"].replace(f":{peer.port}", "")
    assert hint in told[0].error["hint"]
    assert not told[0].error["maybeDone"]
    assert TOKEN not in json.dumps(told[0].told)
    assert "\n" not in told[0].error["message"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_after_an_error_of_a_function_the_next_call_of_the_same_connection_works(transport: str) -> None:
    code = """
import sys
from heartbeat_cli.client import Connection, Deadline, leave
connection = Connection(sys.argv[1], "t", deadline=Deadline(5), transport=sys.argv[2])
for path in ("missing", "throw", "record"):
    try:
        print(connection.mutation(path, "request", {})["outcome"])
    except Exception as error:
        print(error.cause)
leave(0)
"""
    with Deployment(FUNCTIONS) as peer:
        done = subprocess.run(
            [sys.executable, "-c", code, peer.url, transport],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert done.stdout.split() == ["function_missing", "server_error", "recorded"]


@pytest.mark.parametrize("body", [{"x": "\udc80"}, {"x": float("nan")}, {"x": object()}])
def test_what_cannot_be_sent_is_refused_before_anything_is_sent(body: dict[str, Any]) -> None:
    with Deployment(FUNCTIONS) as peer, pytest.raises(UsageProblem) as caught:
        Connection(peer.url, TOKEN, deadline=Deadline(5), transport="http").mutation(
            "record", "request", body
        )

    assert peer.connections == 0
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_token_is_in_no_repr() -> None:
    assert TOKEN not in repr(Connection("http://127.0.0.1:1", TOKEN, deadline=Deadline(5)))


def test_without_a_token_none_is_sent() -> None:
    with Deployment(FUNCTIONS) as peer:
        Connection(peer.url, None, deadline=Deadline(5), transport="http").mutation("record", "request", {})

    assert peer.calls == [("record", {"request": {}})]


# --- which transport


def test_off_the_main_thread_auto_takes_http_and_ws_says_why_it_cannot() -> None:
    with Deployment(FUNCTIONS) as peer:
        auto = Connection(peer.url, TOKEN, deadline=Deadline(5))
        assert within(5, lambda: auto.mutation("record", "request", {}))["outcome"] == "recorded"
        assert [request.method for request in peer.requests] == ["POST"]

        forced = Connection(peer.url, TOKEN, deadline=Deadline(5), transport="ws")
        with pytest.raises(SettingsProblem) as caught:
            within(5, lambda: forced.mutation("record", "request", {}))

    assert caught.value.hint == "use --transport http"


def test_on_the_main_thread_auto_takes_the_official_client() -> None:
    with Deployment(FUNCTIONS) as peer:
        assert drive(peer.url, "auto").code == 0

    assert [request.headers.get("upgrade") for request in peer.requests] == ["websocket"]


def test_a_proxy_of_the_environment_is_used_and_makes_auto_take_http() -> None:
    with Deployment(FUNCTIONS) as proxy:
        outcome = drive("http://deployment.example", "auto", env={"HTTP_PROXY": proxy.url})

    assert outcome.told["values"][0]["outcome"] == "recorded"
    assert proxy.requests[0].path == "http://deployment.example/api/mutation"


def test_a_host_of_no_proxy_and_this_very_host_are_reached_without_the_proxy() -> None:
    with Deployment(FUNCTIONS) as peer, Peer(silent) as proxy:
        env = {"http_proxy": proxy.url, "ALL_PROXY": proxy.url, "NO_PROXY": ".invalid"}
        here = drive(peer.url, "auto", env=env)
        there = drive("http://deployment.invalid", "auto", env=env)

    assert here.code == 0
    assert [request.headers.get("upgrade") for request in peer.requests] == ["websocket"]
    assert there.error["cause"] == "unresolved"
    assert proxy.connections == 0


@pytest.mark.parametrize(
    ("proxy", "exit_code", "words"),
    [
        (f"http://user:pw@127.0.0.1:{free_port()}", 75, "the proxy on the way to http://deployment.example"),
        ("nonsense://user:pw@proxy", 2, "the proxy settings of the environment cannot be used"),
    ],
)
def test_a_proxy_that_does_not_work_is_named_without_its_password(
    proxy: str, exit_code: int, words: str
) -> None:
    outcome = drive("http://deployment.example", "auto", env={"HTTP_PROXY": proxy})

    assert outcome.code == exit_code
    assert words in outcome.error["message"]
    assert "pw" not in json.dumps(outcome.told) + outcome.stderr


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_certificate_of_an_authority_of_ones_own_is_trusted_through_ssl_cert_file(transport: str) -> None:
    with Deployment(FUNCTIONS, tls=True) as peer:
        outcome = drive(peer.url, transport, env={"SSL_CERT_FILE": str(SELF_SIGNED)})

    assert outcome.told["values"][0]["outcome"] == "recorded"


# --- the admin key, the version


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
        assert probe_version(peer.url, Deadline(5)) == "2026.11"
    with Peer(answers("200 OK", "<html>", "text/html")) as peer, pytest.raises(Unreachable) as caught:
        probe_version(peer.url, Deadline(5))

    assert caught.value.cause == "not_convex"


def test_a_connection_takes_no_such_address_either() -> None:
    with pytest.raises(SettingsProblem):
        Connection("https://x.convex.site", TOKEN, deadline=Deadline(5))


# --- starting and leaving


def test_importing_the_client_and_the_payload_loads_neither_transport_nor_tls() -> None:
    code = "import sys, heartbeat_cli.client, heartbeat_cli.heartbeat; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=True
    )

    heavy = {"convex", "httpx", "ssl", "asyncio", "http.client", "urllib.request", "rich", "typer"}
    assert heavy.isdisjoint(loaded.stdout.split())


def test_leave_writes_out_what_was_printed_and_gives_the_code() -> None:
    code = "import sys; from heartbeat_cli.client import leave; sys.stdout.write('last words'); leave(3)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=False
    )

    assert (done.returncode, done.stdout) == (3, "last words")


def test_leave_gives_the_code_even_where_nothing_can_be_written() -> None:
    code = "import sys; from heartbeat_cli.client import leave; sys.stdout.write('lost'); leave(3)"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, timeout=10, check=False, env={}
        )

    assert (done.returncode, done.stderr) == (3, b"")
