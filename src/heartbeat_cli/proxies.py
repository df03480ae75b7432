"""Whether a proxy stands between here and a deployment. Which one it is, httpx finds out by itself."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from heartbeat_cli.contact import host_and_port

SUFFIX = "_proxy"  # of the variables, in any case: http_proxy, HTTPS_PROXY, ALL_PROXY, NO_PROXY
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def proxy_applies(url: str, environ: Mapping[str, str]) -> bool:
    """Whether `environ` names a proxy for a normalised `url`; never for this very host."""
    host, port = host_and_port(url)
    named = {
        name.lower().removesuffix(SUFFIX): value
        for name, value in sorted(environ.items())  # capitals first: the small letters win, as in curl
        if name.lower().endswith(SUFFIX) and value
    }
    if host in LOOPBACK or not (named.get(urlsplit(url).scheme) or named.get("all")):
        return False
    # 40 ms, rarely needed; undocumented, but what urllib and httpx ask, and it takes the variables
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # noqa: PLC0415

    return not proxy_bypass_environment(f"{host}:{port}", named)
