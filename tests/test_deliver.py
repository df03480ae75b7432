"""Delivering what waits: each heartbeat once, in order, and none that fails keeps the others back."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, TABLE, Cli, Live
from deployment import Deployment, Faults, PlainError, Refusal
from heartbeat_cli.client import Connection
from heartbeat_cli.clock import Moment
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.deliver import BATCH, Delivery
from heartbeat_cli.errors import Refused, Unreachable
from heartbeat_cli.heartbeat import heartbeat_id
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Entry, Which
from heartbeat_cli.tokens import fingerprint

NOW = Moment(1_800_000_000_000, "boot", 50_000)
TOKEN = "the token in use"  # noqa: S105 - of a scripted deployment
SERVER_ERROR = "[Request ID: 0123456789abcdef] Server Error"


@dataclass
class Backend:
    """What a scripted deployment knows. `singly` and `together` see what comes before it is recorded, and may
    raise; `item` makes the result of one of a batch.
    """

    contract: int = 2
    singly: Callable[[Mapping[str, Any]], Any] = lambda _: None
    together: Callable[[Sequence[Mapping[str, Any]]], Any] = lambda _: None
    item: Callable[[Mapping[str, Any]], dict[str, Any] | None] = lambda _: None
    token: Any = None
    recorded: list[str] = field(default_factory=list)

    def functions(self) -> dict[str, Any]:
        known = {
            "queries/getMonitorStatus": lambda _: {"contractVersion": float(self.contract)},
            "mutations/recordHeartbeat": lambda args: self._single(args["heartbeat"]),
        }
        if self.contract > 1:
            known["mutations/recordHeartbeats"] = lambda args: self._batch(args["batch"]["heartbeats"])
            known["queries/getToken"] = lambda _: self.token
        return known

    def _single(self, heartbeat: Mapping[str, Any]) -> Any:
        self.singly(heartbeat)
        return self._record(heartbeat)

    def _batch(self, heartbeats: Sequence[Mapping[str, Any]]) -> Any:
        self.together(heartbeats)
        return {"results": [self.item(one) or self._record(one) for one in heartbeats]}

    def _record(self, heartbeat: Mapping[str, Any]) -> dict[str, Any]:
        name = heartbeat["heartbeatId"]
        outcome = "duplicate" if name in self.recorded else "recorded"
        if outcome == "recorded":
            self.recorded.append(name)
        return {"outcome": outcome, "health": "ok"}


@dataclass
class Desk:
    """A spool, and deliveries from it to a scripted deployment."""

    spool: Spool
    url: str = "http://127.0.0.1:1"

    def keep(self, number: int, agent: str = "hint", sent_with: str = TOKEN, first: int = 0) -> list[str]:
        names = [heartbeat_id(n + 1, bytes(10)) for n in range(first, first + number)]
        for name in names:
            body = {"heartbeatId": name, "agent": agent, "sentAt": NOW.wall_ms, "status": "ok"}
            self.spool.add(Entry.new(body, self.url, fingerprint(sent_with), NOW))
        return names

    def to(
        self, deployment: Deployment, now: Moment = NOW, may_go_on: Callable[[], bool] = lambda: True
    ) -> Delivery:
        connection = Connection(deployment.url, TOKEN, deadline=Deadline(20), transport="http")
        return Delivery(
            self.spool, self.url, fingerprint(TOKEN), connection, lambda: now, may_go_on=may_go_on
        )

    def waiting(self) -> list[Entry]:
        return self.spool.entries(Which(state="waiting"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(Spool(tmp_path))


def calls(deployment: Deployment, name: str) -> list[Any]:
    return [args for path, args in deployment.calls if path == f"mutations/{name}"]


# --- in order, in batches


def test_all_that_waits_is_delivered_in_order_a_hundred_at_a_time(desk: Desk) -> None:
    names = desk.keep(2 * BATCH + 30)
    backend = Backend()
    with Deployment(backend.functions()) as deployment:
        delivery = desk.to(deployment, Moment(NOW.wall_ms + 9, "boot", NOW.boot_ms + 7_000))
        delivery.run()
        sizes = [len(args["batch"]["heartbeats"]) for args in calls(deployment, "recordHeartbeats")]
        first = calls(deployment, "recordHeartbeats")[0]["batch"]["heartbeats"][0]
    assert backend.recorded == names and sizes == [BATCH, BATCH, 30]
    assert (delivery.recorded, delivery.duplicates, desk.waiting()) == (2 * BATCH + 30, 0, [])
    assert first["deliveredAt"] - first["sentAt"] == 7_000, "by the clock that nobody can set"


def test_one_that_waits_goes_the_ordinary_way_and_with_nothing_there_is_no_call_at_all(desk: Desk) -> None:
    backend = Backend()
    with Deployment(backend.functions()) as deployment:
        desk.to(deployment).run()
        assert deployment.calls == []
        [name] = desk.keep(1)
        desk.to(deployment).run()
        assert [path for path, _ in deployment.calls] == [
            "queries/getMonitorStatus",
            "mutations/recordHeartbeat",
        ]
    assert backend.recorded == [name]


def test_functions_of_the_version_before_get_them_one_by_one_and_that_is_said(desk: Desk) -> None:
    names = desk.keep(3)
    backend = Backend(contract=1)
    with Deployment(backend.functions()) as deployment:
        delivery = desk.to(deployment)
        delivery.run()
    assert backend.recorded == names and desk.waiting() == []
    assert "are older than this program" in delivery.odd("http://somewhere")[0]


def test_what_was_recorded_before_is_a_duplicate_and_gone(desk: Desk) -> None:
    names = desk.keep(3)
    backend = Backend(recorded=names[:2])
    with Deployment(backend.functions()) as deployment:
        delivery = desk.to(deployment)
        delivery.run()
    assert (delivery.recorded, delivery.duplicates, desk.waiting()) == (1, 2, [])


def test_what_another_process_will_deliver_itself_is_left_alone(desk: Desk) -> None:
    first, own = desk.keep(2)
    backend = Backend()
    with Deployment(backend.functions()) as deployment:
        delivery = desk.to(deployment)
        delivery.but = own
        delivery.run()
    assert backend.recorded == [first] and [one.heartbeat_id for one in desk.waiting()] == [own]


def test_it_stops_when_the_time_is_over_and_what_is_done_is_done(desk: Desk) -> None:
    desk.keep(3 * BATCH)
    turns = iter([True, False])
    with Deployment(Backend().functions()) as deployment:
        delivery = desk.to(deployment, may_go_on=lambda: next(turns))
        delivery.run()
    assert delivery.recorded == BATCH and len(desk.waiting()) == 2 * BATCH


# --- what is refused


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("code", ["invalid", "unknown_agent", "conflict"])
def test_what_is_refused_for_good_is_set_aside_with_the_reason(desk: Desk, code: str, size: int) -> None:
    names = desk.keep(size)
    refusal = {"code": code, "message": "because"}

    def refuse(heartbeat: Mapping[str, Any]) -> None:
        if heartbeat["heartbeatId"] == names[0]:
            raise Refusal(refusal)

    backend = Backend(
        singly=refuse,
        item=lambda one: {"outcome": "refused", **refusal} if one["heartbeatId"] == names[0] else None,
    )
    with Deployment(backend.functions()) as deployment:
        delivery = desk.to(deployment)
        delivery.run()
    [aside] = desk.spool.entries(Which())
    assert (aside.heartbeat_id, aside.state, aside.code, aside.reason) == (names[0], "aside", code, "because")
    assert backend.recorded == names[1:] and delivery.aside == 1


def test_slow_down_is_honoured_for_all_of_that_agent_and_nobody_elses(desk: Desk) -> None:
    loop = desk.keep(BATCH + 5)
    other = desk.keep(2, "torv", first=1_000)
    slow = {"outcome": "refused", "code": "slow_down", "message": "slow", "retryAfterMs": 7_200_000.0}
    backend = Backend(item=lambda one: slow if one["agent"] == "hint" else None)
    with Deployment(backend.functions()) as deployment:
        desk.to(deployment).run()
        assert len(calls(deployment, "recordHeartbeats")) <= 2
    assert backend.recorded == other
    waiting = desk.waiting()
    assert [one.heartbeat_id for one in waiting] == loop
    assert all(one.next_try_at >= NOW.wall_ms + 7_200_000 and one.state == "waiting" for one in waiting)


def test_an_agent_that_is_not_on_the_tokens_list_blocks_nobody(desk: Desk) -> None:
    foreign, own = desk.keep(2, "torv"), desk.keep(2, first=1_000)
    refused = {"outcome": "refused", "code": "unauthorized", "message": "no"}
    backend = Backend(item=lambda one: refused if one["agent"] == "torv" else None)
    with Deployment(backend.functions()) as deployment:
        desk.to(deployment).run()
    assert backend.recorded == own
    waiting = desk.waiting()
    assert [one.heartbeat_id for one in waiting] == foreign
    assert all(one.next_try_at > NOW.wall_ms and one.code == "unauthorized" for one in waiting)


def test_a_token_that_is_not_accepted_stops_it_before_anything_is_sent(desk: Desk) -> None:
    desk.keep(3)

    def refuse(_: Any) -> Any:
        raise Refusal({"code": "unauthorized", "message": "No valid token for this call."})

    with Deployment(Backend().functions() | {"queries/getMonitorStatus": refuse}) as deployment:
        with pytest.raises(Refused):
            desk.to(deployment).run()
        assert [path for path, _ in deployment.calls] == ["queries/getMonitorStatus"]
    assert all(one.next_try_at > NOW.wall_ms for one in desk.waiting()) and len(desk.waiting()) == 3


# --- what fails


def test_one_heartbeat_that_the_functions_choke_on_keeps_none_of_the_others_back(desk: Desk) -> None:
    names = desk.keep(BATCH)
    poison = names[37]

    def choke(heartbeats: Sequence[Mapping[str, Any]]) -> None:
        if any(one["heartbeatId"] == poison for one in heartbeats):
            raise PlainError(SERVER_ERROR)

    backend = Backend(together=choke, singly=lambda one: choke([one]))
    with Deployment(backend.functions()) as deployment:
        desk.to(deployment).run()
        assert len(deployment.calls) < 20, "found by halves"
    assert sorted(backend.recorded) == sorted(set(names) - {poison})
    [left] = desk.waiting()
    assert (left.heartbeat_id, left.tries, left.code) == (poison, 1, "server_error")
    assert left.next_try_at > NOW.wall_ms


def test_functions_that_fail_for_all_are_not_tried_with_each(desk: Desk) -> None:
    for place, agent in enumerate(("hint", "torv", "rams", "kami")):
        desk.keep(25, agent, first=100 * place)

    def fail(_: Any) -> None:
        raise PlainError(SERVER_ERROR)

    with Deployment(Backend(together=fail, singly=fail).functions()) as deployment:
        with pytest.raises(Unreachable):
            desk.to(deployment).run()
        tried = [args["heartbeat"]["agent"] for args in calls(deployment, "recordHeartbeat")]
    assert tried == ["hint", "hint", "torv", "torv", "rams"]
    assert len(desk.waiting()) == 100


def test_a_deployment_that_is_away_is_no_heartbeats_fault(desk: Desk) -> None:
    desk.keep(3)
    with Deployment({}) as deployment:
        gone = deployment.url
    connection = Connection(gone, TOKEN, deadline=Deadline(3), transport="http")
    with pytest.raises(Unreachable):
        Delivery(
            desk.spool, desk.url, fingerprint(TOKEN), connection, lambda: NOW, may_go_on=lambda: True
        ).run()
    assert [(one.tries, one.next_try_at) for one in desk.waiting()] == [(0, 0)] * 3


def test_a_connection_that_is_cut_after_the_commit_makes_duplicates_not_doubles(desk: Desk) -> None:
    names = desk.keep(5)
    backend = Backend()
    with Deployment(backend.functions(), faults=Faults(drop_after_commit=1)) as deployment:
        with pytest.raises(Unreachable):
            desk.to(deployment).run()
        assert [(one.tries, one.code) for one in desk.waiting()] == [(1, "cut")] * 5
        again = desk.to(deployment)
        again.run()
    assert backend.recorded == names and (again.duplicates, desk.waiting()) == (5, [])


def test_a_call_that_is_never_answered_puts_its_heartbeats_off_the_second_time(desk: Desk) -> None:
    desk.keep(2)
    with Deployment(Backend().functions(), faults=Faults(drop_after_commit=9)) as deployment:
        for put_off in (False, True):
            with pytest.raises(Unreachable):
                desk.to(deployment).run()
            assert [one.next_try_at > NOW.wall_ms for one in desk.waiting()] == [put_off] * 2


# --- whose they are


def test_what_another_token_sent_is_delivered_only_if_this_one_is_newer_and_may(desk: Desk) -> None:
    mine = desk.keep(1)
    older, foreign = (
        desk.keep(2, sent_with="older", first=10),
        desk.keep(1, "torv", sent_with="older", first=20),
    )
    unknown = desk.keep(1, sent_with="another's", first=30)
    told = {"scope": "send", "agents": ["hint"], "older": [fingerprint("older"), "not asked for"]}
    backend = Backend(token=told)
    with Deployment(backend.functions()) as deployment:
        desk.to(deployment).run()
        [asked] = [args["request"] for path, args in deployment.calls if path == "queries/getToken"]
    assert sorted(asked["fingerprints"]) == sorted([fingerprint("older"), fingerprint("another's")])
    assert backend.recorded == mine + older
    left = desk.waiting()
    assert [one.heartbeat_id for one in left] == foreign + unknown
    assert [one.tries for one in left] == [0, 0], "they wait for a token that may"


@pytest.mark.parametrize(
    ("told", "delivered"),
    [
        ({"scope": "admin", "older": [fingerprint("older")]}, True),
        ({"scope": "send", "older": []}, False),
        ({"scope": "read", "older": [fingerprint("older")]}, False),
    ],
)
def test_a_newer_token_for_all_agents_may_and_one_that_only_reads_may_not(
    desk: Desk, told: dict[str, Any], delivered: bool
) -> None:
    desk.keep(2, sent_with="older")
    backend = Backend(token=told)
    with Deployment(backend.functions()) as deployment:
        desk.to(deployment).run()
    assert bool(backend.recorded) == delivered == (desk.waiting() == [])


def test_functions_of_the_version_before_get_only_what_this_token_sent(desk: Desk) -> None:
    mine = desk.keep(1)
    desk.keep(1, sent_with="older", first=10)
    backend = Backend(contract=1)
    with Deployment(backend.functions()) as deployment:
        desk.to(deployment).run()
    assert backend.recorded == mine and len(desk.waiting()) == 1


# --- real commands: processes where there are several, or signals and deadlines; else in this one


@pytest.fixture
def fleet(live: Live) -> Iterator[Live]:
    assert live.inside("apply", "--yes").code == 0
    yield live


def history(live: Live, agent: str = "hint") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        request = {"agent": agent, "limit": 200, "cursor": cursor}
        with Connection(live.url, token_of(live.cli), deadline=Deadline(30), transport="http") as connection:
            page = connection.query("queries/getAgentHistory", "request", request)
        found += page["heartbeats"]
        cursor = page["continueCursor"]
        if page["isDone"]:
            return found


def token_of(cli: Cli) -> str:
    [line] = [
        line
        for line in (cli.config_dir / "tokens.toml").read_text().splitlines()
        if line.startswith("token = ")
    ]
    return str(json.loads(line.removeprefix("token = ")))


def test_many_senders_at_once_share_one_spool_and_each_has_its_answer(fleet: Live) -> None:
    words = [str(HEARTBEAT), "send", "hint", "--json"]
    senders = [
        subprocess.Popen(
            [*words, "--summary", str(number)],
            env=fleet.cli.environment(),
            cwd=fleet.cli.home,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    answers = [json.loads(sender.communicate(timeout=COMMAND_TIMEOUT_S)[0])["data"] for sender in senders]
    assert [(one["outcome"], one["health"]) for one in answers] == [("recorded", "ok")] * 4
    assert sorted(one["summary"] for one in history(fleet)) == [str(number) for number in range(4)]
    assert fleet.inside("spool", "list", "--json").data["waiting"] == 0


def test_a_stopped_process_that_delivers_holds_no_sender_beyond_its_deadline(fleet: Live) -> None:
    spool = Spool(fleet.cli.data_dir)
    spool.counts()
    assert fleet.inside("send", "hint").code == 0
    assert spool.alone()
    began = time.monotonic()
    kept = fleet.cli("send", "hint", "--deadline", "2", "--summary", "kept")
    assert time.monotonic() - began < 4
    assert kept.code == 0 and "another process is still delivering after 2 s" in kept.err
    assert fleet.cli("spool", "deliver", "--quiet").code == 75
    spool.done()
    assert fleet.cli("spool", "deliver", "--quiet").code == 0
    assert {one.get("summary") for one in history(fleet)} == {"kept", None}


def test_each_deployment_gets_its_own_with_the_token_that_is_kept_for_it(fleet: Live) -> None:
    """And the token in the environment, which is for the address set there, is shown to nobody else."""
    typed = fleet.inside
    with Deployment({"queries/getMonitorStatus": lambda _: {"contractVersion": 2.0}}) as elsewhere:
        typed("send", "hint", "--url", elsewhere.url, env={"HEARTBEAT_TOKEN": "for elsewhere"})
        assert typed("spool", "list", "--json").data["waiting"] == 1
        before = len(elsewhere.requests)
        done = typed("spool", "retry", "--json", env={"HEARTBEAT_TOKEN": "for the local one"})
        assert len(elsewhere.requests) == before
    assert done.code == 75 and f"what waits for {elsewhere.url} stays: there is no access token" in done.err
    assert history(fleet) == []


def test_the_dashboard_and_every_later_send_say_what_waits(fleet: Live) -> None:
    typed = fleet.inside
    with Deployment({}) as deployment:
        gone = deployment.url
    typed("send", "hint", "--url", gone, env={"HEARTBEAT_TOKEN": "x"})
    refused = typed("send", "nobody")
    assert refused.code == 1 and "it is set aside" in refused.err
    for words in (("dashboard",), ("send", "hint")):
        done = typed(*words)
        assert done.code == 0
        assert "1 heartbeat in the spool of this host, the oldest sent" in done.err
        assert "1 heartbeat in the spool of this host set aside: heartbeat spool list says why" in done.err
    assert typed("dashboard", "--json").data["spool"] == {"waiting": 1, "aside": 1}


def test_what_was_refused_has_one_more_try_after_apply(fleet: Live) -> None:
    typed = fleet.inside
    assert typed("send", "newcomer", "--summary", "early").code == 1
    assert typed("spool", "list", "--json").data["aside"] == 1
    fleet.cli.write_schedule(TABLE + "| newcomer | every 1h | | | |\n")
    done = typed("apply", "--yes")
    assert done.code == 0 and "delivered 1 heartbeat that had waited" in done.err
    assert [one["summary"] for one in history(fleet, "newcomer")] == ["early"]
    assert typed("spool", "list", "--json").data == {
        "path": str(fleet.cli.data_dir / "spool" / "spool.db"),
        "waiting": 0,
        "aside": 0,
        "entries": [],
    }


def test_what_is_given_up_is_shown_asked_for_and_kept_in_a_file(fleet: Live) -> None:
    typed = fleet.inside
    typed("send", "nobody", "--summary", "typo")
    assert typed("spool", "drop").code == 2
    asked = typed("spool", "drop", "--aside")
    assert asked.code == 2 and "nobody can be asked here" in asked.err and "nobody" in asked.out
    assert typed("spool", "list").out.splitlines()[-1] == "0 heartbeats waiting, 1 set aside"
    done = typed("spool", "drop", "--aside", "--yes", "--json")
    assert done.data["dropped"] == 1
    assert "typo" in Path(done.data["file"]).read_text()
    assert typed("spool", "list").out == "the spool is empty\n"
    assert typed("spool", "path").out.strip() == str(fleet.cli.data_dir / "spool" / "spool.db")


def drained(fleet: Live, number: int) -> tuple[float, int]:
    """Seconds and peak memory (bytes) of the process that delivers so many."""
    spool = Spool(fleet.cli.data_dir)
    now = Moment(time.time_ns() // 1_000_000)
    token = fingerprint(token_of(fleet.cli))
    assert spool.deployments(now.wall_ms) == []  # and so the file is made
    with sqlite3.connect(spool.path) as database:
        for place in range(number):
            name = heartbeat_id(now.wall_ms, place.to_bytes(10, "big"))
            agent = ("hint", "torv", "rams")[place % 3]
            body = {"heartbeatId": name, "agent": agent, "sentAt": now.wall_ms, "status": "ok"}
            database.execute(
                "INSERT INTO entries (heartbeat_id, agent, deployment, fingerprint, body, sent_at, boot_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, 0)",
                (name, agent, fleet.url, token, json.dumps(body), now.wall_ms),
            )
    database.close()
    began = time.monotonic()
    words = [str(HEARTBEAT), "spool", "deliver", "--json"]
    process = subprocess.Popen(
        words, env=fleet.cli.environment(), cwd=fleet.cli.home, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = json.loads(process.stdout.read())["data"]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert (process.returncode, told["delivered"], told["waiting"]) == (0, number, 0)
    return time.monotonic() - began, usage.ru_maxrss * 1024


def test_an_outage_is_drained_in_batches_by_one_process(fleet: Live) -> None:
    seconds, _ = drained(fleet, 400)
    assert seconds < 5, "10,000 are to take under 30 s"
    assert sum(len(history(fleet, agent)) for agent in ("hint", "torv", "rams")) == 400


@pytest.mark.long
def test_10000_are_drained_in_under_30_s_and_memory_stays_flat(fleet: Live) -> None:
    _, few = drained(fleet, 100)
    seconds, many = drained(fleet, 10_000)
    print(f"10,000 in {seconds:.1f} s; peak memory {many / 2**20:.0f} MB, for 100 {few / 2**20:.0f} MB")
    assert seconds < 30
    assert many < few + 30 * 2**20
