"""The client against our local backend as a process, with the functions of convex/, by both transports."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from calls import TOKEN, TRANSPORTS, Call, drive
from heartbeat_cli.client import Deadline, greeting, run_admin
from heartbeat_cli.engine import find_node
from heartbeat_cli.errors import Refused

ROOT = Path(__file__).parent.parent
STATUS: Call = ("query", "queries/getMonitorStatus", {})


@dataclass(frozen=True)
class Backend:
    url: str
    site_url: str
    admin_key: str


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    home = tmp_path_factory.mktemp("backend")
    key_file = home / "admin-key"
    argv: list[str | Path] = [
        find_node(os.environ),
        ROOT / "backend/main.ts",
        "--functions",
        ROOT / "convex",
        "--data",
        home / "db",
    ]
    argv += ["--port", "0", "--site-port", "0", "--admin-key-file", key_file]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        backend = Backend(ready["url"], ready["siteUrl"], key_file.read_text().splitlines()[0])
        token_hash = hashlib.sha256(TOKEN.encode()).hexdigest()
        first = {"request": {"tokenHash": token_hash, "name": "first", "scope": "admin"}}
        run_admin(backend.url, backend.admin_key, "heartbeat/setup:storeFirstToken", first, Deadline(10))
        yield backend
        process.terminate()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_query_answers_a_known_token_and_whole_numbers_are_int(backend: Backend, transport: str) -> None:
    outcome = drive(backend.url, transport, STATUS)

    assert outcome.code == 0
    assert outcome.told["values"][0]["contractVersion"] == 2
    assert json.dumps(outcome.told["values"][0]["sweepEveryMs"]) == "60000"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_mutation_that_is_refused_says_why(backend: Backend, transport: str) -> None:
    outcome = drive(
        backend.url,
        transport,
        ("mutation", "mutations/setAgentControl", {"agent": "nobody", "control": "paused"}),
    )

    assert (outcome.code, outcome.error["code"]) == (1, "unknown_agent")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_function_that_is_not_there_is_named(backend: Backend, transport: str) -> None:
    outcome = drive(backend.url, transport, ("query", "queries/getNothing", {}))

    assert (outcome.code, outcome.error["cause"]) == (75, "function_missing")
    assert "queries/getNothing" in outcome.error["message"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_arguments_of_another_version_are_named_without_the_token(backend: Backend, transport: str) -> None:
    outcome = drive(backend.url, transport, ("query", "queries/getMonitorStatus", {"unheard": 1}))

    assert (outcome.code, outcome.error["cause"]) == (75, "server_error")
    assert "of another version than this program" in outcome.error["message"]
    assert TOKEN not in json.dumps(outcome.told)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_address_of_the_http_actions_is_named(backend: Backend, transport: str) -> None:
    outcome = drive(backend.site_url, transport, STATUS)

    assert (outcome.code, outcome.error["cause"]) == (75, "wrong_address")


def test_a_wrong_admin_key_is_refused(backend: Backend) -> None:
    with pytest.raises(Refused) as caught:
        run_admin(backend.url, "not-the-key", "heartbeat/setup:storeFirstToken", {}, Deadline(10))

    assert caught.value.code == "unauthorized"


def test_the_backend_states_its_version(backend: Backend) -> None:
    said = greeting(backend.url, Deadline(10))
    assert said.version
    assert said.at is not None and abs(said.at - time.time() * 1000) < 60_000
