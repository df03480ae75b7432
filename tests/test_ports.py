"""Who has a port, said of real processes."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

import pytest

from conftest import Cli, Local
from heartbeat_cli.ports import instance_name, is_free, taker
from peers import Behaviour, Peer, read_request, send_answer, silent


def taken_apart(taker: socket.socket) -> int:
    """Take a port whose neighbours no test gets by asking for any: the system gives those above 32767."""
    for port in random.sample(range(20_001, 30_000), 100):
        with contextlib.suppress(OSError):
            taker.bind(("127.0.0.1", port))
            taker.listen()
            return port
    raise AssertionError("none of a hundred ports is free")


@pytest.mark.parametrize("second", [False, True], ids=["the port", "the port of the HTTP actions"])
def test_a_taken_port_is_named_with_its_taker(local: Local, second: bool) -> None:
    with socket.socket() as taker:
        port = taken_apart(taker)
        ran = local.cli("local", "up", "--port", str(port - 1 if second else port))
    assert ran.code == 2
    assert f"port {port}" in ran.err
    assert f"process {os.getpid()}:" in ran.err
    assert "--port" in ran.err


def test_the_port_of_another_users_home_is_named_as_a_local_backend(running: Local, tmp_path: Path) -> None:
    told = running.status()
    ran = Cli(tmp_path)("local", "up", "--port", str(told.url).rpartition(":")[2])
    assert ran.code == 2
    assert f"another local backend (process {told.pid}:" in ran.err


def test_another_port_that_is_taken_leaves_the_one_that_runs_as_it_is(running: Local) -> None:
    before = running.status()
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        assert running.try_up("--port", str(taker.getsockname()[1])).code == 2
    assert running.status() == before


def test_a_port_is_free_or_taken_by_a_process_that_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.listen()
        assert not is_free("127.0.0.1", port)
        assert taker("127.0.0.1", port).startswith(f"process {os.getpid()}: ")
    assert is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", 0)


def once(status: str) -> Behaviour:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        send_answer(connection, status, b"local\n")

    return serve


@pytest.mark.parametrize(
    ("behaviour", "name"),
    [(once("200 OK"), "local"), (once("404 Not Found"), None), (silent, None)],
    ids=["a backend", "a web server", "somebody silent"],
)
def test_only_a_convex_backend_says_its_name(behaviour: Behaviour, name: str | None) -> None:
    with Peer(behaviour) as peer:
        assert instance_name("127.0.0.1", peer.port, 0.5) == name
