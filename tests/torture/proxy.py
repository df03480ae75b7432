"""A TCP proxy between the senders and the backend that does to each connection what its fate says.

    pass                 nothing
    delay                passes each chunk on only after a while
    refuse               resets the connection before a byte
    swallow              takes everything, passes nothing on, says nothing
    cut request          resets both sides within the request
    cut answer           resets both sides within the answer
    lose answer          resets both sides just before the answer that a heartbeat is recorded
    half-close request   ends what the client says early; the answer still comes
    half-close answer    ends the answer early; the client can go on talking
    mute                 keeps the connection open, but the rest of the answer never comes

Whatever happens, the address stays the same: the backend behind it may come back on another port. While it
is away nobody listens here.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from urllib.parse import urlsplit

from peers import BACKLOG, Peer, silent, slam
from torture.plan import Fate

CHUNK = 65_536
CONNECT_S = 5.0  # on loopback it is answered at once, or refused
RECORDED = b'"outcome"'  # stands in the answer to a heartbeat and in no other, over HTTP and WebSocket
CUTS = (
    *("refuse", "swallow", "cut request", "cut answer", "lose answer"),
    *("half-close request", "half-close answer", "mute"),
)
OF_ANSWERS = ("cut answer", "lose answer", "half-close answer", "mute")


class Proxy(Peer):
    """Holds its address as long as the block lasts. `done` counts what was really done to connections."""

    def __init__(self, fate: Callable[[int], Fate]) -> None:
        super().__init__(self._carry, backlog=None)
        # a port that was asked for by number stays ours while nobody listens
        self._listener.close()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._fate = fate
        self._numbers = count()
        self._backend: tuple[str, int] | None = None
        self._calm = False
        self.done: Counter[str] = Counter()
        # set whenever a sender has just been told that its heartbeat is recorded
        self.told = threading.Event()

    def lead_to(self, url: str | None) -> None:
        """Where connections go from now on; None: they are refused."""
        before, parts = self._backend, urlsplit(url or "")
        self._backend = (parts.hostname, parts.port) if parts.hostname and parts.port else None
        if self._backend is None and before is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
        elif self._backend is not None and before is None:
            self._listener.listen(BACKLOG)
            self._begin()

    def calm_down(self) -> None:
        """Pass everything on from now on; what is open now is closed."""
        self._calm = True
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _carry(self, client: socket.socket) -> None:
        fate = Fate("pass") if self._calm else self._fate(next(self._numbers))
        backend = self._backend
        if backend is None or fate.kind == "refuse":
            self.done["refuse" if backend else "away"] += 1
            slam(client)
            return
        if fate.kind == "swallow":
            self.done[fate.kind] += 1
            silent(client)
            return
        try:
            server = socket.create_connection(backend, CONNECT_S)
        except OSError:
            self.done["away"] += 1
            slam(client)
            return
        with server:
            server.settimeout(None)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Pair(client, server, fate, self).run()


class _Pair:
    """The two directions of one connection."""

    def __init__(self, client: socket.socket, server: socket.socket, fate: Fate, proxy: Proxy) -> None:
        self._client, self._server = client, server
        self._fate, self._proxy = fate, proxy
        self._is_cut = False

    def run(self) -> None:
        answers = threading.Thread(
            target=self._pump, args=("answer", self._server, self._client), daemon=True
        )
        answers.start()
        self._pump("request", self._client, self._server)
        answers.join()

    def _pump(self, what: str, source: socket.socket, sink: socket.socket) -> None:
        fate, done = self._fate, self._proxy.done
        mine = fate.kind in OF_ANSWERS if what == "answer" else fate.kind.endswith(" request")
        left = fate.after
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if fate.kind == "delay":
                    time.sleep(fate.delay_s)
                    done["delay"] += 1
                if mine and (RECORDED in data if fate.kind == "lose answer" else len(data) > left):
                    done[fate.kind] += 1
                    self._interfere(sink, data[:left])
                    silent(source)  # so that whoever speaks on does not notice
                    return
                left -= len(data)
                sink.sendall(data)
                if RECORDED in data:
                    self._proxy.told.set()
        if not self._is_cut:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def _interfere(self, sink: socket.socket, last: bytes) -> None:
        if self._fate.kind != "lose answer":
            sink.sendall(last)
        if self._fate.kind.startswith("half-close"):
            sink.shutdown(socket.SHUT_WR)
        elif self._fate.kind != "mute":
            self._is_cut = True
            for side in (self._client, self._server):
                # closed with a reset; a thread that reads from it learns of it at once
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RD)
