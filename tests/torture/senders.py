"""The processes of the hosts: started, watched, some of them killed or left without room on their disk."""

from __future__ import annotations

import json
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from signal import SIGKILL
from typing import Any, TypeVar

from conftest import HEARTBEAT, Cli
from torture.facts import Facts, Life, Sent
from torture.oracle import summary
from torture.plan import Deliver, Send

AT_ONCE = 8  # processes alive at one time: enough to contend on two cores
HANGS_S = 60.0  # real seconds after which a process whose deadline is 5 s has failed
DELIVERED, REFUSED, STILL_WAITING = 0, 1, 75  # exit codes

Event = TypeVar("Event")


class Senders:
    """Carries out sends and deliveries, several at once, and writes down in `facts` what became of each."""

    def __init__(self, hosts: Mapping[str, Cli], facts: Facts) -> None:
        self._hosts = hosts
        self._facts = facts
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._room = threading.Semaphore(AT_ONCE)
        self._guard = threading.Lock()

    def start(self, work: Callable[[Event], None], event: Event) -> None:
        """Do this beside the rest; waits until there is room for another."""
        self._room.acquire()

        def then() -> None:
            try:
                work(event)
            except Exception as error:
                self.trouble(f"the test itself: {error!r}")
                raise
            finally:
                self._room.release()

        self._pool.submit(then)

    def wait_for_all(self) -> None:
        """Until none is alive."""
        for _ in range(AT_ONCE):
            self._room.acquire()
        self._room.release(AT_ONCE)

    def send(self, send: Send) -> None:
        """One `heartbeat send`, to its end."""
        words = ["send", send.agent, "--summary", summary(self._facts.plan.seed, send.number), "--json"]
        words += ["--status", send.status, "--transport", send.transport, "--deadline", str(send.deadline_s)]
        life, code, out, err = self._run(send.host, words, send.kill_ms, "sender kills", send.file_limit)
        answer = _json(out)
        data = (answer or {}).get("data") or {}
        with self._guard:
            self._facts.sent.append(Sent(send, life, code, answer, err))
            self._facts.done["duplicates"] += data.get("outcome") == "duplicate"
            self._facts.done["spooled"] += data.get("outcome") == "spooled"
            self._facts.done["refused by the disk"] += code == REFUSED
        may = {DELIVERED}
        if send.kill_ms is not None:
            may.add(-SIGKILL)
        if send.file_limit is not None or self._was_full(life):
            may.add(REFUSED)
        self._judge(send, code, may, f"{out} {err}")

    def deliver(self, deliver: Deliver) -> None:
        """One `heartbeat spool deliver`, to its end."""
        words = ["spool", "deliver", "--json", "--deadline", str(deliver.deadline_s)]
        words += [] if deliver.last else ["--quiet"]
        life, code, out, err = self._run(deliver.host, words, deliver.kill_ms, "deliver kills")
        data = (_json(out) or {}).get("data") or {}
        with self._guard:
            self._facts.done["duplicates"] += data.get("duplicates", 0)
            self._facts.done["delivered by spool deliver"] += data.get("delivered", 0)
        may = {DELIVERED} if deliver.last else {DELIVERED, STILL_WAITING}
        if deliver.kill_ms is not None:
            may.add(-SIGKILL)
        if self._was_full(life):
            may.add(REFUSED)
        self._judge(deliver, code, may, f"{out} {err}")

    def trouble(self, what: str) -> None:
        """Something that nothing excuses."""
        with self._guard:
            self._facts.troubles.append(what)

    @property
    def _tick(self) -> int:
        return len(self._facts.ticks) - 1

    def _judge(self, event: Send | Deliver, code: int, may: set[int], said: str) -> None:
        if code not in may or "Traceback" in said:
            self.trouble(f"{event} ended with {code}: {said[-2000:]}")

    def _was_full(self, life: Life) -> bool:
        """Whether the disk of its host was full for some time of this life."""
        return any(
            full.host == life.host and full.tick <= life.last and life.first <= full.until
            for full in self._facts.plan.disks
        )

    def _run(
        self, host: str, words: list[str], kill_ms: int | None, what: str, file_limit: int | None = None
    ) -> tuple[Life, int, str, str]:
        """A process to its end, and what it said; killed after `kill_ms`, if it is not over before."""
        cli, first = self._hosts[host], self._tick
        # Python itself would leave half a file of compiled code for others, where it may write no more
        env = {} if file_limit is None else {"PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            [str(HEARTBEAT), *words],
            cwd=cli.folder,
            env=cli.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if file_limit is not None:  # long before Python has started there
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
        try:
            out, err = process.communicate(timeout=HANGS_S if kill_ms is None else kill_ms / 1000)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            with self._guard:
                self._facts.done[what] += 1
        life = Life(host, first, self._tick, time.monotonic())
        with self._guard:
            self._facts.lives.append(life)
        return life, process.returncode, out, err


def _json(text: str) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return told
