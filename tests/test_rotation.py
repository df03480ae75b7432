"""Tokens that follow each other: two valid at once, no send refused, and the one in use is told."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from conftest import TABLE, Cli, Inside, Live
from deployment import Deployment
from heartbeat_cli import tokens
from heartbeat_cli.times import DAY_MS
from test_secrets import assert_hidden


def test_a_token_is_rotated_on_every_host_without_one_refusal(live: Live, tmp_path: Path) -> None:
    here, host = live.inside, Cli(tmp_path / "host", dict(live.cli.env))
    host.folder.mkdir()
    host.write_schedule(TABLE)
    here("apply", "--yes")
    old = here("token", "create", "cron of box2", "--agents", "hint", "--host-name", "box2", "--json").data
    other = Inside(host, here.monkeypatch, here.capsys)
    outcomes: list[str] = []

    def send() -> None:
        live.move_clock(60_000)
        outcomes.append(other("send", "hint", "--json").data["outcome"])

    assert other("token", "save", "--scope", "send", stdin=old["token"]).code == 0
    send()
    made = here("token", "rotate", old["fingerprint"], "--json").data
    assert (
        made["then"] == f"heartbeat token revoke {old['fingerprint']}" and made["old"] == old["fingerprint"]
    )
    send()
    live.move_clock(DAY_MS)
    assert other("token", "save", "--scope", "send", stdin=made["token"]).code == 0
    send()
    listed = {row["fingerprint"]: row for row in here("token", "list", "--json").data["tokens"]}
    new, first = listed[made["fingerprint"]], listed[old["fingerprint"]]
    assert {name: new[name] for name in ("name", "scope", "agents", "hostName")} == {
        "name": "cron of box2",
        "scope": "send",
        "agents": ["hint"],
        "hostName": "box2",
    }
    # which of the two is still in use is told, so that the old one is revoked at the right time
    assert new["lastUsedAt"] - first["lastUsedAt"] == DAY_MS
    assert here("token", "revoke", old["fingerprint"]).code == 0
    send()
    assert outcomes == ["recorded"] * 4
    again = here("token", "rotate", old["fingerprint"])
    assert again.code == 2 and "it is revoked already" in again.err
    assert "there is no token 0123456789ab" in here("token", "rotate", "0123456789ab").err


def test_what_a_host_spooled_with_a_token_that_was_rotated_and_revoked_goes_with_the_new_one(
    live: Live, tmp_path: Path
) -> None:
    here, host = live.inside, Cli(tmp_path / "host", dict(live.cli.env))
    host.folder.mkdir()
    host.write_schedule(TABLE)
    here("apply", "--yes")
    old = here("token", "create", "cron of box2", "--agents", "hint", "--json").data
    other = Inside(host, here.monkeypatch, here.capsys)
    other("token", "save", "--scope", "send", stdin=old["token"])
    live.move_clock(60_000)
    made = here("token", "rotate", old["fingerprint"], "--json").data
    here("token", "revoke", old["fingerprint"])
    sent = other("send", "hint", "--json").data
    assert (sent["outcome"], sent["reason"]["code"]) == ("spooled", "unauthorized")
    other("token", "save", "--scope", "send", stdin=made["token"])
    assert other("spool", "retry", "--json").data["delivered"] == 1
    history = here("agents", "show", "hint", "--json").data["heartbeats"]
    assert [past["heartbeatId"] for past in history] == [sent["heartbeatId"]]
    assert_hidden({"old": old["token"], "new": made["token"]}, host.folder)


@pytest.mark.parametrize(
    ("days", "told"), [(0, "today"), (1, "1 d ago"), (40, "40 d ago"), (-1, "today"), (None, "-")]
)
def test_when_a_token_was_last_used_is_told_to_the_day(inside: Inside, days: int | None, told: str) -> None:
    today = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    token = {"fingerprint": "0" * 12, "name": "n", "scope": "send", "createdAt": today - 50 * DAY_MS}
    if days is not None:
        token["lastUsedAt"] = today - days * DAY_MS
    inside.cli.env["HEARTBEAT_TOKEN"] = tokens.mint()
    with Deployment({"queries/listTokens": lambda args: {"tokens": [token]}}) as peer:
        header, line = inside("token", "list", "--url", peer.url).out.splitlines()
    assert line[header.index("last used") : header.index("state")].strip() == told


def test_a_token_that_is_kept_here_is_rotated_in_its_place(live: Live) -> None:
    here = live.inside
    kept = tokens.stored(live.cli.config_dir, live.url, [])
    assert kept is not None
    done = here("token", "rotate", tokens.fingerprint(kept.text).upper())
    now = tokens.stored(live.cli.config_dir, live.url, [])
    assert done.code == 0 and now is not None and now.text != kept.text and now.scope == kept.scope
    assert "is kept in" in done.out and f"heartbeat token revoke {tokens.fingerprint(kept.text)}" in done.err
    assert here("token", "revoke", tokens.fingerprint(kept.text)).code == 0
    assert here("apply", "--yes").code == 0
    # and it is kept for whom it is
    admin = {"HEARTBEAT_TOKEN": now.text}
    assert here("token", "create", "box2", "--agents", "hint,torv", "--save", env=admin).code == 0
    first = tokens.stored(live.cli.config_dir, live.url, [])
    assert first is not None and first.agents == ("hint", "torv")
    assert here("token", "rotate", tokens.fingerprint(first.text), env=admin).code == 0
    second = tokens.stored(live.cli.config_dir, live.url, [])
    assert second is not None and second.agents == first.agents and second.text != first.text


def test_a_rotated_token_that_cannot_be_kept_is_named_and_the_old_one_stays(live: Live) -> None:
    here = live.inside
    file = tokens.path(live.cli.config_dir)
    kept = file.read_text()
    kept_token = tokens.stored(live.cli.config_dir, live.url, [])
    assert kept_token is not None
    code = (
        "import errno; from heartbeat_cli import cli, tokens\n"
        "def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "import os; tokens.replace = full; cli.main()"
    )
    done = live.cli(
        "token", "rotate", tokens.fingerprint(kept_token.text), program=(sys.executable, "-c", code)
    )
    assert done.code == 2 and "No space left" in done.err
    assert "nobody has that token now; end it: heartbeat token revoke" in done.err
    assert file.read_text() == kept and here("token", "list").code == 0
    assert os.listdir(file.parent) == ["tokens.toml"]  # noqa: PTH208 - names only
