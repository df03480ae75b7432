"""What `heartbeat doctor` says of a host: settings, files, disks, the log, the spool, Node."""

from __future__ import annotations

import json
import subprocess

import pytest

from conftest import (
    AS_A_USER,
    HEARTBEAT,
    STANDINS,
    TABLE,
    Cli,
    Inside,
)
from disks import MOUNTABLE, Disk
from doctors import Diagnosis, Env, examine, kept, typed
from heartbeat_cli import tokens
from heartbeat_cli.spool import Spool
from peers import Peer, relays, slam
from test_engine import without_node  # noqa: F401 - a fixture


def test_where_each_setting_came_from(host: Inside) -> None:
    host.cli.config_dir.mkdir(parents=True, exist_ok=True)
    (host.cli.config_dir / "config.toml").write_text('host = "box"\nhosst = "typo"\n')
    found = examine(host)
    said = [finding["message"] for finding in found.of("settings")]
    assert f"host: box ({host.cli.config_dir / 'config.toml'})" in said
    assert f"url: {host.cli.env['HEARTBEAT_URL']} (HEARTBEAT_URL)" in said
    message, _ = found.trouble("settings", "warning")
    assert "unknown setting 'hosst'" in message
    assert "hosst" not in found.ran.err, "said once"


def test_files_that_others_can_read(host: Inside) -> None:
    file = tokens.path(host.cli.config_dir)
    file.chmod(0o644)
    message, fix = examine(host).trouble("files")
    assert message == f"other users can read {file}" and fix == f"chmod 600 {file}"
    assert typed(host.cli, fix).code == 0
    assert examine(host).states("files") == {"ok"}


@pytest.mark.skipif(not MOUNTABLE, reason="mounts a disk of its own, which root may")
def test_a_disk_that_is_full_or_read_only(host: Inside) -> None:
    with Disk(host.cli.folder / "logs") as disk:
        env = {"HEARTBEAT_LOG": str(disk.folder / "heartbeat.log")}
        disk.fill()
        message, fix = examine(host, env=env).trouble("disk")
        assert message.startswith("0.0 MB free") and str(disk.folder) in fix
        disk.free()
        disk.read_only()
        found = examine(host, env=env)
        assert "is read-only" in found.trouble("disk")[0] and found.states("log") == {"problem"}
        typed(host.cli, found.trouble("disk")[1].removeprefix("sudo "))
        subprocess.run(["mount", "-o", "remount,size=50m", disk.folder], check=True)
        assert examine(host, env=env).trouble("disk", "warning")[0].startswith("52.4 MB free")
        assert examine(host, env=env).states("log") == {"ok"}


def as_a_user(cli: Cli, env: Env) -> Diagnosis:
    return examine(cli, env=env, program=(*AS_A_USER, str(HEARTBEAT)))


def test_a_log_and_a_spool_that_cannot_be_written(host: Inside) -> None:
    folder, spool = host.cli.folder / "logs", host.cli.data_dir / "spool"
    log = folder / "heartbeat.log"
    env = {"HEARTBEAT_LOG": str(log)}
    for made in (folder, spool):
        made.mkdir(parents=True)
    log.touch()
    log.chmod(0o400)
    spool.chmod(0o500)
    found = as_a_user(host.cli, env)
    for check, says in {
        "log": f"the log {log} cannot be written: Permission denied",
        "spool": f"the spool in {spool} cannot be written: nothing is kept",
    }.items():
        message, fix = found.trouble(check)
        assert message == says and typed(host.cli, fix.removeprefix("sudo ")).code == 0
    folder.chmod(0o500)
    found = as_a_user(host.cli, env)
    assert "cannot be rotated" in found.trouble("log", "warning")[0] and found.states("spool") == {"ok"}


def test_a_log_where_no_file_can_be(host: Inside) -> None:
    folder, file = host.cli.folder / "logs", host.cli.folder / "file"
    folder.mkdir()
    file.touch()
    assert "is a folder" in examine(host, env={"HEARTBEAT_LOG": str(folder)}).trouble("log")[0]
    _, fix = examine(host, env={"HEARTBEAT_LOG": str(file / "under" / "a-file")}).trouble("log")
    assert fix == f"mv {file} {file}.old"


def test_what_waits_in_the_spool_is_delivered_by_what_it_says(host: Inside) -> None:
    assert host("apply", "--yes").code == 0
    url = host.cli.env["HEARTBEAT_URL"]
    with Peer(slam) as peer:  # a way to it that is down for now
        tokens.save(host.cli.config_dir, peer.url, kept(host.cli, url), "admin")
        host.cli.env["HEARTBEAT_URL"] = peer.url
        assert host("send", "hint").code == 0
        message, fix = examine(host).trouble("spool", "warning")
        assert message.startswith("1 heartbeat waiting, the oldest sent now: ") and peer.url in message
        peer.becomes(relays(int(url.rpartition(":")[2])))
        assert fix == "heartbeat spool deliver" and typed(host.cli, fix).code == 0
        assert examine(host).states("spool") == {"ok"}


def test_what_was_refused_for_good(host: Inside) -> None:
    assert host("send", "nobody").code == 1
    message, fix = examine(host).trouble("spool")
    assert message.startswith("1 heartbeat set aside, the first of nobody:") and fix == "heartbeat apply"


def test_what_waits_and_nobody_here_may_deliver(away: Inside) -> None:
    url = away.cli.env["HEARTBEAT_URL"]
    assert away("send", "hint").code == 0
    found = examine(away, env={"HEARTBEAT_URL": "http://127.0.0.1:1"})
    assert found.states("spooled tokens") == set(), "a token is kept for it"
    tokens.path(away.cli.config_dir).unlink()
    found = examine(away, env={"HEARTBEAT_URL": "http://127.0.0.1:1"})
    message, fix = found.trouble("spooled tokens")
    assert message == f"1 heartbeat waiting for {url}, for which no token is kept here"
    assert fix == f"heartbeat token save --url {url} < FILE"


def test_what_waits_for_the_local_backend_of_a_host_that_reports_elsewhere_and_of_one_that_does_not(
    away: Inside,
) -> None:
    url, data_dir = away.cli.env["HEARTBEAT_URL"], away.cli.data_dir
    assert away("send", "hint").code == 0
    Spool(data_dir).readdress(url, "local", tokens.fingerprint("a-token"))
    message, fix = examine(away).trouble("spooled tokens")
    assert message == f"1 heartbeat waiting for the local backend, and this host reports to {url}"
    assert fix == f"heartbeat connect {url}"
    (data_dir / "local").mkdir()
    (data_dir / "local" / "backend.json").write_text(json.dumps({"url": url}))
    assert examine(away).states("spooled tokens") == set(), "it is the one that this host reports to"


def test_what_waits_for_another_token(host: Inside) -> None:
    assert host("apply", "--yes").code == 0
    assert host("send", "hint", env={"HEARTBEAT_TOKEN": "never-known-there"}).code == 0
    message, fix = examine(host).trouble("spooled tokens")
    assert f"with the token {tokens.fingerprint('never-known-there')}" in message and "token save" in fix


def test_a_spool_that_is_no_spool(host: Inside) -> None:
    file = host.cli.data_dir / "spool" / "spool.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a database" * 100)
    message, fix = examine(host).trouble("spool")
    assert str(file) in message and "moved away" in fix


def test_no_node_for_the_local_backend(cli: Cli, without_node: list[str]) -> None:  # noqa: F811
    cli.write_schedule(TABLE)
    env = {"PATH": str(STANDINS)}
    found = examine(cli, program=without_node, env=env)
    message, fix = found.trouble("node")
    assert "needs Node.js 24 or newer, and" in message and "[local]" in fix
    elsewhere = examine(cli, program=without_node, env=env | {"HEARTBEAT_URL": "http://127.0.0.1:1"})
    assert elsewhere.of("node") == [], "for a deployment elsewhere none is needed"
