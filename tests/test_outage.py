"""After an outage of hours, end to end: nothing lost, nothing faked, nobody called degraded falsely.

Rules 8 and 12 of the design, with real hosts and a real backend, whose clocks are moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from conftest import Inside, Ran
from fleets import Fleet, every
from heartbeat_cli.times import HOUR_MS, MINUTE_MS
from lines import Prompt
from torture.plan import Fate
from torture.proxy import Proxy

ANNA, BERT = HOSTS = ("anna", "bert")
SWEEP_STEP_MS = 4 * MINUTE_MS  # a sweep whose predecessor is more than 5 minutes ago was away itself
HOLD_MS = 10 * MINUTE_MS  # after an absence nobody is flipped to degraded
CRON_MS = 5 * MINUTE_MS  # the crontab line that delivers the spool
AGENTS = [every(agent, 120, 12, 2) for agent in ("hint", "torv", "kami")]


class Outage(Fleet):
    """Two hosts, each with a line of its own to the backend; hint and kami run on anna, torv on bert.

    What a host does is done in a process with that host's clock; whoever looks at it afterwards does so from
    here.
    """

    def __init__(
        self, folder: Path, bundle: Path, lines: dict[str, Proxy], inside: Inside, stack: ExitStack
    ) -> None:
        super().__init__(folder, bundle, HOSTS)
        self.lines = lines
        self._inside = inside
        stack.callback(self.backend.kill)
        self.open(AGENTS, lambda host: lines[host].url)
        self._prompts = {host: stack.enter_context(Prompt(cli)) for host, cli in self.hosts.items()}
        self.port = urlsplit(self.backend.url).port or 0
        self.began_ms = self.clocks.true_ms
        self.connect(*HOSTS)

    def connect(self, *hosts: str) -> None:
        for host in hosts:
            self.lines[host].lead_to(self.backend.url)

    def cut_off(self, *hosts: str) -> None:
        for host in hosts:
            self.lines[host].lead_to(None)

    def go_to(self, ms: int) -> None:
        """Let time pass until so long after the beginning; the backend is there, and looks for silence."""
        end = self.began_ms + ms
        while self.clocks.true_ms < end:
            self.clocks.set(min(end, self.clocks.true_ms + SWEEP_STEP_MS))
            self.sweep()

    def jump_to(self, ms: int) -> None:
        """As `go_to`, without a backend."""
        self.clocks.set(self.began_ms + ms)

    def send(self, host: str, agent: str) -> Ran:
        hour = (self.clocks.true_ms - self.began_ms) // HOUR_MS
        return self._prompts[host]("send", agent, "--summary", f"{agent} at hour {hour}")

    def deliver(self, host: str) -> Ran:
        return self._prompts[host]("spool", "deliver", "--quiet")

    def look_at(self, agent: str) -> Any:
        return self._look("agents", "show", agent, "--json").data

    def shown(self, agent: str) -> str:
        return self._look("agents", "show", agent, env={"COLUMNS": "200"}).out

    def spooled(self, host: str) -> Any:
        return replace(self._inside, cli=self.hosts[host])("spool", "list", "--json").data["entries"]

    def _look(self, *words: str, env: dict[str, str | None] | None = None) -> Ran:
        return replace(self._inside, cli=self.owner)(*words, env=env)


@pytest.fixture
def outage(tmp_path: Path, bundle: Path, inside: Inside) -> Iterator[Outage]:
    with ExitStack() as stack:
        lines = {host: stack.enter_context(Proxy(lambda _: Fate("pass"))) for host in HOSTS}
        yield Outage(tmp_path, bundle, lines, inside, stack)


def _spooled(ran: Ran, agent: str) -> bool:
    return (ran.code, ran.out) == (0, "") and f"heartbeat: {agent} is spooled, not delivered: " in ran.err


def _chain(found: Any) -> list[tuple[str, str, str]]:
    """The flips, first one first."""
    return [(flip["from"], flip["to"], flip["reason"]) for flip in reversed(found["flips"])]


def _hours(found: Any) -> list[str]:
    """What was sent when, oldest first."""
    return [past["summary"] for past in reversed(found["heartbeats"])]


def test_a_backend_that_was_away_for_hours_calls_nobody_degraded_who_was_alive(outage: Outage) -> None:
    outage.clocks.wrong_ms[BERT] = -7 * HOUR_MS  # which nobody ever notices
    for host, agent in ((ANNA, "hint"), (BERT, "torv"), (ANNA, "kami")):
        assert outage.send(host, agent).code == 0
    outage.go_to(MINUTE_MS)
    outage.cut_off(*HOSTS)
    outage.backend.kill()
    for hour in (2, 4, 6):
        outage.jump_to(hour * HOUR_MS)
        # kami has really died
        assert _spooled(outage.send(ANNA, "hint"), "hint")
        assert _spooled(outage.send(BERT, "torv"), "torv")
        outage.jump_to(hour * HOUR_MS + CRON_MS)
        assert [outage.deliver(host).code for host in HOSTS] == [75, 75]

    # the crontab tries in vain a last time, and then has until the hold is over
    back = 7 * HOUR_MS + 5 * MINUTE_MS
    outage.jump_to(back - MINUTE_MS)
    assert [outage.deliver(host).code for host in HOSTS] == [75, 75]
    outage.jump_to(back)
    outage.backend.start(outage.port)
    outage.connect(*HOSTS)
    outage.sweep()
    for after in (CRON_MS - MINUTE_MS, 2 * CRON_MS - MINUTE_MS):
        outage.go_to(back + after)
        delivered = [outage.deliver(host) for host in HOSTS]
    assert delivered == [Ran(0, "", "")] * 2
    outage.go_to(back + 30 * MINUTE_MS)

    for host, agent in ((ANNA, "hint"), (BERT, "torv")):
        found = outage.look_at(agent)
        assert _hours(found) == [f"{agent} at hour {hour}" for hour in (0, 2, 4, 6)]
        assert _chain(found) == [("new", "ok", "first report")]
        # alive when it was sent, not when it came
        assert found["row"]["lastHeartbeatAt"] == outage.began_ms + 6 * HOUR_MS
        assert [past["livenessAt"] for past in reversed(found["heartbeats"])] == [
            outage.began_ms + hour * HOUR_MS for hour in (0, 2, 4, 6)
        ]
        came = {past.get("deliveredLateMs", 0) + past["livenessAt"] for past in found["heartbeats"][:-1]}
        assert all(0 < at - outage.began_ms - back < HOLD_MS for at in came)
        assert f"{agent} at hour 2 · delivered 5 h late" in outage.shown(agent)
        assert outage.spooled(host) == []
    # who was not alive is found out once everybody else could report, and the flip says how it came
    kami = outage.look_at("kami")
    assert _chain(kami)[1:] == [("ok", "degraded", "2 expected runs missed")]
    assert kami["flips"][0]["noticedAt"] >= outage.began_ms + back + HOLD_MS
    assert "the monitor itself was away from" in outage.shown("kami")


def test_a_host_that_was_cut_off_explains_afterwards_what_it_was_called_meanwhile(outage: Outage) -> None:
    for host, agent in ((ANNA, "hint"), (BERT, "torv"), (ANNA, "kami")):
        assert outage.send(host, agent).code == 0
    outage.go_to(MINUTE_MS)
    outage.cut_off(ANNA)
    for hour in (2, 4, 6):
        outage.go_to(hour * HOUR_MS)
        assert _spooled(outage.send(ANNA, "hint"), "hint")
        if hour == 2:  # and then never again
            assert _spooled(outage.send(ANNA, "kami"), "kami")
        assert outage.send(BERT, "torv").out.startswith("torv ok")
    silent = {agent: outage.look_at(agent)["row"]["health"] for agent in ("hint", "torv", "kami")}
    assert silent == {"hint": "degraded", "torv": "ok", "kami": "degraded"}

    back = 7 * HOUR_MS + 5 * MINUTE_MS
    outage.go_to(back)
    outage.connect(ANNA)
    outage.go_to(back + CRON_MS)
    assert outage.deliver(ANNA) == Ran(0, "", "")
    outage.go_to(back + 30 * MINUTE_MS)

    hint = outage.look_at("hint")
    assert _hours(hint) == [f"hint at hour {hour}" for hour in (0, 2, 4, 6)]
    assert _chain(hint) == [
        ("new", "ok", "first report"),
        ("ok", "degraded", "2 expected runs missed"),
        ("degraded", "ok", "reported again"),
    ]
    again, flip, _ = hint["flips"]
    # by what was sent at hour 4 it had been alive all the time: nothing is left of it but the flip itself
    assert again["becameAt"] == flip["becameAt"] == outage.began_ms + 4 * HOUR_MS + 12 * MINUTE_MS
    assert again["noticedAt"] == outage.began_ms + back + CRON_MS
    # hour 4 fell into the silence that the flip at hour 4 + grace was about
    explains = next(past for past in hint["heartbeats"] if past["summary"] == "hint at hour 4")
    late = back + CRON_MS - 4 * HOUR_MS
    assert flip["explainedBy"] == {"heartbeatId": explains["heartbeatId"], "deliveredLateMs": late}
    shown = outage.shown("hint")
    assert "hint at hour 2 · delivered 5 h late" in shown
    assert "2 expected runs missed (delivered 3 h late)" in shown

    # a replay is no life: what was sent five hours ago says nothing about now
    kami = outage.look_at("kami")
    assert _hours(kami) == ["kami at hour 0", "kami at hour 2"]
    assert (kami["row"]["health"], kami["row"]["lastHeartbeatAt"]) == (
        "degraded",
        outage.began_ms + 2 * HOUR_MS,
    )
    assert [flip["to"] for flip in kami["flips"]] == ["degraded", "ok"]
    assert _chain(outage.look_at("torv")) == [("new", "ok", "first report")]
