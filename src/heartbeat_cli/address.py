"""The two addresses of a deployment, that of its functions (`url`) and that of its HTTP actions (`site_url`):
what people write, and the one form this program uses.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from heartbeat_cli.errors import SettingsProblem

SITE_DOMAIN = ".convex.site"  # serves a deployment's HTTP actions
CLOUD_DOMAIN = ".convex.cloud"  # serves its functions: what this program needs
DASHBOARD_HOST = "dashboard.convex.dev"
HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]+")  # a name, or an IPv4 or IPv6 address
EXAMPLE = "https://happy-animal-123.convex.cloud"
SITE_EXAMPLE = "https://happy-animal-123.convex.site"


def normalise_url(text: str) -> str:
    """The deployment address in `text` as `scheme://host[:port]`, in lower case.

    A trailing slash and surrounding blanks are dropped, and so is a port that is the scheme's own. Raises
    `SettingsProblem` for anything that cannot be the address of a deployment, with what to write instead.
    """
    host, origin, problem = _read(text, "deployment address", EXAMPLE)
    if host == DASHBOARD_HOST:
        raise SettingsProblem(
            f"{origin} is the Convex dashboard, not a deployment",
            hint=f"the deployment's address stands there under Settings; {_hint(EXAMPLE)}",
        )
    if host.endswith(SITE_DOMAIN):
        raise SettingsProblem(
            f"{origin} is the address of the deployment's HTTP actions, not of its functions",
            hint=f"use {_with_domain(origin, SITE_DOMAIN, CLOUD_DOMAIN)}",
        )
    if problem is not None:
        raise problem
    return origin


def normalise_site_url(text: str) -> str:
    """As `normalise_url`, for the address of a deployment's HTTP actions."""
    host, origin, problem = _read(text, "address of the HTTP actions", SITE_EXAMPLE)
    if host.endswith(CLOUD_DOMAIN):
        raise SettingsProblem(
            f"{origin} is the address of the deployment's functions, not of its HTTP actions",
            hint=f"use {_with_domain(origin, CLOUD_DOMAIN, SITE_DOMAIN)}",
        )
    if problem is not None:
        raise problem
    return origin


def site_of(url: str) -> str | None:
    """The address of the HTTP actions of the deployment at a normalised `url`; None where it cannot be told
    from that: everywhere but in Convex's own cloud.
    """
    return (
        _with_domain(url, CLOUD_DOMAIN, SITE_DOMAIN)
        if (urlsplit(url).hostname or "").endswith(CLOUD_DOMAIN)
        else None
    )


def cloud_name(url: str) -> str | None:
    """The name of the deployment at a normalised `url` in Convex's own cloud, as in `happy-animal-123`."""
    host = urlsplit(url).hostname or ""
    return host.partition(".")[0] if host.endswith(CLOUD_DOMAIN) else None


def _read(text: str, what: str, example: str) -> tuple[str, str, SettingsProblem | None]:
    """Host and origin of an address; and what is the matter with it where it has more than that."""
    given = text.strip()
    hint = _hint(example)
    if not given:
        raise SettingsProblem(f"the {what} is empty", hint=hint)
    shown = _presentable(given)
    if " " in given or not given.isprintable():
        raise SettingsProblem(
            f"the {what} {shown!r} contains blanks or characters that cannot be seen", hint=hint
        )
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingsProblem(f"the {what} {shown!r} cannot be read", hint=hint) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise SettingsProblem(
            f"the {what} {shown!r} does not begin with https:// or http:// and a host", hint=hint
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsProblem(
            f"the {what} {shown!r} contains a user name or a password",
            hint="leave it out: the token is a setting of its own (HEARTBEAT_TOKEN or tokens.toml)",
        )
    try:
        host = host.lower() if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not HOST.fullmatch(host) or port == 0:
        raise SettingsProblem(f"the {what} {shown!r} has no valid host or port", hint=hint)
    origin = _origin(parts.scheme, host, port)
    problem = None
    if parts.path.strip("/") or parts.query or parts.fragment:
        problem = SettingsProblem(
            f"the {what} {shown!r} has more after the host than such an address has", hint=f"use {origin}"
        )
    return host, origin, problem


def _hint(example: str) -> str:
    return f"an address looks like {example} or http://127.0.0.1:7210"


def _with_domain(origin: str, old: str, new: str) -> str:
    before, _, after = origin.rpartition(old)
    return f"{before}{new}{after}"


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
