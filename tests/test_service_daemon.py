"""The local backend under the real cron daemon: back after kill -9, and after the machine was started."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

import crond
from conftest import TABLE, Local, alive, wait_for
from heartbeat_cli.process import wait

pytestmark = crond.NEEDED
STARTS_WITHIN_S = 30  # besides cron's minute: it takes one, but such a machine may have other work
SWEEP_MS = 60_000


@pytest.fixture
def installed(local: Local, cron_world: crond.World) -> Local:
    cron_world.sees(local.cli)
    local.up()
    local.cli.write_schedule(TABLE)
    assert local.cli("apply", "--agents-only", "--yes").code == 0
    assert local.cli("local", "install", "--with", "cron", "--yes").code == 0
    return local


@pytest.fixture
def daemon(installed: Local, cron_world: crond.World) -> Iterator[Local]:
    with cron_world.daemon():
        yield installed
        installed.clear()  # what cron has started must not outlive it


def crons(local: Local) -> dict[str, tuple[str, float]]:
    """What the backend's crons are, and when each fires next."""
    file = local.folder / "db" / "data.sqlite3"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        return {name: (spec, at) for name, spec, at in database.execute("SELECT name, spec, next FROM crons")}


def kill(local: Local) -> int:
    pid = local.id_under_lock()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    return pid


def comes_back(local: Local, minute_s: float) -> bool:
    return wait(lambda: local.status().state == "running", minute_s + STARTS_WITHIN_S)


def test_after_kill_9_it_is_back_within_a_minute_with_its_data_and_its_crons(
    daemon: Local, cron_world: crond.World
) -> None:
    assert daemon.cli("send", "hint", "--summary", "just before").code == 0
    before, fires = daemon.status(), crons(daemon)
    killed = kill(daemon)
    assert comes_back(daemon, cron_world.minute_s)
    after, fires_after = daemon.status(), crons(daemon)
    assert (after.url, after.functions) == (before.url, before.functions)
    assert after.pid != killed
    shown = daemon.cli("agents", "show", "hint", "--json").data
    assert [heartbeat["summary"] for heartbeat in shown["heartbeats"]] == ["just before"]
    assert [spec for spec, _ in fires_after.values()] == [spec for spec, _ in fires.values()]
    assert fires_after["heartbeat prune"] == fires["heartbeat prune"]
    moved = fires_after["heartbeat sweep"][1] - fires["heartbeat sweep"][1]
    assert moved % SWEEP_MS == 0, "it goes on in the steps of before"

    # and down means down: more than one of cron's minutes later it still is
    daemon.cli("local", "down")
    time.sleep(1.2 * cron_world.minute_s)
    assert daemon.status().state == "stopped"


def test_it_comes_with_the_machine(installed: Local, cron_world: crond.World) -> None:
    kill(installed)
    text = cron_world.stands() or b""
    cron_world.write(b"".join(line for line in text.splitlines(keepends=True) if line[:1] in b"@#"))
    cron_world.sh("rm -f /run/crond.reboot")  # by which cron knows that it was started before
    with cron_world.daemon():
        assert comes_back(installed, 0)
        installed.clear()
