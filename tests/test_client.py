from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from calls import FUNCTIONS, TOKEN, TRANSPORTS, drive
from deployment import Deployment
from heartbeat_cli.client import (
    Connection,
    Deadline,
)
from heartbeat_cli.deadline import within
from heartbeat_cli.errors import SettingsProblem, UsageProblem
from peers import SELF_SIGNED

# --- answers


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_whole_numbers_come_back_as_int(transport: str) -> None:
    with Deployment(FUNCTIONS) as peer:
        outcome = drive(peer.url, transport, ("query", "count", {}))

    returned = json.dumps(outcome.told["values"], sort_keys=True)
    assert returned == '[{"half": 0.5, "list": [3, {"deep": 1000000000000000}], "open": 12}]'


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
        ("throw", "Error: the tasks table is on fire", "logs tell more: look for 0123456789abcdef"),
        ("hidden", "failed at http://127.0.0.1: Server Error", "of another version"),
        ("invalid", "another version than this program: ArgumentValidationError: extra field", "make deploy"),
        ("quote", "•••", "look for 0123"),
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


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_certificate_of_an_authority_of_ones_own_is_trusted_through_ssl_cert_file(transport: str) -> None:
    with Deployment(FUNCTIONS, tls=True) as peer:
        outcome = drive(peer.url, transport, env={"SSL_CERT_FILE": str(SELF_SIGNED)})

    assert outcome.told["values"][0]["outcome"] == "recorded"


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
