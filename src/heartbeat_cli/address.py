"""The address of a deployment: what people write, and the one form this program uses."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from heartbeat_cli.errors import SettingsProblem

SITE_DOMAIN = ".convex.site"  # serves a deployment's HTTP actions
CLOUD_DOMAIN = ".convex.cloud"  # serves its functions: what this program needs
DASHBOARD_HOST = "dashboard.convex.dev"
HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]+")  # a name, or an IPv4 or IPv6 address
EXAMPLE = "https://happy-animal-123.convex.cloud"


def normalise_url(text: str) -> str:
    """The deployment address in `text` as `scheme://host[:port]`, in lower case.

    A trailing slash and surrounding blanks are dropped, and so is a port that is the scheme's own. Raises
    `SettingsProblem` for anything that cannot be the address of a deployment, with what to write instead.
    """
    given = text.strip()
    hint = f"an address looks like {EXAMPLE} or http://127.0.0.1:7210"
    if not given:
        raise SettingsProblem("the deployment address is empty", hint=hint)
    shown = _presentable(given)
    if " " in given or not given.isprintable():
        raise SettingsProblem(
            f"the deployment address {shown!r} contains blanks or characters that cannot be seen", hint=hint
        )
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingsProblem(f"the deployment address {shown!r} cannot be read", hint=hint) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise SettingsProblem(
            f"the deployment address {shown!r} does not begin with https:// or http:// and a host", hint=hint
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsProblem(
            f"the deployment address {shown!r} contains a user name or a password",
            hint="leave it out: the token is a setting of its own (HEARTBEAT_TOKEN or tokens.toml)",
        )
    try:
        host = host.lower() if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not HOST.fullmatch(host) or port == 0:
        raise SettingsProblem(f"the deployment address {shown!r} has no valid host or port", hint=hint)
    origin = _origin(parts.scheme, host, port)
    if host == DASHBOARD_HOST:
        raise SettingsProblem(
            f"{origin} is the Convex dashboard, not a deployment",
            hint=f"the deployment's address stands there under Settings; {hint}",
        )
    if host.endswith(SITE_DOMAIN):
        right = _origin(parts.scheme, host.removesuffix(SITE_DOMAIN) + CLOUD_DOMAIN, port)
        raise SettingsProblem(
            f"{origin} is the address of the deployment's HTTP actions, not of its functions",
            hint=f"use {right}",
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise SettingsProblem(
            f"the deployment address {shown!r} has more after the host than a deployment's address has",
            hint=f"use {origin}",
        )
    return origin


def _origin(scheme: str, host: str, port: int | None) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    if port is None or port == {"http": 80, "https": 443}[scheme]:
        return f"{scheme}://{bracketed}"
    return f"{scheme}://{bracketed}:{port}"


def _presentable(text: str) -> str:
    """`text` fit for a message: what stands before an @ or after the host may be a secret, and what is a
    secret must not reach a log.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    _, at, host = rest.rpartition("@")
    authority = re.split(r"[/?#]", host, maxsplit=1)[0]
    more = "/…" if host[len(authority) :].strip("/") else host[len(authority) :]
    return f"{scheme}{separator}{'…@' if at else ''}{authority}{more}"
