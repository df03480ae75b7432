"""What the tests of exports and imports move: made-up records, and a deployment of lists that keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployment import Deployment, Refusal
from heartbeat_cli.client import Connection
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.heartbeat import heartbeat_id
from heartbeat_cli.move_ends import End
from heartbeat_cli.move_export import Exported, export
from heartbeat_cli.move_format import encoded
from heartbeat_cli.move_records import KINDS

AT = 1_763_800_000_000
Records = dict[str, list[dict[str, Any]]]


def heartbeat(nth: int, agent: str = "hint", **more: Any) -> dict[str, Any]:
    at = AT + nth * 60_000
    return {
        "heartbeatId": heartbeat_id(at, nth.to_bytes(10, "big")),
        "agent": agent,
        **dict.fromkeys(("sentAt", "deliveredAt", "receivedAt", "livenessAt"), at),
        "status": "ok",
        "rawStatus": "ok",
        "summary": f"run {nth}: ✓ “quoted”",
        "openTasks": 3,
        "staleTasks": 1,
        "countsCapped": False,
        "countedBy": "sender",
        **more,
    }


def agent(name: str = "hint", **more: Any) -> dict[str, Any]:
    return {
        "agent": name,
        "source": "the test",
        "schedule": {"kind": "interval", "everyMs": 3_600_000},
        "graceMs": 300_000,
        "graceComputed": True,
        "misses": 2,
        "control": "active",
        "health": "new",
        **dict.fromkeys(("controlSince", "healthSince", "noticedAt", "resetAt"), AT),
        "openRuns": [],
        "hosts": [],
        "runsSinceActed": 0,
        **more,
    }


def flip(nth: int, name: str = "hint") -> dict[str, Any]:
    return {
        "agent": name,
        "from": "new",
        "to": "ok",
        "reason": "first report",
        "becameAt": AT + nth,
        "noticedAt": AT + nth,
    }


def records(heartbeats: int = 3, flips: int = 2, agents: Sequence[str] = ("hint", "rams")) -> Records:
    return {
        "heartbeats": [heartbeat(nth, agents[nth % len(agents)]) for nth in range(heartbeats)],
        "flips": [flip(nth) for nth in range(flips)],
        "agents": [agent(name) for name in agents],
    }


def written(kept: Records) -> bytes:
    """The file of these records, as another program would write it."""
    head = {"what": "convex-heartbeat export", "format": 1, "from": "http://there", "at": AT}
    lines = [encoded("header", head)]
    lines += [encoded(word, record) for kind, word in KINDS.items() for record in kept[kind]]
    return ended(b"".join(lines), {kind: len(kept[kind]) for kind in KINDS})


def ended(body: bytes, counts: Mapping[str, int]) -> bytes:
    """A file of these lines, with an end that fits them, and counts so many records."""
    return body + encoded("end", {"counts": counts, "sha256": hashlib.sha256(body).hexdigest()})


def data_lines(file: bytes) -> list[bytes]:
    """The records of a file, as they stand there."""
    control = {"header", "checkpoint", "end"}
    return [line for line in file.splitlines() if json.loads(line)["kind"] not in control]


class Keeper:
    """Knows what was recorded, and takes in what is not; refuses the agent `rejected`.

    `before` and `after` are called with the number of each call, before anything is done and when all is.
    `sizes`: how many records each call was about.
    """

    def __init__(self, kept: Records | None = None) -> None:
        self.kept: Records = kept or {kind: [] for kind in KINDS}
        self.rejected = ""
        self.forgotten: set[str] = set()  # cursors
        self.before: Callable[[int], None] = lambda number: None
        self.after: Callable[[int], None] = lambda number: None
        self.sizes: list[int] = []

    def deployment(self) -> Deployment:
        """One that serves it."""
        return Deployment({"queries/exportRecords": self.exported, "mutations/importRecords": self.imported})

    def exported(self, args: Mapping[str, Any]) -> Any:
        self.before(len(self.sizes))
        request = args["request"]
        if request["cursor"] in self.forgotten:
            self.forgotten.remove(request["cursor"])
            raise Refusal({"code": "invalid", "message": "leads nowhere", "field": "cursor"})
        begin = int(request["cursor"] or 0)
        end = begin + int(request["limit"])
        kept = self.kept[request["kind"]]
        self.sizes.append(len(kept[begin:end]))
        self.after(len(self.sizes) - 1)
        return {"records": kept[begin:end], "isDone": end >= len(kept), "continueCursor": str(end)}

    def imported(self, args: Mapping[str, Any]) -> Any:
        self.before(len(self.sizes))
        request = args["request"]
        kept = self.kept[request["kind"]]
        known = {self._key(one) for one in kept}
        answer: dict[str, Any] = {"recorded": 0, "updated": 0, "known": 0, "refused": []}
        self.sizes.append(len(request["records"]))
        for index, record in enumerate(request["records"]):
            if record["agent"] == self.rejected:
                answer["refused"].append({"index": index, "code": "conflict", "message": "is taken"})
            elif self._key(record) in known:
                answer["known"] += 1
            else:
                kept.append(record)
                known.add(self._key(record))
                answer["recorded"] += 1
        self.after(len(self.sizes) - 1)
        return answer

    @staticmethod
    def _key(record: Mapping[str, Any]) -> str:
        if "heartbeatId" in record:
            return str(record["heartbeatId"])
        return json.dumps(record) if "to" in record else str(record["agent"])


class Silent:
    """Nobody is told; `notes` is what was."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def end(url: str) -> End:
    def connect(deadline: Deadline) -> Connection:
        return Connection(url, "a-token", deadline=deadline, transport="http")

    return End(url, 20.0, connect)


@contextmanager
def end_at(keeper: Keeper) -> Iterator[End]:
    """The end of a move that this one is, as long as the block goes on."""
    with keeper.deployment() as deployment:
        yield end(deployment.url)


def exported(source: End, file: Path, *, force: bool = False) -> Exported:
    return export(source, file, Silent(), force=force, at=AT)


def nothing(number: int) -> None:
    """What keeps no call from being answered."""


def revoked(at: int) -> Callable[[int], None]:
    """What ends a move before its call of this number, from 0."""

    def before(number: int) -> None:
        if number == at:
            raise Refusal({"code": "unauthorized", "message": "revoked"})

    return before


def cut(at: int) -> Callable[[int], None]:
    """What cuts the connection of the call of this number, from 0, once."""
    left = [at]

    def before(number: int) -> None:
        if left == [number]:
            left.clear()
            raise EOFError

    return before


class Clock:
    """Passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
