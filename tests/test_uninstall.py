"""`heartbeat uninstall`: a team leaves, and everything is as it was before it came."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from conftest import Inside, Live, Local
from deployment import Deployment
from heartbeat_cli import tokens
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Trouble
from hostile import HOSTILE, harmless
from leaving import (
    CRONTAB,
    FIXTURE,
    NO_CALL_OF_ITS_OWN,
    SCHEDULE,
    Bundles,
    Gate,
    Team,
    begun,
    come,
    contents,
    copied,
    documents,
    killed_where,
)
from peers import free_port
from terminal import on_a_terminal


def test_a_team_that_leaves_finds_documents_folder_and_crontab_as_they_were(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    shown = [json.loads(row) for row in team.tables()["agents"]]
    assert sum("heartbeat" in row for row in shown) == 2
    assert not team.starts_with(team.bundles.before), "a card is there, and no field for it"
    now = (team.tables(), contents(team.folder), team.crontab)

    # wherever it is typed
    elsewhere = here("uninstall", "--dry-run", "--home", str(cli.folder))
    assert "jobs run unwrapped" in elsewhere.out
    leave = ("uninstall", str(team.folder), "--empty")
    planned = here(*leave, "--dry-run")
    order = [
        *("jobs run unwrapped", "at http", "tokens that are revoked: 1 (box2)", "agents.heartbeat is unset"),
        *("our tables are emptied", "our own token ends", "files leave", "then, yours to do: npx convex"),
    ]
    places = [planned.out.index(words) for words in order]
    assert planned.code == 0 and places == sorted(places), planned.out
    assert "  - import { heartbeatField, heartbeatTables }" in planned.out
    unasked = here(*leave)
    assert unasked.code == 2 and "nobody can be asked here" in unasked.err
    assert unasked.out == planned.out.replace("nothing was changed (dry run)\n", "")
    declined = on_a_terminal(cli, *leave, typed="n\n", env={}, columns=500)
    assert declined.count("[y/N]") == 1 and "not confirmed" in declined
    assert (team.tables(), contents(team.folder), team.crontab) == now

    done = here(*leave, "--yes", "--json")
    assert done.code == 0, done
    assert done.data["outcome"] == "left" and done.data["deployment"]["changed"]["cards"] == 2
    assert done.data["left"] == ["push it: npx convex deploy"]
    team.assert_as_before()
    assert team.starts_with(team.bundles.before)
    team.backend.admin("heartbeat/maintenance:sweep", {})
    team.assert_as_before()
    # of this user's files the entry of that deployment went, and nothing else
    assert tokens.stored(cli.config_dir, team.backend.url, []) is None
    assert tokens.stored(cli.config_dir, "https://other.example", []) == tokens.Token("another", "send")
    assert cli.write_schedule(SCHEDULE).exists() and (cli.home / "logs" / "agent-heartbeat.log").exists()
    kept = Path(done.data["app"]["keptIn"])
    assert (kept / "fleet.ts").read_bytes() == (FIXTURE / "fleet.ts").read_bytes()

    again = here("uninstall", str(team.folder), "--yes", "--json")
    assert (again.code, again.data["outcome"]) == (0, "unchanged")
    assert "nothing of ours is left to take away" in here(*leave, "--dry-run").out
    emptied = here(*leave, "--yes")
    assert emptied.code == 0 and "our tables there were emptied " in emptied.out, emptied


def test_what_is_in_our_tables_stays_where_nobody_asked_for_it_to_go(team: Team) -> None:
    here = team.inside
    come(team)
    # what waits, and is put off, is delivered before the token ends
    team.backend.stop()
    assert "is spooled" in here("send", "torv", env={"HEARTBEAT_DEADLINE": "3"}).err
    an_hour, now = Trouble("slow_down", "later", least_ms=3_600_000), time.time_ns() // 1_000_000
    Spool(team.cli.data_dir).put_off({"deployment": team.backend.url}, an_hour, now)
    team.backend.start(int(team.backend.url.rpartition(":")[2]))
    planned = here("uninstall", str(team.folder), "--dry-run").out
    assert "2. 1 heartbeat in the spool: delivered; what is refused stays in" in planned
    assert "our tables keep what is in them; --empty deletes it" in planned
    done = here("uninstall", str(team.folder), "--yes")
    assert done.code == 0 and "delivered 1 heartbeat from the spool" in done.out
    team.assert_as_before(emptied=False)
    assert team.starts_with(team.bundles.before)
    assert len(team.tables()["agentHeartbeats"]) == 3
    assert all("revokedAt" in row for row in team.tables()["heartbeatTokens"])
    # it is told what it takes to have them emptied after all
    late = here("uninstall", "--empty", "--yes")
    assert late.code == 1 and f"heartbeat connect {team.backend.url}" in late.out


@pytest.mark.parametrize("empty", [True, pytest.param(False, marks=pytest.mark.long)])
def test_killed_at_any_call_and_typed_again_it_leaves_nothing_undone(team: Team, empty: bool) -> None:
    here, cli = team.inside, team.cli
    come(team)
    gate = Gate(team)
    leave = ("uninstall", str(team.folder), "--yes", *(("--empty",) if empty else ()))
    # the calls of a run: two that look, one a step
    filled = team.tables().keys() - team.documents.keys() - NO_CALL_OF_ITS_OWN
    last = 5 + (len(filled) + 1 if empty else 0)
    with gate.listens() as url:
        for call, passes in ((3, True), (4, False), (last, True)):
            gate.left, gate.passes, gate.stuck = call, passes, False
            killed_where(gate, begun(cli, *leave))
        # the last answer was never heard: the token is not accepted, and nothing else is left to be done
        gate.left, gate.stuck = float("inf"), False
        team.assert_as_before(emptied=empty)
        done = here("uninstall", str(team.folder), "--yes", "--json")
    assert done.code == 0 and done.data["deployment"]["outcome"] == "refused", done
    assert tokens.stored(cli.config_dir, url, []) is None


@pytest.mark.long
def test_killed_at_whatever_instant_and_typed_again_everything_is_as_it_was(team: Team) -> None:
    chance, kills = random.Random(7), 0  # noqa: S311 - which plan, not a secret
    for _ in range(10):
        come(team)
        while True:
            process = begun(team.cli, "uninstall", str(team.folder), "--empty", "--yes")
            try:
                code = process.wait(timeout=chance.uniform(0.2, 1.0) * (1 + kills / 50))
                assert code == 0, process.communicate()
                break
            except subprocess.TimeoutExpired:
                kills += 1
                process.kill()
            process.communicate()
        team.assert_as_before()
        assert tokens.stored(team.cli.config_dir, team.backend.url, []) is None
        tokens.ensure_local_token(team.cli.config_dir, team.backend.url, lambda _: False, team.backend.admin)
    assert kills >= 3  # of some seven


# --- where not all of it can be done


def test_what_is_stopped_is_told_by_everybody_and_applying_starts_it_again(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    kept = tokens.stored(here.cli.config_dir, live.url, [])
    assert kept is not None
    live.admin("mutations/leave", {"token": kept.text, "request": {"step": "stop"}})
    live.move_clock(60_000)
    live.admin("heartbeat/maintenance:sweep", {})
    shown = here("dashboard").out
    assert "the sweep was stopped" in shown and "heartbeat apply starts it again" in shown
    board = here("dashboard", "--json").data["monitor"]
    planned = here("apply", "--dry-run")
    assert "! the sweep there was stopped" in planned.out and "nothing was written (dry run)" in planned.out
    assert "stoppedAt" in here("dashboard", "--json").data["monitor"]
    applied = here("apply", "--yes", "--json").data
    assert applied["outcome"] == "applied" and applied["stoppedAt"] == board["stoppedAt"]
    live.admin("heartbeat/maintenance:sweep", {})
    after = here("dashboard", "--json").data
    assert "stoppedAt" not in after["monitor"] and all(row["linked"] for row in after["agents"])
    assert here("apply").out.endswith("nothing to change\n")


def test_a_deployment_that_is_away_is_left_for_later_and_this_hosts_half_is_done(away: Inside) -> None:
    cli = away.cli
    app = copied(cli.folder / "app")
    away("functions", "add", str(app), "--write", "--yes")
    adopted = contents(app)
    (cli.folder / "crontab-of-this-home").write_text(CRONTAB)
    cli.write_schedule(SCHEDULE)
    assert away("cron", "install", "--yes").code == 0
    assert "is spooled" in away("send", "hint").err
    done = away("uninstall", str(app), "--yes")
    assert done.code == 75
    assert (cli.folder / "crontab-of-this-home").read_text() == CRONTAB
    spool = cli.data_dir / "spool" / "spool.db"
    assert f"kept in {spool}: 1 heartbeat for this deployment" in done.out
    assert "connection refused" in done.out.lower() and "type the same again" in done.out
    assert "keeps our functions" in done.out and contents(app) == adopted
    assert away("spool", "list", "--json").data["waiting"] == 1
    assert tokens.stored(cli.config_dir, cli.env["HEARTBEAT_URL"], []) is not None
    again = away("uninstall", str(app), "--yes", "--json")
    assert (again.code, again.data["outcome"]) == (75, "partly")


def test_a_token_that_may_only_send_leaves_with_its_host_and_says_what_the_rest_takes(host: Inside) -> None:
    cli = host.cli
    url = cli.env["HEARTBEAT_URL"]
    (cli.folder / "crontab-of-this-home").write_text(CRONTAB)
    cli.write_schedule(SCHEDULE)
    assert host("cron", "install", "--yes").code == 0
    before = host("dashboard", "--json").data["monitor"]
    admin = tokens.stored(cli.config_dir, url, [])
    made = host("token", "create", "box2").out.strip()
    host("token", "save", stdin=made)
    # what is more than this host's cannot be done
    refused = host("uninstall", "--empty", "--dry-run")
    assert "ending them takes an admin token, and ours may only send" in refused.out
    done = host("uninstall", "--yes")
    assert done.code == 0 and f"heartbeat token revoke {tokens.fingerprint(made)}" in done.out
    assert (cli.folder / "crontab-of-this-home").read_text() == CRONTAB
    assert tokens.stored(cli.config_dir, url, []) is None
    again = host("uninstall", "--yes")
    assert again.code == 0 and "that takes an admin token, and none is kept here" in again.out
    assert host("uninstall", "--yes", "--empty").code == 1
    assert admin is not None
    tokens.save(cli.config_dir, url, admin.text, "admin")
    assert "stoppedAt" not in before | host("dashboard", "--json").data["monitor"]


def test_a_token_that_has_ended_is_forgotten_and_what_still_waits_keeps_a_good_one(host: Inside) -> None:
    """The admin's host left first; or the other way round, and this one could not deliver all it had."""
    cli = host.cli
    url = cli.env["HEARTBEAT_URL"]
    made = [host("token", "create", name).out.strip() for name in ("box2", "box3")]
    host("token", "revoke", tokens.fingerprint(made[0]))
    tokens.save(cli.config_dir, url, made[0], "send")
    assert "is spooled" in host("send", "hint").err
    planned = host("uninstall", "--dry-run").out
    assert "it was revoked, or the deployment has been left" in planned and "kept in" in planned
    done = host("uninstall", "--yes")
    assert done.code == 0 and "it was revoked, or the deployment has been left" in done.out
    assert tokens.stored(cli.config_dir, url, []) is None
    # as long as another process is at it, what waits is not delivered yet
    tokens.save(cli.config_dir, url, made[1], "send")
    other = Spool(cli.data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heartbeat_cli.connect.TURN_WAITS_S", 0.1)
        assert other.alone()
        later = host("uninstall", "--yes", "--json")
        other.done()
    assert later.code == 75 and later.data["deployment"] == {"outcome": "later", "undelivered": 1}
    assert tokens.stored(cli.config_dir, url, []) == tokens.Token(made[1], "send")
    done = host("uninstall", "--yes")
    # set aside: nobody there knows of hint
    assert done.code == 0 and "1 heartbeat not delivered: kept in" in done.out
    assert tokens.stored(cli.config_dir, url, []) is None


def test_the_local_backend_alone_is_stopped_with_what_starts_it_and_keeps_its_data(
    local: Local, inside: Inside
) -> None:
    cli = local.cli
    (cli.folder / "crontab-of-this-home").write_text(CRONTAB)
    cli.write_schedule(SCHEDULE)
    url = inside("local", "up", "--port", "0", "--json").data["url"]
    assert inside("apply", "--yes").code == 0
    assert inside("local", "install", "--with", "cron", "--yes").code == 0
    assert inside("send", "hint").code == 0
    planned = inside("uninstall", "--dry-run").out
    assert (
        "the local backend is stopped; its data stays in" in planned and "cron starts it no more" in planned
    )
    assert "revoked" not in planned and local.instance.alive()
    done = inside("uninstall", "--yes")
    assert done.code == 0 and str(local.folder) in done.out, done
    assert not local.instance.alive() and (cli.folder / "crontab-of-this-home").read_text() == CRONTAB
    assert tokens.stored(cli.config_dir, url, []) is None and not tokens.path(cli.config_dir).exists()
    assert inside("uninstall", "--yes", "--json").data["outcome"] == "unchanged"
    # nothing was lost by it
    assert inside("local", "up").code == 0
    assert len(inside("dashboard", "--json").data["agents"]) == 3
    assert inside("agents", "show", "hint", "--json").data["heartbeats"]


def test_a_local_backend_that_has_an_apps_functions_is_left_first_and_then_stopped(
    inside: Inside, bundles: Bundles
) -> None:
    cli = inside.cli
    app, local = copied(cli.folder / "app"), Local(cli, bundles.adopted)
    files = contents(app)
    try:
        local.up()
        cli.write_schedule(SCHEDULE)
        assert inside("functions", "add", str(app), "--write", "--yes").code == 0
        assert inside("apply", "--yes").code == 0 and inside("send", "hint").code == 0
        done = inside("uninstall", str(app), "--empty", "--yes", "--json")
        assert done.code == 0 and done.data["deployment"]["outcome"] == "left", done
        assert done.data["local"]["outcome"] == "stopped" and not local.instance.alive()
        assert documents(local.folder / "db" / "data.sqlite3") == {} and contents(app) == files
        assert not (cli.folder / "crontab-of-this-home").exists()
    finally:
        local.clear()


def test_without_any_deployment_there_is_nothing_to_leave(inside: Inside) -> None:
    nothing = inside("uninstall", "--dry-run").out
    assert "there is no deployment to leave: no deployment address is set" in nothing
    assert "nothing of ours is left to take away" in nothing
    assert inside("uninstall", "--yes", "--url", "local").code == 2
    (inside.cli.folder / "crontab-refuses").touch()
    refused = inside("uninstall", "--yes")
    assert refused.code == 1 and "the crontab is left as it is: crontab refuses" in refused.out
    needed = inside("uninstall", "--empty", "--yes")
    assert needed.code == 2 and "no deployment address is set" in needed.err
    missing = inside("uninstall", "nowhere", "--yes")
    assert missing.code == 2 and "there is no folder nowhere" in missing.err


def test_a_deployment_that_never_gets_on_is_given_up(inside: Inside) -> None:
    answers = {
        "queries/getToken": lambda _: {"scope": "admin"},
        "queries/listTokens": lambda _: {"tokens": []},
        "mutations/leave": lambda _: {"done": False, "changed": 0},
    }
    with Deployment(answers) as deployment:
        inside.cli.env |= {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token"}
        done = inside("uninstall", "--yes")
    assert done.code == 75 and "does not get on with stop" in done.out
    # one whose functions are older than this program
    del answers["mutations/leave"]
    with Deployment(answers) as deployment:
        inside.cli.env["HEARTBEAT_URL"] = deployment.url
        done = inside("uninstall", "--yes")
    assert done.code == 1 and f"{deployment.url} has no function mutations/leave" in done.out
    assert "heartbeat functions update" in done.out and "make deploy" not in done.out


def test_the_names_of_tokens_that_end_are_shown_as_text(inside: Inside) -> None:
    listed = {"fingerprint": "0" * 12, "name": HOSTILE, "scope": "send", "createdAt": 1.0}
    answers = {
        "queries/getToken": lambda _: {"scope": "admin"},
        "queries/listTokens": lambda _: {"tokens": [listed] * 9},
    }
    with Deployment(answers) as deployment:
        inside.cli.env |= {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token"}
        done = inside("uninstall", "--dry-run")
    assert done.code == 0 and "tokens that are revoked: 9 (" in done.out and harmless(done.out)


def test_a_token_is_taken_out_alone_and_the_last_one_with_the_file(tmp_path: Path) -> None:
    url, other = f"http://127.0.0.1:{free_port()}", "https://other.example"
    for address in (url, other):
        file = tokens.save(tmp_path, address, f"token of {address}", "send")
    assert tokens.drop(tmp_path, url) and not tokens.drop(tmp_path, url)
    assert tokens.stored(tmp_path, other, []) == tokens.Token(f"token of {other}", "send")
    assert file.stat().st_mode & 0o777 == 0o600
    assert tokens.drop(tmp_path, other) and not file.exists()
