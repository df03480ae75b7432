"""Deliveries that a bad neighbour, a full spool, a slow line or a long back-off must not hold up."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from conftest import Cli
from deployment import Deployment, PlainError
from heartbeat_cli.client import Connection
from heartbeat_cli.clock import Moment
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.deliver import BATCH, Delivery
from heartbeat_cli.errors import HeartbeatError, SpoolProblem
from heartbeat_cli.heartbeat import heartbeat_id
from heartbeat_cli.spool import BACKOFF_FIRST_MS, BACKOFF_JITTER, Spool
from heartbeat_cli.spool_entry import Entry
from heartbeat_cli.tokens import fingerprint
from test_deliver import NOW, SERVER_ERROR, TOKEN, Backend, Desk, desk

__all__ = ["desk"]  # a fixture

MINUTE_MS = 60_000


def test_an_agent_whose_heartbeats_all_fail_blocks_no_other_agents(desk: Desk) -> None:
    """The functions choke on one agent (a team's fleet.ts throws for it): the others' are delivered."""
    desk.keep(100, "torv")
    [other] = desk.keep(1, "hint", first=1_000)

    def choke(heartbeats: Sequence[Mapping[str, Any]]) -> None:
        if any(one["agent"] == "torv" for one in heartbeats):
            raise PlainError(SERVER_ERROR)

    backend = Backend(together=choke, singly=lambda one: choke([one]))
    with Deployment(backend.functions()) as deployment:
        for minutes in range(0, 24 * 60, 5):  # a crontab line each five minutes, for a day
            passed = minutes * MINUTE_MS
            now = Moment(NOW.wall_ms + passed, "boot", NOW.boot_ms + passed)
            with contextlib.suppress(HeartbeatError):
                desk.to(deployment, now).run()
            if backend.recorded:
                break
    assert backend.recorded == [other]


@pytest.mark.parametrize("code", ["slow_down", "unauthorized"])
def test_one_call_is_one_try_however_many_of_it_were_refused(desk: Desk, code: str) -> None:
    desk.keep(BATCH)
    refused = {"outcome": "refused", "code": code, "message": "no", "retryAfterMs": 1_000.0}
    with Deployment(Backend(item=lambda _: refused).functions()) as deployment:
        desk.to(deployment).run()
    assert {one.tries for one in desk.waiting()} == {1}
    most = NOW.wall_ms + BACKOFF_FIRST_MS * (1 + BACKOFF_JITTER)
    assert all(one.next_try_at <= most for one in desk.waiting())


def test_a_runaway_loop_that_is_to_slow_down_is_put_off_in_no_time(desk: Desk) -> None:
    desk.keep(1)
    many(desk, 9_999)
    slow = {"outcome": "refused", "code": "slow_down", "message": "slow", "retryAfterMs": 1_000.0}
    with Deployment(Backend(item=lambda _: slow).functions()) as deployment:
        began = time.monotonic()
        desk.to(deployment).run()
        took = time.monotonic() - began
    assert took < 1


def many(desk: Desk, number: int, agent: str = "hint", text: str = "", first: int = 50_000) -> None:
    with sqlite3.connect(desk.spool.path) as database:
        for n in range(first, first + number):
            name = heartbeat_id(n, n.to_bytes(10, "big"))
            body = {
                "heartbeatId": name,
                "agent": agent,
                "sentAt": NOW.wall_ms,
                "status": "ok",
                "summary": text,
            }
            database.execute(
                "INSERT INTO entries (heartbeat_id, agent, deployment, fingerprint, body, sent_at, boot,"
                " boot_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    agent,
                    desk.url,
                    fingerprint(TOKEN),
                    json.dumps(body),
                    NOW.wall_ms,
                    "boot",
                    NOW.boot_ms,
                ),
            )
    database.close()


def fill(desk: Desk, agent: str, text: str, first: int) -> int:
    """Add heartbeats until no page is left, as `send` does; returns how many."""
    number = 0
    while True:
        n = first + number
        name = heartbeat_id(n, n.to_bytes(10, "big"))
        body = {"heartbeatId": name, "agent": agent, "sentAt": NOW.wall_ms, "status": "ok", "summary": text}
        try:
            desk.spool.add(Entry.new(body, desk.url, fingerprint(TOKEN), NOW))
        except SpoolProblem as problem:
            assert "100 MB" in str(problem), problem
            return number
        number += 1


@pytest.mark.parametrize("size", [100, 2_500])
def test_a_spool_of_100_mb_is_delivered(desk: Desk, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # as if the bound were 0.5 MB, which is the same and takes less time
    monkeypatch.setattr("heartbeat_cli.spool_file.BYTES_MAX", 500_000)
    number = fill(desk, "hint", "x" * size, 1)
    answer = {"outcome": "recorded", "health": "ok", "reason": "y" * 300}
    backend = Backend(item=lambda one: answer)
    with Deployment(backend.functions()) as deployment:
        delivery = desk.to(deployment)
        delivery.run()
    assert (delivery.delivered, desk.waiting()) == (number, [])


@pytest.mark.parametrize("size", [100, 2_500])
def test_a_full_spool_can_set_aside_and_put_off(
    desk: Desk, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_cli.spool_file.BYTES_MAX", 500_000)
    first = desk.keep(BATCH, "torv")
    number = fill(desk, "hint", "x" * size, 1_000)
    message = 'No agent "torv" is registered; `heartbeat apply` registers it.'
    refused = {"outcome": "refused", "code": "unknown_agent", "message": message}
    backend = Backend(item=lambda one: refused if one["agent"] == "torv" else None)
    with Deployment(backend.functions()) as deployment:
        delivery = desk.to(deployment)
        delivery.run()
    assert (delivery.delivered, delivery.aside, desk.waiting()) == (number, len(first), [])


ENOUGH_S, TOO_LONG_S = 1.0, 1.5
FEW = 30


def renewed(deadline: Deadline) -> bool:
    deadline.renew()
    return True


def test_what_is_too_much_for_one_call_goes_in_smaller_ones(desk: Desk) -> None:
    desk.keep(BATCH)

    def slow(heartbeats: Sequence[Mapping[str, Any]]) -> None:
        if len(heartbeats) > FEW:
            time.sleep(TOO_LONG_S)
            raise PlainError(SERVER_ERROR)  # nothing of it is recorded: nobody hears of it

    backend = Backend(together=slow)
    with Deployment(backend.functions()) as deployment:
        for hours in range(20):
            later = hours * 7_200_000
            deadline = Deadline(ENOUGH_S)
            connection = Connection(deployment.url, TOKEN, deadline=deadline, transport="http")
            delivery = Delivery(
                desk.spool,
                desk.url,
                fingerprint(TOKEN),
                connection,
                partial(Moment, NOW.wall_ms + later, "boot", NOW.boot_ms + later),
                partial(renewed, deadline),
            )
            with contextlib.suppress(HeartbeatError):
                delivery.run()
            if not desk.waiting():
                break
    assert desk.waiting() == []


DEADLINE_S, OVERTIME_S = 3.0, 1.0


def test_a_send_behind_a_runaway_loop_ends_within_its_deadline(user: Cli) -> None:
    slow = {"outcome": "refused", "code": "slow_down", "message": "slow", "retryAfterMs": 1_000.0}

    def item(heartbeat: Mapping[str, Any]) -> dict[str, Any] | None:
        return slow if heartbeat["agent"] == "torv" else None

    with Deployment(Backend(item=item).functions()) as deployment:
        user.env |= {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "the token in use"}
        desk = Desk(Spool(user.data_dir), deployment.url)
        desk.keep(1, "torv")
        many(desk, 9_999, "torv")
        began = time.monotonic()
        done = user("send", "hint", "--deadline", f"{DEADLINE_S:g}")
        took = time.monotonic() - began
    assert done.code == 0 and took <= DEADLINE_S + OVERTIME_S
