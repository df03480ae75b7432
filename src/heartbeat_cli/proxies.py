"""Whether a proxy stands between here and a deployment. What it is, httpx reads from the environment by
itself.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from heartbeat_cli.contact import host_and_port

PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def proxy_applies(url: str) -> bool:
    """Whether the environment names a proxy for `url` (HTTPS_PROXY, NO_PROXY, …); never for this very
    host.
    """
    host, port = host_and_port(url)
    if host in LOOPBACK or not any(name.lower() in PROXY_VARIABLES for name in os.environ):
        return False
    from urllib import request  # noqa: PLC0415 - 40 ms, rarely needed

    proxies = request.getproxies()
    named = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    return bool(named) and not request.proxy_bypass(f"{host}:{port}")
