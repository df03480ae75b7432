"""Carries a plan out: hosts that send, a backend, a proxy between them, and everything that is done to them.

    plan ──tick by tick──▶ mischief ──▶ healed: clocks right, disks free, proxy calm, backend up
      ──▶ drained by `spool deliver` ──▶ some report once more, the others fall silent ──▶ looked at

A tick that begins while too many processes are alive waits for some to end, so that a slow machine takes
longer and does the same.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeVar

from clocks import START_MS
from fleets import Fleet, every
from heartbeat_cli import spool_file
from heartbeat_cli.errors import Unreachable
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Which
from torture.disk import Disk
from torture.facts import Facts, Tick, Watched, wholeness
from torture.plan import MINUTE_MS, TICK_MINUTES, BackendKill, Deliver, Plan, Send
from torture.proxy import CUTS, Proxy
from torture.senders import DELIVERED, Senders

TICK_S = 0.1  # the least real time of a tick: so that a plan is also spread over time
TOLD_S = 0.5  # how long to wait for a sender to be told something, to kill the backend then
BACKOFF_OVER_MINUTES = 90  # the longest back-off of the spool is over after it
QUIET_TICKS = 20  # at the end: the hold is over, and some agents have been silent for too long
LAST_WORDS = 2  # agents that report once more when all is well
LAST_DEADLINE_S = 20


class _Timed(Protocol):
    @property
    def tick(self) -> int: ...


Timed = TypeVar("Timed", bound=_Timed)


class World:
    """One run in a folder of its own. `run` gives its facts; no process of it is left afterwards."""

    def __init__(self, folder: Path, bundle: Path, plan: Plan) -> None:
        self._plan = plan
        self._folder = folder
        self._facts = Facts(plan)
        self._fleet = Fleet(folder, bundle, plan.size.hosts)
        self._senders = Senders(self._fleet.hosts, self._facts)
        self._proxy = Proxy(plan.fate)
        self._disks: dict[str, Disk] = {}
        self._full: set[str] = set()
        self._starting: threading.Thread | None = None
        self._killed_in: int | None = None  # the tick

    def run(self) -> Facts:
        """Everything, from the first tick to the last look."""
        began = time.monotonic()
        with ExitStack() as stack:
            for host in self._plan.size.hosts:
                self._disks[host] = disk = Disk(self._folder / host)
                stack.callback(disk.remove)
            stack.callback(self._fleet.backend.kill)
            stack.enter_context(self._proxy)
            stack.callback(self._senders.wait_for_all)
            self._set_up()
            self._torture()
            self._heal()
            self._drain()
            self._be_quiet()
            self._look()
        self._facts.done["seconds"] = round(time.monotonic() - began)
        return self._facts

    # --- the stages ---

    def _set_up(self) -> None:
        self._begin_tick()
        agents = [every(a.name, a.every_minutes, a.grace_minutes, a.misses) for a in self._plan.agents]
        self._fleet.open(agents, lambda _: self._proxy.url)
        self._facts.watched = [Watched(agent, self._fleet.clocks.backend_ms) for agent in self._plan.agents]
        self._sweep()
        self._proxy.lead_to(self._fleet.backend.url)

    def _torture(self) -> None:
        plan, senders = self._plan, self._senders
        sends, delivers, kills = _by_tick(plan.sends), _by_tick(plan.delivers), _by_tick(plan.kills)
        back_at = 0
        for tick in range(1, plan.size.ticks):
            began = time.monotonic()
            self._begin_tick()
            self._fill_disks()
            for kill in kills[tick]:
                back_at = tick + kill.down_ticks
                self._kill_backend(kill)
            if tick >= back_at:
                self._bring_back()
            for send in sends[tick]:
                senders.start(senders.send, send)
            for deliver in delivers[tick]:
                senders.start(senders.deliver, deliver)
            self._sweep()
            time.sleep(max(0.0, began + TICK_S - time.monotonic()))
        senders.wait_for_all()

    def _heal(self) -> None:
        self._proxy.calm_down()
        self._begin_tick()
        self._fill_disks()
        self._bring_back()
        if self._starting is not None:
            self._starting.join()

    def _drain(self) -> None:
        """As the crontab line would, when whatever was put off may be tried again.

        Twice: what was put off by a clock that was ahead may have to wait for as long as ever from now on.
        """
        for last in (False, True):
            self._begin_tick(BACKOFF_OVER_MINUTES)
            self._sweep()
            for host in self._fleet.hosts:
                self._senders.deliver(Deliver(self._tick, host, LAST_DEADLINE_S, last=last))

    def _be_quiet(self) -> None:
        """Some agents report once more, the others have nothing to say, and time passes."""
        number = self._plan.size.sends
        for agent in self._plan.agents[:LAST_WORDS]:
            self._senders.send(
                Send(self._tick, number, agent.host, agent.name, "ok", "http", LAST_DEADLINE_S)
            )
            number += 1
        for _ in range(QUIET_TICKS):
            self._begin_tick()
            self._sweep()

    def _look(self) -> None:
        """Nothing waits, nothing was set aside, every database is whole; and what the backend holds."""
        for host, cli in self._fleet.hosts.items():
            spool = Spool(cli.data_dir)
            left = spool.counts()
            if left.waiting or left.aside:
                self._senders.trouble(f"the spool of {host} still holds {left}: {spool.entries(Which())}")
            self._expect_whole(spool_file.path(cli.data_dir))
        backend, facts = self._fleet.backend, self._facts
        code = backend.stop()
        if code:
            self._senders.trouble(f"the backend ended with {code}: {backend.log.read_text()[-2000:]}")
        report = backend.check()
        if not report["ok"]:
            self._senders.trouble(f"the backend's data: {report['problems']}")
        self._expect_whole(backend.database)
        facts.read(backend.database)
        facts.done["cuts"] = sum(self._proxy.done[kind] for kind in CUTS)
        facts.done["answers lost"] = self._proxy.done["lose answer"]
        facts.done["chunks delayed"] = self._proxy.done["delay"]
        facts.done["clock jumps"] = len(self._plan.jumps)
        facts.done["sent"] = len(facts.sent)
        facts.done["exited 0"] = sum(sent.code == DELIVERED for sent in facts.sent)
        facts.done["recorded"] = len(facts.heartbeats)
        facts.done["flips"] = len(facts.flips)

    def _expect_whole(self, database: Path) -> None:
        if database.exists() and (found := wholeness(database)) != "ok":
            self._senders.trouble(f"{database}: {found}")

    # --- time ---

    @property
    def _tick(self) -> int:
        return len(self._facts.ticks) - 1

    def _begin_tick(self, minutes: int = TICK_MINUTES) -> None:
        """All clocks move at once, each keeps what it is wrong by; see facts.py for the odd milliseconds."""
        ticks, clocks = self._facts.ticks, self._fleet.clocks
        tick = len(ticks)
        clocks.true_ms = ticks[-1].true_ms + minutes * MINUTE_MS + 1 if ticks else START_MS
        clocks.backend_wrong_ms = self._plan.wrong_minutes(None, tick) * MINUTE_MS
        for host in clocks.wrong_ms:
            clocks.wrong_ms[host] = self._plan.wrong_minutes(host, tick) * MINUTE_MS
        hosts = {host: clocks.host_ms(host) for host in clocks.wrong_ms}
        # known before anybody can see it
        ticks.append(Tick(clocks.true_ms, clocks.backend_ms, hosts, time.monotonic()))
        clocks.write()

    def _sweep(self) -> None:
        """The sweep's minute, if there is a backend that is ready."""
        ready = self._starting is None or not self._starting.is_alive()
        if not self._is_up or not ready:
            return
        try:
            self._fleet.sweep()
        except Unreachable as problem:  # it was killed just now
            if problem.cause == "function_missing":
                raise
            return
        self._facts.swept.append(self._tick)

    # --- mischief ---

    def _fill_disks(self) -> None:
        full_now = {disk.host: disk.room for disk in self._plan.disks if disk.tick <= self._tick < disk.until}
        for host in self._full - full_now.keys():
            self._disks[host].free()
        for host in full_now.keys() - self._full:
            self._disks[host].fill(full_now[host])
            self._facts.done["full disks"] += self._disks[host].is_small
        self._full = set(full_now)

    @property
    def _is_up(self) -> bool:
        process = self._fleet.backend.process
        return process is not None and process.poll() is None

    def _kill_backend(self, kill: BackendKill) -> None:
        if kill.after_ms is None:
            self._proxy.told.clear()
            self._proxy.told.wait(TOLD_S)
        else:
            time.sleep(kill.after_ms / 1000)
        if not self._is_up:
            return
        self._fleet.backend.kill()
        if self._starting is not None:
            self._starting.join()
        self._proxy.lead_to(None)
        self._facts.done["backend kills"] += 1
        self._killed_in = self._tick

    def _bring_back(self) -> None:
        """Start the backend if none runs; it is not waited for."""
        if self._is_up:
            return
        backend = self._fleet.backend
        if self._killed_in is None:
            self._senders.trouble(f"the backend ended by itself: {backend.log.read_text()[-2000:]}")
        else:
            self._facts.away.append((self._killed_in, self._tick))
        self._killed_in = None
        backend.spawn()
        self._starting = threading.Thread(target=self._lead_there, daemon=True)
        self._starting.start()

    def _lead_there(self) -> None:
        if self._fleet.backend.wait_until_ready():
            self._proxy.lead_to(self._fleet.backend.url)


def _by_tick(events: Iterable[Timed]) -> dict[int, list[Timed]]:
    found: dict[int, list[Timed]] = defaultdict(list)
    for event in events:
        found[event.tick].append(event)
    return found
