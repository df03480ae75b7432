"""A scripted Convex deployment: a peer that speaks enough of Convex's HTTP and WebSocket protocols for the
official client, with `Faults` to switch on.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from peers import Behaviour, HttpRequest, Peer, behind_tls, read_request, send_answer, silent, slam

Function = Callable[[Mapping[str, Any]], Any]


class Refusal(Exception):
    """What a function of a `Deployment` raises to answer with a ConvexError that carries `data`."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.data = data


class PlainError(Exception):
    """What a function of a `Deployment` raises to answer with an ordinary function error of this text."""


@dataclasses.dataclass(frozen=True)
class Faults:
    """What a `Deployment` does wrong; everything is off by default."""

    fatal_error: str | None = None  # answers every WebSocket call with a FatalError frame that says this
    close_after_each_frame: bool = False
    slam_first: int = 0  # resets so many connections before it listens to any
    drop_after_commit: int = 0  # so many times: runs the mutation, then cuts the connection, says nothing
    never_answer: bool = False  # takes calls, runs nothing, says nothing; GET /version still works
    no_upgrade: str | None = None  # answers a WebSocket handshake with this status, as some proxies do
    log_lines: tuple[str, ...] = ()  # printed by each function


class Deployment(Peer):
    """A small Convex deployment. `functions` maps a path to a function of its args; `calls` lists what was
    run.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        *,
        faults: Faults = Faults(),
        version: str = "local-test",
        tls: bool = False,
    ) -> None:
        behaviour: Behaviour = self._speak
        super().__init__(behind_tls(behaviour) if tls else behaviour, scheme="https" if tls else "http")
        self._functions = functions
        self._faults = faults
        self._version = version
        self._drops_left = faults.drop_after_commit
        self.calls: list[tuple[str, Any]] = []
        self.requests: list[HttpRequest] = []

    def _speak(self, connection: socket.socket) -> None:
        if self.connections <= self._faults.slam_first:
            slam(connection)
            return
        while True:
            request = read_request(connection)
            self.requests.append(request)
            if request.headers.get("upgrade", "").lower() == "websocket":
                if self._faults.no_upgrade:
                    send_answer(connection, self._faults.no_upgrade, b"no")
                    continue
                self._speak_websocket(connection, request)
                return
            path = urlsplit(request.path).path  # a proxy is given the whole address
            if path == "/version":
                send_answer(connection, "200 OK", self._version.encode())
            elif path in {"/api/query", "/api/mutation", "/api/function"}:
                self._answer_http(connection, request)
            else:
                send_answer(
                    connection,
                    "404 Not Found",
                    b'{"code":"NotFound","message":"no route"}',
                    "application/json",
                )

    def _answer_http(self, connection: socket.socket, request: HttpRequest) -> None:
        call = json.loads(request.body)
        if self._faults.never_answer:
            silent(connection)
            return
        result = self._run(call["path"], call["args"])
        if request.path.endswith("/api/mutation") and self._drops():
            raise EOFError
        answer: dict[str, Any] = {"logLines": list(self._faults.log_lines)}
        if isinstance(result, Refusal):
            text = "[Request ID: 0123456789abcdef] Server Error\nUncaught ConvexError"
            answer |= {"status": "error", "errorMessage": text, "errorData": result.data}
        elif isinstance(result, PlainError):
            answer |= {"status": "error", "errorMessage": str(result)}
        else:
            answer |= {"status": "success", "value": result}
        send_answer(connection, "200 OK", json.dumps(answer).encode(), "application/json")

    def _run(self, path: str, args: Mapping[str, Any]) -> Any:
        function = self._functions.get(path.removesuffix(":default"))
        if function is None:
            return PlainError(
                f"[Request ID: 0123456789abcdef] Server Error\nCould not find public function for '{path}'. "
                "Did you forget to run `npx convex dev` or `npx convex deploy`?"
            )
        self.calls.append((path.removesuffix(":default"), args))
        try:
            return function(args)
        except (Refusal, PlainError) as error:
            return error

    def _drops(self) -> bool:
        if self._drops_left > 0:
            self._drops_left -= 1
            return True
        return False

    def _speak_websocket(self, connection: socket.socket, request: HttpRequest) -> None:
        protocol = ServerProtocol(max_size=None)
        state = _Versions()
        with contextlib.suppress(ssl.SSLError):
            for message in _messages(connection, protocol, request):
                if self._faults.close_after_each_frame:
                    return
                answers = self._answer(message, state)
                if answers is None:
                    return
                for answer in answers:
                    protocol.send_text(json.dumps(answer).encode())
                for data in protocol.data_to_send():
                    connection.sendall(data)

    def _answer(self, message: Mapping[str, Any], state: _Versions) -> list[dict[str, Any]] | None:
        """The frames that answer this one; None to cut the connection."""
        kind = message["type"]
        if kind == "Connect":
            return [{"type": "Ping"}]
        if kind not in {"ModifyQuerySet", "Mutation"} or self._faults.never_answer:
            return []
        if self._faults.fatal_error is not None:
            return [{"type": "FatalError", "error": self._faults.fatal_error}]
        if kind == "ModifyQuerySet":
            results = [
                {"queryId": change["queryId"], "journal": None} | self._query(change)
                for change in message["modifications"]
                if change["type"] == "Add"
            ]
            return [state.transition(results, message["newVersion"])]
        result = self._run(message["udfPath"], message["args"][0])
        if self._drops():
            return None
        answer: dict[str, Any] = {"type": "MutationResponse", "requestId": message["requestId"]}
        answer |= {
            "logLines": list(self._faults.log_lines),
            "success": True,
            "result": result,
            "ts": state.now(),
        }
        if isinstance(result, (Refusal, PlainError)):
            text = "Uncaught ConvexError" if isinstance(result, Refusal) else str(result)
            answer |= {"success": False, "result": text}
            if isinstance(result, Refusal):
                answer["errorData"] = result.data
        return [answer, state.transition([], state.query_set)]

    def _query(self, change: Mapping[str, Any]) -> dict[str, Any]:
        result = self._run(change["udfPath"], change["args"][0])
        logs = list(self._faults.log_lines)
        if isinstance(result, Refusal):
            text = "Uncaught ConvexError"
            return {"type": "QueryFailed", "errorMessage": text, "errorData": result.data, "logLines": logs}
        if isinstance(result, PlainError):
            return {"type": "QueryFailed", "errorMessage": str(result), "logLines": logs}
        return {"type": "QueryUpdated", "value": result, "logLines": logs}


class _Versions:
    """The version counters of one WebSocket connection."""

    def __init__(self) -> None:
        self.query_set = 0
        self._ts = 0

    def now(self) -> str:
        return base64.b64encode(struct.pack("<Q", self._ts)).decode()

    def transition(self, modifications: list[dict[str, Any]], query_set: int) -> dict[str, Any]:
        start = {"querySet": self.query_set, "identity": 0, "ts": self.now()}
        self.query_set = query_set
        self._ts += 1
        end = {"querySet": self.query_set, "identity": 0, "ts": self.now()}
        return {
            "type": "Transition",
            "startVersion": start,
            "endVersion": end,
            "modifications": modifications,
        }


def _messages(
    connection: socket.socket, protocol: ServerProtocol, request: HttpRequest
) -> Iterator[dict[str, Any]]:
    """The JSON messages of a WebSocket whose handshake is `request`, until either side closes it."""
    protocol.receive_data(request.head)
    while True:
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                yield json.loads(bytes(event.data))
        for data in protocol.data_to_send():
            connection.sendall(data)
        more = connection.recv(65536)
        if not more:
            return
        protocol.receive_data(more)
