"""Scripted peers: real sockets on loopback that behave well, or badly on purpose.

`Peer(behaviour)` runs `behaviour(connection)` in a thread for each connection it accepts. It is a context
manager, listens on any free port, and is gone when the block ends; meanwhile it may become well, or worse
(`becomes`). deployment.py has one that speaks Convex.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Self

HERE = Path(__file__).parent
# Made once with: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 \
#   -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout self-signed.pem -out
# cert.pem
SELF_SIGNED = HERE / "data" / "self-signed.pem"

CLIENT_HELLO = b"\x16\x03"  # how a TLS client begins
BACKLOG = 64  # connections that wait to be accepted
FULL = 4  # so many fill a backlog of 0: the kernel keeps a few more than it was told

Behaviour = Callable[[socket.socket], None]
Turn = Callable[[socket.socket, socket.socket, bytes], None]
"""What a relay does with a part: (who sent it, to whom it was to be passed on, the part)."""


class Peer:
    """A listening socket on 127.0.0.1; every accepted connection gets a thread that runs `behaviour`."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        scheme: Literal["http", "https"] = "http",
        backlog: int | None = BACKLOG,
    ) -> None:
        """With None for `backlog` the port is held, but nothing listens there yet."""
        self._behaviour = behaviour
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        if backlog is not None:
            self._listener.listen(backlog)
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.connections = 0
        self.last_connection_at = 0.0  # by the monotonic clock
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._begin()
        return self

    def becomes(self, behaviour: Behaviour) -> None:
        """Serve every new connection so from now on, at the same address."""
        self._behaviour = behaviour

    def _begin(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        # close() alone does not wake a thread that waits in accept() or recv()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self.last_connection_at = time.monotonic()
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            self._behaviour(connection)


class Deaf(Peer):
    """An address where nobody takes a connection until it `becomes` something.

    Nothing listens there; or, if `full`, somebody whose backlog is full: the kernel drops what arrives, as a
    firewall does.
    """

    def __init__(self, *, full: bool = False) -> None:
        super().__init__(silent, backlog=0 if full else None)
        self._fillers = [socket.socket() for _ in range(FULL if full else 0)]

    def __enter__(self) -> Self:
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._unfill()
        super().__exit__()

    def becomes(self, behaviour: Behaviour) -> None:
        super().becomes(behaviour)
        self._unfill()
        self._listener.listen(BACKLOG)
        self._begin()

    def _unfill(self) -> None:
        for filler in self._fillers:
            filler.close()


def silent(connection: socket.socket) -> None:
    """Takes everything, answers nothing."""
    while connection.recv(65536):
        pass


def chatty(connection: socket.socket) -> None:
    """Says something of its own, as no web server does."""
    connection.sendall(b"hello, who is there?\r\n\r\n")
    silent(connection)


def slam(connection: socket.socket) -> None:
    """Closes at once, with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answers(status: str, body: str, content_type: str = "text/plain") -> Behaviour:
    """A web server that gives every request this one answer, `status` being e.g. "404 Not Found"."""

    def serve(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            send_answer(connection, status, body.encode(), content_type)

    return serve


def redirects(target: str) -> Behaviour:
    """A web server that sends every request elsewhere."""

    def serve(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())

    return serve


def drips(every_s: float = 0.2) -> Behaviour:
    """Answers each request one byte at a time, for ever: no read of it ever times out."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        )
        while True:
            connection.sendall(b" ")
            time.sleep(every_s)

    return serve


def relays(
    port: int, *, until: bytes | None = None, then: Turn | None = None, times: float = math.inf
) -> Behaviour:
    """Passes everything on to the real server on `port`, and back.

    The first `times` parts that contain `until`, from whichever side, it does not pass on: it does `then`
    instead, and cuts the connection.
    """
    left = [times]

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            other = {connection: server, server: connection}
            while True:
                for side in select.select([connection, server], [], [])[0]:
                    part = side.recv(65536)
                    if not part:
                        return
                    if until is not None and until in part and left[0] > 0:
                        left[0] -= 1
                        if then is not None:
                            then(side, other[side], part)
                        return
                    other[side].sendall(part)

    return serve


def keeping_it(_side: socket.socket, other: socket.socket, _part: bytes) -> None:
    """Says nothing more to the one to whom it was to be passed on."""
    silent(other)


def too_late(side: socket.socket, other: socket.socket, part: bytes) -> None:
    """Passes it on once the one who sent it has gone, as a server does that had been stopped."""
    while more := side.recv(65536):
        part += more
    other.sendall(part)
    other.recv(65536)


def behind_tls(behaviour: Behaviour, certificate: Path = SELF_SIGNED) -> Behaviour:
    """`behaviour`, spoken through TLS with a certificate that nobody signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            behaviour(wrapped)

    return serve


def free_port() -> int:
    """A port where nothing listens, and that the system gives to nobody by itself: from 32768 on it may be
    somebody's end of a connection by the time it is used.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@dataclasses.dataclass(frozen=True)
class HttpRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    head: bytes


def read_request(connection: socket.socket) -> HttpRequest:
    """The next HTTP request of this connection; EOFError when there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise EOFError
        data += more
        if data.startswith(CLIENT_HELLO):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            raise EOFError
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        more = connection.recv(65536)
        if not more:
            raise EOFError
        body += more
    return HttpRequest(method, path, headers, body, head + b"\r\n\r\n")


def send_answer(
    connection: socket.socket, status: str, body: bytes, content_type: str = "text/plain"
) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
