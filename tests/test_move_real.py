"""Moves between real backends by real processes, all of which are killed: in the end both hold the same."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends import Backend
from conftest import HEARTBEAT, Inside, wait_for
from deployment import Deployment
from heartbeat_cli import tokens
from heartbeat_cli.client import Connection
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.move_export import EXPORT, part_of
from heartbeat_cli.move_import import BATCH, IMPORT
from moves import data_lines, heartbeat, records

HEARTBEATS = 1_600
TORTURED = 20_000  # heartbeats of the long form: two seconds of work that is cut off ...
SHORTEST_S, LONGEST_S = 0.2, 0.5  # ... after so long, and a tenth longer each time


class End:
    """A real backend with an admin token that is `here`'s."""

    def __init__(self, folder: Path, bundle: Path, here: Inside) -> None:
        clock = folder / "clock"
        folder.mkdir()
        clock.write_text(str(time.time_ns() // 1_000_000))
        self.backend = Backend(folder / "backend", bundle, clock)
        self.url = self.backend.start()
        tokens.ensure_local_token(here.cli.config_dir, self.url, lambda _: False, self.backend.admin)
        kept = tokens.stored(here.cli.config_dir, self.url, [])
        assert kept is not None
        self.token = kept.text

    def restart(self) -> None:
        self.backend.kill()
        self.backend.start(int(self.url.rpartition(":")[2]))

    def fill(self, heartbeats: int) -> None:
        """A history, and agents of which some said something just now."""
        for kind, kept in records(heartbeats, flips=3, agents=("hint", "rams", "torv")).items():
            for place in range(0, len(kept), BATCH):
                request = {"kind": kind, "records": kept[place : place + BATCH]}
                self.backend.admin(IMPORT, {"token": self.token, "request": request})
        now = int(time.time() * 1_000)
        for nth in range(3):
            said = {"agent": "rams", "heartbeatId": heartbeat(1_000_000 + nth)["heartbeatId"], "error": "no"}
            sent = {"sentAt": now, "deliveredAt": now, "status": "error", **said}
            self.backend.admin("mutations/recordHeartbeat", {"token": self.token, "heartbeat": sent})


@pytest.fixture
def ends(tmp_path: Path, bundle: Path, inside: Inside) -> Iterator[tuple[End, End]]:
    inside.cli.env |= {"HEARTBEAT_DEADLINE": "30"}
    made: list[End] = []
    try:
        for name in ("source", "target"):
            made.append(End(tmp_path / name, bundle, inside))
        yield made[0], made[1]
    finally:
        for end in made:
            end.backend.kill()


class Gate:
    """Stands in front of a backend; answers so many calls, then keeps silent until it is `opened`."""

    def __init__(self, end: End, answers: int) -> None:
        self._end = end
        self._left = answers
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, args: Mapping[str, Any]) -> Any:
        deadline = Deadline(60)
        with Connection(self._end.url, self._end.token, deadline=deadline, transport="http") as there:
            call = there.mutation if "records" in args["request"] else there.query
            answer = call(IMPORT if "records" in args["request"] else EXPORT, "request", args["request"])
        self._left -= 1
        if self._left < 0 and not self.opened.is_set():
            self.reached.set()
            self.opened.wait()
        return answer

    @contextmanager
    def listens(self, here: Inside) -> Iterator[str]:
        with Deployment({EXPORT: self, IMPORT: self}) as deployment:
            tokens.save(here.cli.config_dir, deployment.url, self._end.token, "admin")
            yield deployment.url
            self.opened.set()


def begun(here: Inside, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [HEARTBEAT, *words],
        cwd=here.cli.folder,
        env=here.cli.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def killed_at(gate: Gate, here: Inside, *words: str) -> None:
    process = begun(here, *words)
    wait_for(gate.reached.is_set)
    process.kill()
    process.wait()
    gate.opened.set()


def content(here: Inside, end: End, name: str) -> list[bytes]:
    """All that an end has, as it would go into a file."""
    done = here("export", name, "--force", "--url", end.url)
    assert done.code == 0, done
    return data_lines((here.cli.folder / name).read_bytes())


def test_a_move_whose_every_part_is_killed_is_whole_in_the_end(inside: Inside, ends: tuple[End, End]) -> None:
    source, target = ends
    source.fill(HEARTBEATS)
    file = inside.cli.folder / "all.jsonl"
    gate = Gate(source, answers=2)
    with gate.listens(inside) as url:
        killed_at(gate, inside, "export", "all.jsonl", "--url", url)
        assert part_of(file).exists() and not file.exists()
        source.restart()
        done = inside("export", "all.jsonl", "--url", url, "--json")
    assert done.code == 0 and done.data["wentOnFrom"] == 1_000 and not part_of(file).exists()
    whole = data_lines(file.read_bytes())
    assert whole == content(inside, source, "again.jsonl") and len(whole) == HEARTBEATS + 3 + 3 + 3 + 1

    gate = Gate(target, answers=3)  # the fourth takes effect, and is never answered
    with gate.listens(inside) as url:
        killed_at(gate, inside, "import", "all.jsonl", "--url", url)
        target.restart()
        done = inside("import", "all.jsonl", "--url", url, "--json")
        assert done.code == 0 and done.data["wentOnFrom"] >= BATCH
        assert done.data["heartbeats"]["known"] == 4 * BATCH - done.data["wentOnFrom"]
    assert content(inside, target, "other.jsonl") == whole
    again = inside("import", "all.jsonl", "--url", target.url, "--json").data
    assert all(again[kind]["recorded"] == again[kind]["updated"] == 0 for kind in ("heartbeats", "agents"))
    shown = [inside("dashboard", "--json", "--url", end.url).data["agents"] for end in ends]
    assert [(row["agent"], row["health"], row.get("dueAt")) for row in shown[0]] == [
        (row["agent"], row["health"], row.get("dueAt")) for row in shown[1]
    ]


@pytest.mark.long
def test_whatever_is_killed_whenever_both_ends_hold_the_same(inside: Inside, ends: tuple[End, End]) -> None:
    source, target = ends
    source.fill(TORTURED)
    chance = random.Random(6)  # noqa: S311 - which plan, not a secret
    whole = content(inside, source, "before.jsonl")
    kills = 0

    def until_done(words: Sequence[str], end: End, is_done: Callable[[int], bool]) -> None:
        nonlocal kills
        while True:
            process = begun(inside, *words, "--url", end.url)
            try:
                code = process.wait(timeout=chance.uniform(SHORTEST_S, LONGEST_S) * (1 + kills / 10))
                if is_done(code):
                    return
            except subprocess.TimeoutExpired:
                kills += 1
                if chance.random() < 1 / 3:
                    end.restart()  # it waits, and goes on
                    code = process.wait(timeout=60)
                    if is_done(code):
                        return
                else:
                    process.kill()
                    process.wait()

    file = inside.cli.folder / "all.jsonl"
    until_done(("export", "all.jsonl"), source, lambda code: file.exists())
    assert data_lines(file.read_bytes()) == whole
    until_done(("import", "all.jsonl"), target, lambda code: code == 0)
    assert content(inside, target, "after.jsonl") == whole and kills > 5, kills
