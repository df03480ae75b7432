"""The watched agents as a deployment tells them, read whole, and kept for the day it cannot be reached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from heartbeat_cli import private_files

PAGE_LIMIT = 1000  # pages of 1,000 agents; more means that a cursor goes in circles
PAGE_ROWS = 1000  # the most there is, for one call; without it a page is meant for a subscription
CACHE_FOLDER = "last-known"

NOT_LINKED = "no row of the agents table says its name; watched all the same"
LINK = "let one say it (agentName in convex/fleet.ts), then heartbeat apply"

Row = Mapping[str, Any]
"""One agent as queries/getAgentDashboard tells it; unknown fields are kept, missing ones are unknown."""


class Caller(Protocol):
    """The part of a connection that reading needs."""

    def query(self, path: str, body_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `client.Connection` has it."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Every agent that is not retired, in the deployment's order, and what the monitor says of itself.

    `as_of` is this host's instant, in epoch milliseconds.
    """

    agents: list[Row]
    monitor: Mapping[str, Any]
    as_of: int


def fetch(connection: Caller, now_ms: Callable[[], int]) -> Fleet:
    """Read the whole fleet, page after page. Raises `Refused`, `Unreachable`."""
    agents = rows(connection)
    monitor = connection.query("queries/getMonitorStatus", "request", {})
    return Fleet(agents, monitor, now_ms())


def rows(connection: Caller) -> list[Row]:
    """Every agent that is not retired, in the deployment's order. Raises `Refused`, `Unreachable`."""
    return pages(connection, "queries/getAgentDashboard", "agents", {"limit": PAGE_ROWS})


def pages(
    connection: Caller, path: str, items: str, body: Mapping[str, Any], most: int | None = None
) -> list[Row]:
    """All items of a paged query, or the first `most` of them."""
    found: list[Row] = []
    cursor: str | None = None
    for _ in range(PAGE_LIMIT):
        page = connection.query(path, "request", {**body, **({"cursor": cursor} if cursor else {})})
        found += page[items]
        cursor = page["continueCursor"]
        if page["isDone"] or (most is not None and len(found) >= most):
            break
    return found[:most]


def keep(fleet: Fleet, data_dir: Path, url: str) -> None:
    """Remember the fleet as last known of this deployment. A disk that refuses costs only the memory."""
    file = _cache_file(data_dir, url)
    value = {"url": url, "asOf": fleet.as_of, "agents": fleet.agents, "monitor": fleet.monitor}
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.replace(file, json.dumps(value).encode("utf-8"))
    except OSError:
        return


def last_known(data_dir: Path, url: str) -> Fleet | None:
    """What `keep` kept for this deployment, or None."""
    try:
        value = json.loads(_cache_file(data_dir, url).read_bytes())
        return Fleet(list(value["agents"]), dict(value["monitor"]), int(value["asOf"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cache_file(data_dir: Path, url: str) -> Path:
    return data_dir / CACHE_FOLDER / f"{hashlib.sha256(url.encode('utf-8')).hexdigest()[:16]}.json"
