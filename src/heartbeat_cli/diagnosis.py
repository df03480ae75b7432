"""Why does the official client get no answer? The same questions again, asked plainly, one at a time.

Runs after a failure only, in a thread that may be left behind.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import struct
import time
from typing import Any
from uuid import uuid4

import httpcore

from heartbeat_cli import contact
from heartbeat_cli.deadline import Late
from heartbeat_cli.errors import Unreachable
from heartbeat_cli.transport_http import Reply, Session

READ_BYTES = 65536
TEXT, CLOSE = 0x1, 0x8
SHORT, LONG = 126, 127  # in a frame's length byte: the length follows in 2, in 8 bytes


def trouble(url: str, *, timeout_s: float) -> Unreachable | None:
    """What is wrong with the deployment at `url`; None when it is well. Raises `Late`."""
    end = time.monotonic() + timeout_s
    session = Session(url, proxied=False)
    with contextlib.closing(session):
        try:
            session.version(timeout_s=_left(end))
            return _websocket_trouble(session, end)
        except Unreachable as failure:
            return failure


def _websocket_trouble(session: Session, end: float) -> Unreachable | None:
    """Begin a conversation as the client does, and see whether it is let through, ended, or cut."""
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
    }
    stream = session.upgrade(headers, timeout_s=_left(end))
    if isinstance(stream, Reply):
        return contact.no_websocket(session.url, stream.line)
    connect = {
        "type": "Connect",
        "sessionId": str(uuid4()),
        "connectionCount": 0,
        "lastCloseReason": "",
        "clientTs": 0,
    }
    query_set = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": []}
    try:
        for message in (connect, query_set):
            stream.write(_frame(json.dumps(message).encode()), timeout=_left(end))
        return _ended(session.url, stream, end)
    except httpcore.TimeoutException:
        raise Late from None
    except httpcore.NetworkError:
        return contact.cut(session.url)


def _ended(url: str, stream: Any, end: float) -> Unreachable | None:
    """How the server ends the conversation; None when it goes on."""
    data = b""
    while True:
        more = stream.read(READ_BYTES, timeout=_left(end))
        if not more:
            return contact.cut(url)
        frames, data = _frames(data + more)
        for opcode, payload in frames:
            if opcode == CLOSE:
                return contact.cut(url, _close_reason(payload))
            message = _message(payload) if opcode == TEXT else {}
            if message.get("type") == "FatalError":
                return contact.fatal(url, str(message.get("error")))
            if message.get("type") == "Transition":
                return None


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise Late
    return left


def _frame(payload: bytes) -> bytes:
    """One text frame of a client. A mask of zeros is a mask; what is sent here needs none."""
    head = struct.pack("!BBH", 0x80 | TEXT, 0x80 | SHORT, len(payload))
    return head + bytes(4) + payload


def _frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole (opcode, payload) frames of a server that `data` begins with, and the rest."""
    frames = []
    while len(data) >= 2:  # noqa: PLR2004 - the two bytes every frame has
        start, length = 2, data[1] & 0x7F
        if length in {SHORT, LONG}:
            form = "!H" if length == SHORT else "!Q"
            start += struct.calcsize(form)
            if len(data) < start:
                break
            (length,) = struct.unpack(form, data[2:start])
        if len(data) < start + length:
            break
        frames.append((data[0] & 0x0F, data[start : start + length]))
        data = data[start + length :]
    return frames, data


def _close_reason(payload: bytes) -> str:
    code = int.from_bytes(payload[:2], "big")
    return f"{code} {payload[2:].decode('utf-8', 'replace')}".strip()


def _message(payload: bytes) -> dict[str, Any]:
    try:
        message = json.loads(payload)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
