"""Convex's HTTP API through httpx: the transport for proxies, other threads and Windows.

Every request runs in a daemon thread that is waited for until the deadline and then left behind: no timeout
of httpx's bounds a name look-up, or a server that sends one byte a second. Redirects are never followed: a
request carries a token.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from heartbeat_cli import contact
from heartbeat_cli.answer import Answer, Args, Failure, Kind, Rejection, Value
from heartbeat_cli.contact import ANSWER_MARGIN_S
from heartbeat_cli.deadline import Deadline, Late, within
from heartbeat_cli.errors import Refused, SettingsProblem, Unreachable

MAX_ANSWER_BYTES = 64 * 2**20  # Convex's own limit for a value is 16 MiB, and JSON may escape much of it
MAX_VERSION_CHARS = 100  # a version is a word; a longer one is somebody's web page
LEAST_TIMEOUT_S = 0.01  # sockets take 0 for "do not wait" and refuse less
TLS_PROBE_S = 1.0  # for asking a port that talks nonsense whether it speaks TLS
FUNCTION_FAILED = 560  # an older convention of Convex's for "200, but the function failed"
TRY_LATER = frozenset({408, 429})
NOT_AN_ANSWER = "what it answers is no deployment's answer"
SITE_ANSWERS = ("No matching routes found", "does not have HTTP actions enabled")
PLAIN_TEXT_THERE = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}
)


class HttpTransport:
    """Calls functions of one deployment. Usable from any thread, one call at a time.

    `proxied`: through the proxy that the environment names for it.
    """

    def __init__(self, url: str, deadline: Deadline, *, proxied: bool = False) -> None:
        self._url = url
        self._deadline = deadline
        self._session = Session(url, proxied=proxied)

    def call(self, kind: Kind, path: str, args: Args) -> Answer:
        """One attempt, never repeated: over HTTP a deployment cannot tell a repetition from a second call.

        Raises `Unreachable`.
        """
        self._contact()
        try:
            return self._post(f"/api/{kind}", path, args(), {})
        except Unreachable as failure:
            if failure.cause not in contact.OUTCOME_UNKNOWN:
                raise
            raise contact.perhaps_done(failure, kind) from None

    def call_as_admin(self, admin_key: str, path: str, args: Mapping[str, Any]) -> Answer:
        """What any function, also an internal one, answers to the holder of the admin key.

        Raises `Unreachable`.
        """
        self._contact()
        return self._post("/api/function", path, args, {"authorization": f"Convex {admin_key}"})

    def greeting(self) -> Greeting:
        """What the deployment says of itself; raises `Unreachable`."""
        self._contact()
        reply = self._send("GET", "/version", b"", {})
        return Greeting(_version(self._url, reply), _instant(reply.date))

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._session.close()

    def _contact(self) -> None:
        if not self._session.proxied:
            contact.first_contact(self._url, self._deadline)
        if self._deadline.left() <= ANSWER_MARGIN_S:
            raise contact.no_time(self._url, self._deadline.seconds)

    def _post(self, route: str, path: str, args: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        call = json.dumps({"path": path, "args": args, "format": "json"}).encode()
        reply = self._send("POST", route, call, {"content-type": "application/json"} | dict(headers))
        return _answer(self._url, reply)

    def _send(self, method: str, route: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        left = max(LEAST_TIMEOUT_S, self._deadline.left() - ANSWER_MARGIN_S)
        try:
            return within(left, lambda: self._session.send(method, route, body, headers, timeout_s=left))
        except Late:
            raise contact.no_answer(self._url, self._deadline.seconds) from None


@dataclass(frozen=True, slots=True)
class Greeting:
    """The version that a deployment states, and the instant (epoch ms, to the second) that its clock shows;
    None where it shows none.
    """

    version: str
    at: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, read to its end."""

    status: int
    reason: str
    location: str
    text: str
    date: str = ""  # when it was answered, by the clock over there; nothing where it does not say

    @property
    def line(self) -> str:
        """Its status for people, as in `404 Not Found`."""
        return f"{self.status} {self.reason}".strip()

    def json(self) -> dict[str, Any]:
        """The JSON object that the body is; empty when it is none."""
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class Session:
    """httpx, set up for one deployment. Blocks; raises `Unreachable` with the cause, or `Late`."""

    def __init__(self, url: str, *, proxied: bool) -> None:
        self.url = url
        self.proxied = proxied
        try:
            self._client = httpx.Client(
                base_url=url, verify=_trusted(url), trust_env=proxied, follow_redirects=False
            )
        except (ImportError, ValueError):
            # httpx's own words would repeat the proxy's address, and with it perhaps a password
            raise SettingsProblem(
                "the proxy settings of the environment cannot be used",
                hint="HTTPS_PROXY, HTTP_PROXY and ALL_PROXY take an address such as http://proxy.example:3128",
            ) from None

    def send(
        self, method: str, route: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> Reply:
        """Send one request and read the whole answer; each single step of it may take `timeout_s`."""
        try:
            with self._client.stream(
                method, route, content=body, headers=headers, timeout=timeout_s
            ) as response:
                data = bytearray()
                for part in response.iter_bytes():
                    data += part
                    if len(data) > MAX_ANSWER_BYTES:
                        raise contact.not_convex(self.url, "its answer has no end")
        except httpx.TimeoutException:
            raise Late from None
        except httpx.HTTPError as error:
            raise _named(self.url, error, proxied=self.proxied) from None
        text = data.decode("utf-8", "replace")
        location, date = (response.headers.get(name, "") for name in ("location", "date"))
        return Reply(response.status_code, response.reason_phrase, location, text, date)

    def upgrade(self, headers: Mapping[str, str], *, timeout_s: float) -> Any:
        """Ask for a WebSocket: the stream that httpx hands over, or the `Reply` of a server that says no."""
        request = self._client.build_request("GET", "/api/sync", headers=headers, timeout=timeout_s)
        try:
            response = self._client.send(request, stream=True)
        except httpx.TimeoutException:
            raise Late from None
        except httpx.HTTPError as error:
            raise _named(self.url, error, proxied=self.proxied) from None
        if response.status_code == httpx.codes.SWITCHING_PROTOCOLS:
            return response.extensions["network_stream"]
        return Reply(response.status_code, response.reason_phrase, "", "")

    def version(self, *, timeout_s: float) -> str:
        """What the deployment states as its version; each single step of asking may take `timeout_s`."""
        return _version(self.url, self.send("GET", "/version", b"", {}, timeout_s=timeout_s))

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._client.close()


def _trusted(url: str) -> ssl.SSLContext:
    """Whom to trust: the system's authorities (and SSL_CERT_FILE), as the official client does, and
    certifi's, because some systems have none.
    """
    if url.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; reading the authorities takes 20 ms
    import certifi  # noqa: PLC0415 - comes with httpx; only TLS needs it

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _version(url: str, reply: Reply) -> str:
    version = reply.text.strip()
    if reply.status != httpx.codes.OK:
        raise _misfit(url, reply)
    if not version or len(version) > MAX_VERSION_CHARS or not version.isprintable() or version[0] in "<{":
        raise contact.not_convex(url, NOT_AN_ANSWER)
    return version


def _instant(date: str) -> int | None:
    try:
        return round(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return None


def _answer(url: str, reply: Reply) -> Answer:
    if reply.status not in {httpx.codes.OK, FUNCTION_FAILED}:
        raise _misfit(url, reply)
    match reply.json():
        case {"status": "success", "value": value}:
            return Value(value)
        case {"status": "error", "errorData": data}:
            return Rejection(data)
        case {"status": "error", "errorMessage": str(text)}:
            return Failure(text)
    raise contact.not_convex(url, NOT_AN_ANSWER)


def _origin(url: str, location: str) -> str:
    """Where a redirect leads to: without a user's name, password, path or query, which may hold secrets."""
    try:
        target = urlsplit(urljoin(url, location))
        return f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
    except ValueError:
        return "an address that is none"


def _misfit(url: str, reply: Reply) -> Unreachable:
    """The error behind an answer that is not one of the API's."""
    target = _origin(url, reply.location) if httpx.codes.is_redirect(reply.status) else url
    if target != url:
        return contact.redirected(url, target)
    if any(text in reply.text for text in SITE_ANSWERS):
        return contact.site_address(url)
    match reply.json():
        case {"code": "BadDeployKey"}:
            raise Refused(f"{url} does not accept the admin key", code="unauthorized")
        case {"code": str(code), "message": str(message)} if reply.status != httpx.codes.NOT_FOUND:
            return contact.failed(url, f"{reply.line}: {code}, {message}")
    if httpx.codes.is_server_error(reply.status) or reply.status in TRY_LATER:
        return contact.failed(url, reply.line)
    if url.startswith("http://") and reply.status == httpx.codes.BAD_REQUEST and _speaks_tls(url):
        return contact.tls_only_there(url)
    return contact.not_convex(url, f"it answers {reply.line}")


def _named(url: str, error: Exception, *, proxied: bool) -> Unreachable:
    """What an error of httpx's comes from, read from the exceptions it was made of."""
    origins = _origins(error)
    tls = next((origin for origin in origins if isinstance(origin, ssl.SSLError)), None)
    if tls is not None:
        return _named_tls(url, tls)
    if proxied and isinstance(error, (httpx.ConnectError, httpx.ProxyError)):
        return contact.proxy_failed(url, contact.os_reason(origins[-1]))
    if isinstance(origins[-1], socket.gaierror):
        return contact.unresolved(url, contact.os_reason(origins[-1]))
    if isinstance(origins[-1], ConnectionRefusedError):
        return contact.no_listener(url, contact.os_reason(origins[-1]))
    return _named_nonsense(url, error)


def _named_tls(url: str, error: ssl.SSLError) -> Unreachable:
    if isinstance(error, ssl.SSLCertVerificationError):
        return contact.tls_untrusted(url, error.verify_message)
    if error.reason in PLAIN_TEXT_THERE:
        return contact.tls_only_here(url)
    return contact.tls_failed(url, (error.reason or "no handshake").replace("_", " ").lower())


def _named_nonsense(url: str, error: Exception) -> Unreachable:
    if url.startswith("http://") and _speaks_tls(url):
        return contact.tls_only_there(url)
    if isinstance(error, httpx.DecodingError) or "illegal" in str(error).lower():
        return contact.not_convex(url, "it does not speak HTTP")
    return contact.cut(url)


def _origins(error: BaseException) -> list[BaseException]:
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    return chain


def _speaks_tls(url: str) -> bool:
    """Whether the port of `url` completes a TLS handshake, whosever certificate it shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = contact.host_and_port(url)
    try:
        with socket.create_connection((host, port), timeout=TLS_PROBE_S) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False
