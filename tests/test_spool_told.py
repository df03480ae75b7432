"""What `heartbeat spool`, `send` and the dashboard say of what this host has not delivered."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from conftest import Cli, Inside, Live
from deployment import Deployment
from heartbeat_cli.clock import now
from heartbeat_cli.spool import AGENT_ENTRIES_MAX, Spool
from heartbeat_cli.spool_entry import Entry
from heartbeat_cli.tokens import fingerprint
from peers import free_port
from test_deliver import fleet

__all__ = ["fleet"]  # a fixture


def waiting(cli: Cli, url: str, agent: str, number: int, sent_with: str = "a-token") -> None:
    spool = Spool(cli.data_dir)
    spool.add(Entry.new({"heartbeatId": "id", "agent": agent}, url, fingerprint(sent_with), now()))
    with sqlite3.connect(spool.path) as database:
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO entries (heartbeat_id, agent, deployment, fingerprint, body, sent_at, boot_ms)"
            " SELECT 'id-' || i, ?, ?, ?, '{}', 0, 0 FROM n",
            (number, agent, url, fingerprint(sent_with)),
        )
    database.close()


def test_a_full_spool_says_what_to_do_where_the_deployment_is_away_too(user: Cli, inside: Inside) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    waiting(user, url, "hint", AGENT_ENTRIES_MAX)
    done = inside("send", "hint", "--url", url, "--json")
    error = json.loads(done.out)["error"]
    assert (done.code, error["code"]) == (1, "lost")
    assert "heartbeat spool list" in str(error["hint"])


@pytest.mark.parametrize("words", [["--json"], ["--help"], ["--no-such-option"]])
def test_deliver_quiet_is_still_the_command_it_is(user: Cli, words: list[str]) -> None:
    done = user("spool", "deliver", "--quiet", *words)
    if words == ["--json"]:
        assert json.loads(done.out)["data"]["waiting"] == 0
    elif words == ["--help"]:
        assert "Usage" in done.out
    else:
        assert done.code == 2


def test_a_heartbeat_that_waits_for_a_token_is_listed_with_that_reason(fleet: Live) -> None:
    """Sent with a token this deployment never knew: it stays, and people can find out why."""
    typed = fleet.inside
    waiting(fleet.cli, fleet.url, "hint", 1, "a token that nobody has any more")
    done = typed("spool", "deliver")
    assert done.code == 75
    listed = typed("spool", "list")
    assert "not tried yet" not in listed.out


def test_two_that_are_dropped_in_one_millisecond_are_both_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for name in ("one", "two"):
        spool.add(Entry.new({"heartbeatId": name, "agent": "hint"}, "u", "t", now()))
    files = [spool.drop([name], 1_000) for name in ("one", "two")]
    texts = "".join(file.read_text() for file in files if file)
    assert '"one"' in texts and '"two"' in texts


def test_a_send_that_fails_itself_says_what_waits_too(fleet: Live) -> None:
    typed = fleet.inside
    with Deployment({}) as deployment:
        gone = deployment.url
    typed("send", "hint", "--url", gone, env={"HEARTBEAT_TOKEN": "x"})
    typed("send", "somebody")  # refused: it is set aside
    away = {"HEARTBEAT_URL": gone, "HEARTBEAT_TOKEN": "y"}
    for words, env, code in ((["hint"], {}, 0), (["nobody"], {}, 1), (["hint", "--strict"], away, 75)):
        done = typed("send", *words, env=env)
        assert done.code == code
        assert "in the spool of this host, the oldest sent" in done.err
        assert "set aside: heartbeat spool list says why" in done.err


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_dashboard_of_a_deployment_that_is_away_says_what_waits(
    user: Cli, inside: Inside, form: tuple[str, ...]
) -> None:
    user.env["HEARTBEAT_URL"] = f"http://127.0.0.1:{free_port()}"
    assert inside("send", "hint").code == 0
    done = inside("dashboard", *form)
    assert "1 heartbeat in the spool of this host" in done.err


def test_a_token_that_is_no_text_is_a_setting_that_cannot_be_used(user: Cli) -> None:
    env = {"HEARTBEAT_URL": "http://127.0.0.1:9", "HEARTBEAT_TOKEN": "abcdefgh\udcff\udcfeijkl"}
    done = user("send", "hint", env=env)
    assert done.code == 2 and "Traceback" not in done.err


def test_a_deployment_that_could_not_be_reached_is_named_and_left_alone_for_a_while(
    user: Cli, inside: Inside
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert inside("send", "hint", "--url", url).code == 0
    listed = inside("spool", "list").out
    assert "nothing answers at" in listed and "not tried yet" not in listed
    with Deployment({}) as deployment:
        deployment_calls = deployment.requests
        assert user("spool", "deliver", "--quiet").code == 75
        assert deployment_calls == []
    assert Spool(user.data_dir).deployments(now().wall_ms) == []
    Spool(user.data_dir).contact(url, now().wall_ms, None)
    assert inside("spool", "deliver", env={"HEARTBEAT_URL": url}).code == 75
    assert Spool(user.data_dir).deployments(now().wall_ms) == [], "whoever delivers notes it, too"
