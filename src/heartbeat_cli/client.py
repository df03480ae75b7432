"""One bounded call to Convex; the answer is returned, or sorted into `Refused` and `Unreachable`.

Two transports do the talking: the official client over a WebSocket (transport_ws.py) and plain HTTP
(transport_http.py). Importing this module is cheap: neither is loaded before the first call.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, Self

from heartbeat_cli.address import normalise_url
from heartbeat_cli.answer import Answer, Args, Failure, Kind, Rejection, Value
from heartbeat_cli.contact import DEPLOY
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import HeartbeatError, Refused, SettingsProblem, Unreachable, UsageProblem
from heartbeat_cli.scrub import remember, remember_key, scrubbed
from heartbeat_cli.shapes import Misshapen, plain, sound

__all__ = ["Connection", "Deadline", "greeting", "leave", "normalise_url", "run_admin"]

if TYPE_CHECKING:
    from heartbeat_cli.transport_http import Greeting

TransportName = Literal["auto", "ws", "http"]
Body = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What a function is given; or what makes it, for each attempt anew, and once before to be checked."""

ERROR_TEXT_MAX = 300  # characters of a function's error in our one sentence: the error, not its stack
SENTENCE_MAX = 2_000  # characters of any error: a deployment that is not ours may answer with megabytes
CODE_MAX = 64  # characters of a refusal's code, which is a word
REQUEST_ID = re.compile(r"\[Request ID: (\w+)\]\s*")
MISSING_FUNCTION = "Could not find public function"
MISSING_ANY_FUNCTION = "Could not find function"
OTHER_VERSION = ("ArgumentValidationError", "ReturnsValidationError")
HIDDEN_REASON = "Server Error"
UNAUTHORIZED = "unauthorized"


class _Transport(Protocol):
    def call(self, kind: Kind, path: str, args: Args) -> Answer: ...
    def close(self) -> None: ...


class Connection:
    """Calls to the functions of one deployment, all within one deadline. The token goes to this address only.

    `transport`: `ws` is the official client, for the main thread only; `http` works everywhere; `auto` takes
    `ws` where it can work and no proxy stands in between (`proxied`). A process that made a `ws` call has to
    end through `leave`.
    """

    def __init__(  # noqa: PLR0913 - what is said of a connection is said once, here
        self,
        url: str,
        token: str | None,
        *,
        deadline: Deadline,
        transport: TransportName = "auto",
        proxied: bool = False,
        unauthorized_hint: str | None = None,
    ) -> None:
        """Connects to nothing yet. Raises `SettingsProblem` for an address that cannot be a deployment's.

        `unauthorized_hint` is what to do when the deployment does not accept the token for a call.
        """
        self._url = normalise_url(url)
        self._token = token
        if token is not None:
            remember(token)
        self._deadline = deadline
        self._name = transport
        self._proxied = proxied
        self._unauthorized_hint = unauthorized_hint
        self._transport: _Transport | None = None

    def query(self, path: str, body_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What query `path` returns for `{body_name: body}` and the token; whole numbers come back as int.

        Raises `Refused` (a ConvexError), `UsageProblem` (the body cannot be sent at all) or `Unreachable`
        (anything else).
        """
        return self._call("query", path, body_name, body)

    def mutation(self, path: str, body_name: str, body: Body) -> dict[str, Any]:
        """As `query`, but for an `Unreachable` with `maybe_done`, which may have taken effect.

        `ws` may run a mutation more than once when connections are cut: what is sent needs an id of its own.
        """
        return self._call("mutation", path, body_name, body)

    def close(self) -> None:
        """Give back what the transport holds, if it was ever used."""
        if self._transport is not None:
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Connection({self._url!r})"

    def _call(self, kind: Kind, path: str, body_name: str, body: Body) -> dict[str, Any]:
        def args() -> dict[str, Any]:
            made = {body_name: body() if callable(body) else body}
            return made if self._token is None else made | {"token": self._token}

        _sendable(args())
        if self._transport is None:
            self._transport = _transport(self._url, self._deadline, self._name, proxied=self._proxied)
        try:
            with _fit_to_be_told():
                return _sound(self._url, path, self._transport.call(kind, path, args))
        except Refused as refused:
            if refused.code == UNAUTHORIZED:
                refused.hint = self._unauthorized_hint
            raise


def _transport(url: str, deadline: Deadline, name: TransportName, *, proxied: bool) -> _Transport:
    from heartbeat_cli import transport_ws  # noqa: PLC0415 - 5 ms: commands without a call do without

    if name == "auto":
        name = "ws" if transport_ws.can_work_here() and not proxied else "http"
    if name == "http":
        from heartbeat_cli.transport_http import HttpTransport  # noqa: PLC0415 - httpx takes 110 ms

        return HttpTransport(url, deadline, proxied=proxied)
    if not transport_ws.can_work_here():
        raise SettingsProblem(
            "the transport ws works on the main thread of a POSIX system only", hint="use --transport http"
        )
    return transport_ws.WsTransport(url, deadline)


def run_admin(  # noqa: PLR0913 - a call and the way to it
    url: str,
    admin_key: str,
    path: str,
    args: Mapping[str, Any],
    deadline: Deadline,
    *,
    proxied: bool = False,
) -> Any:
    """What any function, also an internal one, returns to the holder of an admin or deploy key.

    Always over HTTP; `proxied` as for `Connection`. The key goes to this address only, and from here on into
    no text. Raises as `Connection.query` does; a wrong key is `Refused` with the code `unauthorized`.
    """
    from heartbeat_cli.transport_http import HttpTransport  # noqa: PLC0415 - httpx takes 110 ms

    if not (admin_key.isascii() and admin_key.isprintable() and admin_key == admin_key.strip() and admin_key):
        raise SettingsProblem("the admin key is not one line of printable characters")
    remember_key(admin_key)
    _sendable(args)
    url = normalise_url(url)
    with _fit_to_be_told(), contextlib.closing(HttpTransport(url, deadline, proxied=proxied)) as transport:
        return _judged(url, path, transport.call_as_admin(admin_key, path, args))


def greeting(url: str, deadline: Deadline, *, proxied: bool = False) -> Greeting:
    """What the deployment at `url` says of itself to everybody; raises `Unreachable` with the cause."""
    from heartbeat_cli.transport_http import HttpTransport  # noqa: PLC0415 - httpx takes 110 ms

    transport = HttpTransport(normalise_url(url), deadline, proxied=proxied)
    with _fit_to_be_told(), contextlib.closing(transport):
        return transport.greeting()


def leave(code: int) -> NoReturn:
    """End this process with `code`, now. The only way out once a `ws` call was made.

    An ordinary exit can hang for a minute in the official client, or run a mutation that was given up.
    """
    for stream in (sys.stdout, sys.stderr):
        # a full disk, a closed pipe, no stream at all: too late to tell anybody
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _sendable(args: Mapping[str, Any]) -> None:
    try:
        json.dumps(args, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        # `from None`: the error's text would quote the arguments
        raise UsageProblem(
            "what was given contains text that is not valid Unicode, or a number that is none"
        ) from None


@contextlib.contextmanager
def _fit_to_be_told() -> Iterator[None]:
    """Errors of what is done in here hold no secret, whoever put it into them, and end somewhere.

    Convex quotes refused arguments in its error texts, and a token is one.
    """
    try:
        yield
    except HeartbeatError as error:
        error.args = (_told(str(error)),)
        error.hint = error.hint and _told(error.hint)
        raise


def _told(text: str) -> str:
    return scrubbed(text[:SENTENCE_MAX]) + ("…" if len(text) > SENTENCE_MAX else "")


def _sound(url: str, path: str, answer: Answer) -> dict[str, Any]:
    result = _judged(url, path, answer)
    try:
        if isinstance(result, dict):
            return sound(path, result)
    except Misshapen as problem:
        raise _other_version(url, path, str(problem)) from None
    raise _other_version(url, path, "its answer is not an object")


def _judged(url: str, path: str, answer: Answer) -> Any:
    """The value of an answer, or the error it stands for; no secret is in either."""
    try:
        match answer:
            case Value(value):
                return plain(value)
            case Rejection(data):
                raise _refused(plain(data))
            case Failure(text):
                raise _failed(url, path, text)
    except Misshapen as problem:
        raise _other_version(url, path, str(problem)) from None


def _refused(data: Any) -> Refused:
    if not isinstance(data, dict):
        return Refused(f"refused: {data}")
    code, message = data.get("code"), data.get("message")
    known = isinstance(code, str) and len(code) <= CODE_MAX
    return Refused(
        message if isinstance(message, str) and message else f"refused ({code or 'no reason given'})",
        code=code if known else None,
        data=data,
    )


def _failed(url: str, path: str, text: str) -> Unreachable:
    request = REQUEST_ID.search(text)
    lines = [line.strip() for line in REQUEST_ID.sub("", text).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0] == HIDDEN_REASON:
        lines = lines[1:]
    first = lines[0].removeprefix("Uncaught ") if lines else HIDDEN_REASON
    said = scrubbed(first[:SENTENCE_MAX])[:ERROR_TEXT_MAX]
    if MISSING_FUNCTION in text or MISSING_ANY_FUNCTION in text:
        return Unreachable(f"{url} has no function {path}", cause="function_missing", hint=DEPLOY)
    if said.startswith(OTHER_VERSION):
        return _other_version(url, path, said)
    where = "the deployment's logs tell more" + (f": look for {request[1]}" if request else "")
    if said == HIDDEN_REASON:
        where += "; production deployments also answer so when functions are missing or of another version"
    return Unreachable(f"{path} failed at {url}: {said}", cause="server_error", hint=where)


def _other_version(url: str, path: str, said: str) -> Unreachable:
    return Unreachable(
        f"{path} at {url} is of another version than this program: {said}",
        cause="server_error",
        hint=f"functions are deployed first, programs updated later; {DEPLOY}",
    )
