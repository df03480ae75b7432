"""The local backend against Convex's own Python clients, unchanged, over the fixture app of tests/backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from convex.http_client import ConvexHttpClient

from conftest import NODE, REPOSITORY
from convex import ConvexError, ConvexInt64

CLIENT_SECONDS = 20
ID_LENGTH = 32


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running backend."""
    folder = tmp_path_factory.mktemp("backend")
    options = {
        "--functions": REPOSITORY / "tests" / "backend" / "app",
        "--data": folder / "db",
        "--admin-key-file": folder / "key",
        "--port": 0,
        "--site-port": 0,
    }
    command = [str(NODE), str(REPOSITORY / "backend" / "main.ts")]
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


def test_the_websocket_client_gets_every_kind_of_failure_from_queries_and_actions_too(url: str) -> None:
    lines = run_client(
        url,
        """
        for call, path, args in [(client.query, "notes:wrongReturn", {}), (client.query, "notes:add", {}),
                                 (client.query, "values:fail", {"data": [convex.ConvexInt64(7)]}),
                                 (client.action, "runtime:failingAction", {"name": "x"}),
                                 (client.action, "no:where", {}),
                                 (client.mutation, "notes:add", {"text": 5})]:
            try:
                call(path, args)
            except convex.ConvexError as error:
                print("ConvexError", error.data)
            except Exception as error:
                print(type(error).__name__, str(error).splitlines()[1])
        """,
    )
    assert lines == [
        "Exception ReturnsValidationError: Value does not match validator.",
        "Exception Trying to execute notes:add as Query, but it is defined as Mutation.",
        "ConvexError [ConvexInt64(7)]",
        "ConvexError {'name': 'x'}",
        "Exception Could not find public function for 'no:where'. Did you forget to deploy it?",
        "Exception ArgumentValidationError: Value does not match validator.",
    ]


def test_a_subscription_is_told_of_each_write_with_large_results_whole(url: str) -> None:
    assert run_client(
        url,
        """
        async def main():
            seen = []
            subscription = client.subscribe("rows:texts", {"list": "python"})
            async for texts in subscription:
                if not seen or texts != seen[-1]:
                    seen.append(texts)
                if len(seen) == 4:
                    break
                row = {"list": "python", "number": len(seen), "text": "é" * 40_000}
                client.mutation("rows:add", row)
            whole = {text for texts in seen for text in texts} == {"é" * 40_000}
            print([len(texts) for texts in seen], whole)

        asyncio.run(main())
        """,
    ) == ["[0, 1, 2, 3] True"]


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


def test_the_http_client_gets_every_kind_of_failure(url: str) -> None:
    client = ConvexHttpClient(url)
    with pytest.raises(ConvexError) as refused:
        client.mutation("notes:refuse", {})
    assert refused.value.data == {"code": "refused", "count": 3.0}
    with pytest.raises(ConvexError, match="just text"):
        client.mutation("notes:refuse", {"data": "just text"})
    for path, sentence in {
        "no:where": "Could not find public function",
        "not a path": "BadConvexFunctionIdentifier",
    }.items():
        with pytest.raises(Exception, match=sentence):
            client.query(path, {})


def test_the_http_client_passes_int64_bytes_and_special_floats(url: str) -> None:
    value: Any = {
        "int": ConvexInt64(-(2**63)),
        "bytes": b"\0\xff",
        "nan": float("inf"),
        "zero": 0,
        "deep": [[{}]],
    }
    assert ConvexHttpClient(url).query("values:echo", {"value": value}) == value
