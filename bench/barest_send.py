"""The least that is a heartbeat on the same libraries: both calls, and no check, no deadline, no log.

HEARTBEAT_URL and HEARTBEAT_TOKEN say where to; the agent is the first argument.
"""

import os
import secrets
import sys
import time
from typing import Any

import pydantic
import typer

import convex


class Heartbeat(pydantic.BaseModel):
    """The payload, in the names of the wire."""

    heartbeatId: str
    agent: str
    sentAt: int
    deliveredAt: int
    status: str
    openTasks: int
    staleTasks: int


assert typer
token, agent = os.environ["HEARTBEAT_TOKEN"], sys.argv[1]
now, noise = int(time.time() * 1000), secrets.token_hex(10)
uuid = f"{now >> 16:08x}-{now & 0xFFFF:04x}-7{noise[:3]}-8{noise[3:6]}-{noise[6:18]}"

client = convex.ConvexClient(os.environ["HEARTBEAT_URL"])
request: dict[str, Any] = {"agent": agent, "at": now}
counts = client.query("queries/getAgentTaskCounts", {"token": token, "request": request})
heartbeat = Heartbeat(
    heartbeatId=uuid,
    agent=agent,
    sentAt=now,
    deliveredAt=now,
    status="ok",
    openTasks=int(counts["openTasks"]),
    staleTasks=int(counts["staleTasks"]),
)
client.mutation("mutations/recordHeartbeat", {"token": token, "heartbeat": heartbeat.model_dump()})
os._exit(0)  # a client left to the interpreter's own end can hang there
