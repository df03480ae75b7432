"""The files of a local backend: whose they are, whom they name, and what becomes of damaged ones."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess

import pytest

from conftest import AS_A_USER, HEARTBEAT, Inside, Local, wait_for
from heartbeat_cli.local import down
from heartbeat_cli.local_address import local_url


def test_everything_in_the_folder_is_its_users_alone_whatever_the_umask(local: Local, inside: Inside) -> None:
    local.cli.env["NODE_COMPILE_CACHE"] = ""
    before = os.umask(0)
    try:
        local.up()
    finally:
        os.umask(before)
    inside("local", "down")  # it writes what it compiled when it ends
    for file in (local.folder, *local.folder.rglob("*")):
        assert file.stat().st_mode & 0o777 == (0o700 if file.is_dir() else 0o600), file
    assert list((local.folder / "cache").iterdir())


def test_a_process_id_that_somebody_else_has_now_is_left_alone(
    local: Local, bystander: subprocess.Popen[bytes]
) -> None:
    local.folder.mkdir(parents=True)
    (local.folder / "backend.lock").write_text(f"{bystander.pid}\n")
    assert down(local.instance).pid is None
    assert local.up("--port", "0")["outcome"] == "started"
    assert bystander.poll() is None


def test_a_lock_that_is_not_the_backends_is_no_reason_to_end_anybody(
    local: Local, inside: Inside, bystander: subprocess.Popen[bytes]
) -> None:
    local.folder.mkdir(parents=True)
    lock = local.folder / "backend.lock"
    lock.write_text(f"{bystander.pid}\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for command in ("down", "status"):
            ran = inside("local", command)
            assert ran.code == 1
            assert "held by a process that is not the local backend" in ran.err
    assert bystander.poll() is None


def test_an_up_that_is_killed_leaves_a_backend_that_the_next_one_puts_in_order(local: Local) -> None:
    up = local.begin()
    wait_for(local.id_under_lock)
    up.kill()
    up.wait()
    pid = local.id_under_lock()
    assert local.status().state == "starting"
    again = local.up("--port", "0")
    assert (again["outcome"], again["reasons"]) == ("restarted", ["it had not become ready"])
    assert again["pid"] != pid


def test_a_damaged_record_of_a_backend_that_runs_hides_neither_its_address_nor_itself(local: Local) -> None:
    before = local.up()
    for damage in ("", "{ torn", '{"url": "http://127.0.0.1:x"}', "[]"):
        (local.folder / "backend.json").write_text(damage)
        told = local.status()
        assert (told.state, told.url, told.pid) == ("running", before["url"], before["pid"]), damage
        assert local_url(local.cli.data_dir) == before["url"], damage
        again = local.up()
        assert (again["outcome"], again["url"]) == ("restarted", before["url"]), damage
        assert local.status().healthy
        before = again


def test_a_damaged_record_of_a_backend_that_is_gone_does_not_stop_the_next(
    local: Local, inside: Inside
) -> None:
    local.folder.mkdir(parents=True)
    record = {"pid": 1, "url": "http://127.0.0.1:abc", "siteUrl": "x", "version": "", "functionsHash": ""}
    more = {"startedAt": 0, "functions": None, "functionsDigest": "", "backendDigest": ""}
    (local.folder / "backend.json").write_text(json.dumps({**record, **more}))
    assert inside("local", "status").code == 0
    assert local.up("--port", "0")["outcome"] == "started"


@pytest.mark.parametrize("command", ["up", "down", "status", "logs"])
def test_a_data_folder_that_may_not_be_used_is_one_sentence(local: Local, command: str) -> None:
    local.folder.mkdir(parents=True)
    local.folder.parent.chmod(0)
    try:
        ran = local.cli("local", command, program=(*AS_A_USER, str(HEARTBEAT)))
    finally:
        local.folder.parent.chmod(0o700)
    assert (ran.code, ran.out) == (2, ""), ran
    assert f"{local.folder} cannot be used: Permission denied" in ran.err


def test_a_record_that_cannot_be_written_is_one_sentence_and_leaves_nothing_running(local: Local) -> None:
    (local.folder / "backend.json").mkdir(parents=True)
    ran = local.try_up("--port", "0")
    assert ran.code == 2, ran
    assert f"{local.folder} cannot be used: " in json.loads(ran.out)["error"]["message"]
    assert local.status().state == "stopped"
