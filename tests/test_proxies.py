"""Whether a proxy stands in between, and what comes of one."""

from __future__ import annotations

import json

import pytest

from calls import FUNCTIONS, drive
from deployment import Deployment
from heartbeat_cli.proxies import proxy_applies
from peers import Peer, free_port, silent

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("url", "environ", "applies"),
    [
        ("https://a.convex.cloud", {"HTTPS_PROXY": PROXY}, True),
        ("https://a.convex.cloud", {"https_proxy": PROXY}, True),
        ("https://a.convex.cloud", {"ALL_PROXY": PROXY}, True),
        ("https://a.convex.cloud", {"HTTP_PROXY": PROXY}, False),
        ("https://a.convex.cloud", {"HTTPS_PROXY": ""}, False),
        ("https://a.convex.cloud", {"HTTPS_PROXY": PROXY, "NO_PROXY": "convex.cloud"}, False),
        ("https://a.convex.cloud", {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, False),
        ("https://a.convex.cloud", {"HTTPS_PROXY": PROXY, "NO_PROXY": "b.convex.cloud"}, True),
        ("https://a.convex.cloud", {"HTTPS_PROXY": PROXY, "NO_PROXY": "*", "no_proxy": "x"}, True),
        ("http://127.0.0.1:7210", {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}, False),
        ("http://localhost:7210", {"HTTP_PROXY": PROXY}, False),
        ("https://a.convex.cloud", {}, False),
    ],
)
def test_the_variables_say_whether_a_proxy_applies(url: str, environ: dict[str, str], applies: bool) -> None:
    assert proxy_applies(url, environ) is applies


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
        ("http://user:pw@127.0.0.1:PORT", 75, "the proxy on the way to http://deployment.example"),
        ("nonsense://user:pw@proxy", 2, "the proxy settings of the environment cannot be used"),
    ],
)
def test_a_proxy_that_does_not_work_is_named_without_its_password(
    proxy: str, exit_code: int, words: str
) -> None:
    closed = proxy.replace("PORT", str(free_port()))
    outcome = drive("http://deployment.example", "auto", env={"HTTP_PROXY": closed})

    assert outcome.code == exit_code
    assert words in outcome.error["message"]
    assert "pw" not in json.dumps(outcome.told) + outcome.stderr
