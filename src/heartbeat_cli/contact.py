"""Is there somebody to talk to? And one sentence for each thing that can be wrong on the way.

Both transports begin with `first_contact` and take their sentences from here, so equal causes read alike.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from heartbeat_cli.deadline import Deadline, Late, within
from heartbeat_cli.errors import Unreachable

CONTACT_S = 3.0  # longest wait for the name and the TCP connection: room for one lost packet
CONTACT_SHARE = 3  # and never more than this part of the deadline, so that the call itself has time
ANSWER_MARGIN_S = 0.25  # kept back for saying what happened: rendering an error and leaving
# When a call that was sent fails so, it may have taken effect; with the other causes it reached no function.
OUTCOME_UNKNOWN = frozenset({"timeout", "cut", "server_error"})
DEFAULT_PORTS = {"http": 80, "https": 443}

CHECK_ADDRESS = "check the deployment's address (heartbeat config shows it and where it came from)"
DEPLOY = "deploy the functions: make deploy, or for the local backend: heartbeat local up"
ADD_FUNCTIONS = (
    "put our functions there first: heartbeat functions add APP_DIR, then npx convex deploy in it; or in a"
    " clone of ours: make deploy"
)

Resolve = Callable[..., list[Any]]


def host_and_port(url: str) -> tuple[str, int]:
    """Where to connect to for a normalised `url`."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]


def first_contact(url: str, deadline: Deadline, *, resolve: Resolve = socket.getaddrinfo) -> None:
    """Resolve the host of `url` and open one TCP connection, in at most min(3 s, a third of the deadline).

    Returns when somebody listens; raises `Unreachable` with the cause `unresolved`, `refused` or `timeout`.
    The official client tells none of these from another: it retries for ever.
    """
    host, port = host_and_port(url)
    limit = min(CONTACT_S, deadline.seconds / CONTACT_SHARE, deadline.left())
    if limit <= 0:
        raise no_time(url, deadline.seconds)
    resolved: list[Any] = []

    def contact() -> None:
        resolved.extend(resolve(host, port, type=socket.SOCK_STREAM))
        failure: OSError | None = None
        for family, kind, protocol, _, address in resolved:
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.settimeout(limit)
                    probe.connect(address)
                return
            except ConnectionResetError:
                return  # it was taken, then dropped: somebody is there
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    try:
        within(limit, contact)
    except (Late, TimeoutError):
        if resolved:
            raise no_connection(url, limit) from None
        raise unresolved(url, f"the resolver did not answer within {limit:.1f} s") from None
    except (socket.gaierror, UnicodeError) as error:
        raise unresolved(url, os_reason(error)) from None
    except OSError as error:
        raise no_listener(url, os_reason(error)) from None


def os_reason(error: BaseException) -> str:
    """What the operating system said, in words."""
    return str(getattr(error, "strerror", None) or error)


def unresolved(url: str, reason: str) -> Unreachable:
    """The name in the address leads nowhere: `reason` is the resolver's."""
    host, _ = host_and_port(url)
    return Unreachable(
        f"the name {host} could not be resolved: {reason}",
        cause="unresolved",
        hint="check the spelling of the deployment's address, and the network",
    )


def no_listener(url: str, reason: str) -> Unreachable:
    """The host refuses connections to the port, or there is no way to it: `reason` is the system's."""
    return Unreachable(
        f"nothing answers at {url}: {reason}",
        cause="refused",
        hint="is it running? The local backend starts with: heartbeat local up",
    )


def no_connection(url: str, seconds: float) -> Unreachable:
    """The TCP connection did not come about within `seconds`: something drops what is sent."""
    return Unreachable(
        f"{url} did not take a connection within {seconds:.1f} s",
        cause="timeout",
        hint="check the network and any firewall; behind a proxy set HTTPS_PROXY",
    )


def no_answer(url: str, seconds: float) -> Unreachable:
    """Somebody took the connection and had not answered when the deadline of `seconds` was over."""
    return Unreachable(
        f"{url} took the connection but did not answer within {seconds:g} s",
        cause="timeout",
        hint="the deployment may be overloaded or hung; --deadline gives it more time",
    )


def no_time(url: str, seconds: float) -> Unreachable:
    """The deadline of `seconds` was over before this call could begin."""
    return Unreachable(
        f"no time was left of {seconds:g} s to call {url}",
        cause="timeout",
        hint="--deadline gives it more time",
    )


def cut(url: str, reason: str | None = None) -> Unreachable:
    """The connection was closed before the answer; `reason` is what the other side said, if it did."""
    because = f" ({reason})" if reason else ""
    return Unreachable(
        f"{url} closed the connection before it answered{because}",
        cause="cut",
        hint="the deployment may be restarting, or something on the way cuts connections",
    )


def no_websocket(url: str, status: str) -> Unreachable:
    """The deployment is well, but its WebSocket handshake was answered with `status`."""
    return Unreachable(
        f"{url} answers, but no WebSocket gets through to it ({status})",
        cause="cut",
        hint="something on the way allows plain HTTP only: use --transport http",
    )


def fatal(url: str, text: str) -> Unreachable:
    """The deployment ended the official client's conversation with the error `text`."""
    return Unreachable(
        f"{url} ended the conversation: {text}",
        cause="server_error",
        hint="the deployment and the official client do not understand each other: --transport http may work",
    )


def tls_only_there(url: str) -> Unreachable:
    """The address says http://, and the port speaks TLS."""
    return Unreachable(
        f"{url} is spoken to without TLS, but speaks TLS",
        cause="tls",
        hint=f"use https://{url.removeprefix('http://')}",
    )


def tls_only_here(url: str) -> Unreachable:
    """The address says https://, and the port speaks no TLS."""
    return Unreachable(
        f"{url} is spoken to with TLS, but does not speak TLS",
        cause="tls",
        hint=f"if it has none, use http://{url.removeprefix('https://')}",
    )


def tls_untrusted(url: str, reason: str) -> Unreachable:
    """The certificate is nobody's whom this host trusts: `reason` is OpenSSL's."""
    return Unreachable(
        f"the certificate of {url} is not trusted: {reason}",
        cause="tls",
        hint="if it is signed by an authority of your own, name that authority's file in SSL_CERT_FILE",
    )


def tls_failed(url: str, reason: str) -> Unreachable:
    """The TLS handshake failed in another way: `reason` is OpenSSL's."""
    return Unreachable(f"no TLS connection to {url}: {reason}", cause="tls", hint=CHECK_ADDRESS)


def redirected(url: str, target: str) -> Unreachable:
    """The address answers with a redirect to `target`: scheme, host and port, the rest may hold secrets."""
    return Unreachable(
        f"{url} only points to {target}",
        cause="wrong_address",
        hint="if that is the deployment, set it as the address (a token never follows a redirect)",
    )


def site_address(url: str) -> Unreachable:
    """The address is that of the deployment's HTTP actions."""
    return Unreachable(
        f"{url} serves a deployment's HTTP actions, not its functions",
        cause="wrong_address",
        hint="use its other address: .convex.cloud instead of .convex.site, or the port one lower",
    )


def not_convex(url: str, what: str) -> Unreachable:
    """Something else answers there; `what` says how that shows."""
    return Unreachable(f"{url} is not a Convex deployment: {what}", cause="not_convex", hint=CHECK_ADDRESS)


def failed(url: str, status: str) -> Unreachable:
    """The deployment, or what stands in front of it, answered with the HTTP error `status`."""
    return Unreachable(
        f"{url} answered {status}",
        cause="server_error",
        hint="the deployment, or what stands in front of it, has a problem of its own",
    )


def proxy_failed(url: str, reason: str) -> Unreachable:
    """The proxy that the environment names cannot be used; its address may hold a password."""
    return Unreachable(
        f"the proxy on the way to {url} cannot be used: {reason}",
        cause="refused",
        hint="check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY; NO_PROXY lists the hosts that need none",
    )


def perhaps_done(failure: Unreachable, kind: str) -> Unreachable:
    """`failure` of a call that was sent, saying so if it is a mutation, which may have taken effect."""
    if kind != "mutation":
        return failure
    return Unreachable(
        f"{failure}; it may have taken effect all the same",
        cause=failure.cause,
        hint=failure.hint,
        maybe_done=True,
    )
