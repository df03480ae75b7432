"""`heartbeat local`: the real command and the real backend, in homes of their own; nothing stays running."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, TABLE, Inside, Local, alive, wait_for
from heartbeat_cli.local import BroughtDown, down


def test_up_starts_a_backend_and_down_leaves_a_whole_database_and_the_address(local: Local) -> None:
    done = local.up()
    assert done["outcome"] == "started"
    assert alive(done["pid"])

    ran = local.cli("local", "down", "--json")
    assert (ran.code, ran.data) == (0, {"stopped": done["pid"], "killed": False})
    assert not alive(done["pid"])
    assert (local.folder / "db" / "data.sqlite3").stat().st_size > 0
    assert not list((local.folder / "db").glob("*-wal")), "all of it is in the one file"
    told = local.status()
    assert (told.state, told.url, told.pid) == ("stopped", done["url"], None)
    assert local.up()["url"] == done["url"], "the port of the last time"


def test_up_again_leaves_the_one_that_runs(running: Local) -> None:
    before = running.status()
    again = running.up()
    assert (again["outcome"], again["pid"]) == ("already running", before.pid)


def test_the_other_commands_find_it_and_may_use_it(owner: Inside) -> None:
    ran = owner("dashboard", "--json")
    assert ran.code == 0, ran
    assert ran.data["agents"] == []


def test_two_ups_at_once_start_one_backend_and_make_one_token(local: Local, inside: Inside) -> None:
    both = [local.begin(), local.begin()]
    answers = [process.communicate(timeout=COMMAND_TIMEOUT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    outcomes = sorted(json.loads(answer)["data"]["outcome"] for answer in answers)
    assert outcomes == ["already running", "started"]
    assert len(inside("token", "list", "--json").data["tokens"]) == 1


def test_up_on_a_host_that_was_renamed_goes_on_with_the_token_it_kept(local: Local, inside: Inside) -> None:
    before = local.up()
    inside("local", "down")
    ran = local.try_up_as({"HEARTBEAT_HOST": "renamed"})
    assert (ran.code, ran.data["token"], ran.data["replacedToken"]) == (0, before["token"], None)
    assert inside("dashboard").code == 0


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "after down"])
def test_a_kept_token_that_was_revoked_is_replaced_by_up_which_says_so(
    local: Local, inside: Inside, running: bool
) -> None:
    revoked = local.up()["token"]
    assert inside("token", "revoke", revoked).code == 0
    if not running:
        inside("local", "down")
    assert inside("dashboard").code != 0
    ran = local.try_up()
    assert ran.code == 0, ran
    assert ran.data["replacedToken"] == revoked != ran.data["token"]
    assert f"{revoked}, which was kept for it, is not valid any more" in ran.err
    assert inside("dashboard").code == 0
    assert local.up()["replacedToken"] is None


def test_a_kept_token_with_a_name_of_its_own_is_kept(local: Local, inside: Inside) -> None:
    local.up()
    made = inside("token", "create", "mine", "--scope", "admin", "--save", "--json").data["fingerprint"]
    assert local.up()["token"] == made
    inside("local", "down")
    assert local.up()["token"] == made


def test_status_tells_what_runs_and_since_when(running: Local, owner: Inside) -> None:
    ran = owner("local", "status", "--check", "--json")
    told, pid = ran.data, running.id_under_lock()
    assert ran.code == 0
    assert (told["state"], told["answers"], told["older"], told["pid"]) == ("running", True, [], pid)
    assert told["url"].startswith("http://127.0.0.1:")
    assert told["startedAt"] <= time.time() * 1000
    assert told["dataBytes"] > 0


def test_without_a_backend_status_says_so_and_makes_nothing(local: Local, inside: Inside) -> None:
    ran = inside("local", "status", "--check")
    assert ran.code == 3
    assert "not running" in ran.out
    assert inside("local", "down").out == "the local backend is not running\n"
    assert not local.folder.exists()


def test_no_acknowledged_heartbeat_is_lost_to_kill_9(local: Local, inside: Inside) -> None:
    done = local.up()
    local.cli.write_schedule(TABLE)
    assert inside("apply", "--yes").code == 0
    assert local.cli("send", "hint", "--summary", "just before").code == 0
    os.kill(done["pid"], signal.SIGKILL)
    wait_for(lambda: local.status().state == "stopped")
    assert inside("send", "hint", "--strict").code == 75

    again = local.up()
    assert (again["outcome"], again["url"]) == ("started", done["url"])
    shown = inside("agents", "show", "hint", "--json").data
    assert [heartbeat["summary"] for heartbeat in shown["heartbeats"]] == ["just before"]


def test_functions_that_do_not_load_are_refused_in_the_backends_own_words(
    local: Local, inside: Inside, tmp_path: Path
) -> None:
    local.functions = tmp_path / "broken.mjs"
    local.functions.write_text("export const modules = ;\n")
    ran = local.cli("local", "up", "--port", "0", "--functions", str(local.functions))
    assert ran.code == 2, ran
    assert "the local backend did not start: " in ran.err
    assert local.status().state == "stopped"
    assert "heartbeat-backend: " in inside("local", "logs").out


def test_an_up_that_is_interrupted_leaves_nothing_behind(local: Local) -> None:
    up = local.begin()
    wait_for(local.id_under_lock)
    up.send_signal(signal.SIGINT)
    assert up.wait(COMMAND_TIMEOUT_S) == 130
    assert local.status().state == "stopped"


def test_the_guide_says_where_things_are_and_how_to_be_rid_of_them(local: Local) -> None:
    told = local.cli("local", "guide").out
    assert f"rm -r {local.folder}" in told
    assert (
        max(len(line.replace(str(HEARTBEAT), ".venv/bin/heartbeat")) for line in told.splitlines()[:5]) <= 80
    )
    assert f"{HEARTBEAT} local down" in told
    assert str(local.cli.config_dir / "tokens.toml") in told


@pytest.mark.long
def test_a_backend_that_hangs_is_noticed_and_replaced(local: Local) -> None:
    done = local.up()
    os.kill(done["pid"], signal.SIGSTOP)
    assert local.status().answers is False
    again = local.up()
    assert again["reasons"] == ["it did not answer within 5 s"]
    assert not alive(done["pid"])


@pytest.mark.long
def test_a_backend_that_does_not_stop_when_asked_is_killed(local: Local) -> None:
    done = local.up()
    os.kill(done["pid"], signal.SIGSTOP)
    assert down(local.instance) == BroughtDown(done["pid"], killed=True)
    assert not alive(done["pid"])


def test_what_waits_for_the_local_backend_follows_it_to_another_port(local: Local, inside: Inside) -> None:
    url = local.up()["url"]
    local.cli.write_schedule(TABLE)
    assert inside("apply", "--yes").code == 0
    inside("local", "down")
    assert inside("send", "hint", "--summary", "kept", "--deadline", "3").code == 0
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        taken = local.try_up()
        assert "choose another: heartbeat local up --port N" in json.loads(taken.out)["error"]["hint"]
        assert local.try_up("--port", "0").code == 0
        done = inside("spool", "deliver", "--json", "--deadline", "3")
    assert (done.code, done.data["delivered"], done.data["waiting"]) == (0, 1, 0)
