"""The fleet on a real backend: dashboard, tasks, tokens; read whole, and remembered for its absence."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Cli, Inside, Live
from deployment import Deployment
from heartbeat_cli import fleet, tokens
from heartbeat_cli.fleet import Fleet
from heartbeat_cli.times import HOUR_MS
from terminal import on_a_terminal
from test_dashboard import NOW, row


def test_the_dashboard_shows_the_worst_first_and_check_exits_3(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    here("send", "hint", "--summary", "3 files drifted")
    assert here("dashboard", "--check").code == 0
    here("send", "torv", "--error", "disk full")
    done = here("dashboard", "--check")
    assert done.code == 3
    header, first, second, third, totals, address = done.out.splitlines()
    assert header.split() == ["agent", "health", "last", "due", "tasks", "said"]
    assert first.startswith("torv   failing") and first.endswith("disk full")
    assert second.startswith("rams   new") and second.endswith("audit")
    assert third.startswith("hint   ok") and third.endswith("working: 3 files drifted")
    assert totals.startswith("3 agents: 1 failing, 1 new, 1 ok · ")
    assert (address, done.err) == (live.url, "")
    assert [row["agent"] for row in here("dashboard", "--json", "--health", "ok,failing").data["agents"]] == [
        "torv",
        "hint",
    ]
    assert here("dashboard", "--health", "unwell").code == 2


def test_silence_becomes_degraded_and_a_heartbeat_ends_it(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    here("send", "hint", "--summary", "3 files drifted")
    live.let_pass(19 * HOUR_MS)
    done = here("dashboard", "--check")
    assert done.code == 3
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    assert re.search(r"^hint   degraded \d+ .* 2\+ missed +0/0 +working: 3 files drifted$", rows["hint"])
    assert re.search(r"^rams   degraded \d+ .* never  +[23] missed +- +never reported; audit$", rows["rams"])
    back = here("send", "hint")
    assert back.code == 0 and back.out.startswith("hint ok (working) · was degraded until now · ")
    assert "hour" not in back.err and "clock is 19 h behind" in back.err


def test_on_a_terminal_it_is_coloured_and_narrow_and_no_color_wins(live: Live) -> None:
    cli, here = live.cli, live.inside
    here("apply", "--yes")
    here("send", "hint", "--summary", "\x1b[2J[red]word [/red]" * 20)
    coloured = on_a_terminal(cli, "dashboard", env={})
    plain = on_a_terminal(cli, "dashboard", env={"NO_COLOR": "1"})
    assert "\x1b[" in coloured and "\x1b" not in plain
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert r"working: \x1b[2J[red]word" in plain
    assert "\x1b[2J" not in coloured


def test_when_the_backend_is_away_the_last_known_table_is_shown_with_its_age(live: Live) -> None:
    cli, here = live.cli, live.inside
    here("apply", "--yes")
    assert here("dashboard").code == 0
    live.stop()
    done = here("dashboard", "--check")
    assert done.code == 75
    assert done.out.startswith("as of ") and "hint   new" in done.out
    assert done.err.startswith("heartbeat: ") and live.url in done.err
    error = json.loads(here("dashboard", "--json").out)
    assert (error["ok"], error["deployment"], error["error"]["exitCode"]) == (False, live.url, 75)
    known = error["error"]["lastKnown"]
    assert set(known) == {"asOf", "agents", "totals"}
    assert (len(known["agents"]), known["totals"]["new"]) == (3, 3)
    assert known["asOf"] <= time.time() * 1000
    never_seen = json.loads(here("dashboard", "--json", "--url", "http://127.0.0.1:9").out)
    assert "lastKnown" not in never_seen["error"]
    [kept] = (cli.data_dir / "last-known").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_tasks_that_are_an_apps_own_are_added_and_finished_there(live: Live) -> None:
    with Deployment({}) as peer:
        for change in (("add", "hint", "title"), ("done", "k1")):
            done = live.inside("tasks", *change, "--url", peer.url, env={"HEARTBEAT_TOKEN": "t"})
            assert done.code == 75 and "are added and finished there" in done.err


def test_tasks_are_listed_with_whether_they_counted_and_why(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    assert here("tasks", "list", "hint").out == "hint: 0 open, 0 stale, 0 in all\n"
    task = here("tasks", "add", "hint", "sort \x1b[31m the mail", "--json").data["taskId"]
    here("tasks", "add", "hint", "second")
    found = here("tasks", "list", "hint").out
    assert r"sort \x1b[31m the mail" in found and "hint: 2 open, 0 stale, 2 in all" in found
    assert here("tasks", "done", task).out == f"task {task} is done\n"
    counted = {
        entry["title"]: entry["counted"] for entry in here("tasks", "list", "hint", "--json").data["tasks"]
    }
    assert counted["second"] == "open" and sorted(counted.values()) == ["no", "open"]
    assert here("tasks", "done", "nonsense").code == 1


def test_a_send_token_is_made_kept_used_and_revoked(live: Live, tmp_path: Path) -> None:
    here = live.inside
    here("apply", "--yes")
    made = here("token", "create", "cron of box2", "--agents", "hint", "--host-name", "box2", "--json").data
    assert (made["scope"], made["name"]) == ("send", "cron of box2")
    host = Cli(tmp_path / "other", {"HEARTBEAT_URL": live.url, "HEARTBEAT_DEADLINE": "30"})
    host.folder.mkdir()
    other = replace(here, cli=host)
    assert other("send", "hint").code == 2, "no token yet"
    saved = other("token", "save", "--scope", "send", stdin=made["token"] + "\n")
    assert saved.code == 0 and made["token"] not in saved.out + saved.err
    assert other("send", "hint").code == 0
    assert other("send", "torv", "--strict").code == 75
    assert other("dashboard").code == 1
    listed = here("token", "list").out
    assert made["fingerprint"] in listed and "cron of box2 · box2" in listed and made["token"] not in listed
    assert here("token", "revoke", made["fingerprint"]).code == 0
    assert other("send", "hint", "--json").data["reason"]["code"] == "unauthorized"
    assert "revoked" in here("token", "list").out


def test_a_shown_token_is_all_of_stdout_and_a_saved_one_is_not_shown(live: Live) -> None:
    cli, here = live.cli, live.inside
    shown = here("token", "create", "reader", "--scope", "read")
    assert len(shown.out) == 44 and shown.out.strip() not in shown.err
    refused = here("token", "create", "reader", "--scope", "read", "--save")
    assert refused.code == 2 and "keeps an admin token" in refused.err
    saved = here("token", "create", "next admin", "--scope", "admin", "--save")
    kept = tokens.stored(cli.config_dir, live.url, [])
    assert saved.code == 0 and kept is not None and kept.text not in saved.out + saved.err
    assert here("token", "list").code == 0
    assert here("token", "create", "x", "--scope", "root").code == 2


def test_a_deployments_first_token_is_kept_and_its_hash_printed(cli: Cli, inside: Inside) -> None:
    cli.env["HEARTBEAT_URL"] = "https://happy-animal-123.convex.cloud"
    refused = inside("token", "create", "cron", "--scope", "send")
    assert refused.code == 2 and "heartbeat connect https://happy-animal-123.convex.cloud\n" in refused.err
    done = inside("token", "create", "first", "--scope", "admin")
    kept = tokens.stored(cli.config_dir, "https://happy-animal-123.convex.cloud", [])
    assert done.code == 0 and kept is not None and kept.scope == "admin"
    assert (
        done.out.startswith("npx convex run heartbeat/setup:storeFirstToken '")
        and tokens.token_hash(kept.text) in done.out
    )
    assert kept.text not in done.out + done.err


def test_a_token_that_is_not_valid_is_refused_without_being_shown(live: Live) -> None:
    done = live.inside("dashboard", env={"HEARTBEAT_TOKEN": "wrong-token"})
    assert done.code == 1 and "wrong-token" not in done.err + done.out
    assert live.url in done.err
    assert f"HEARTBEAT_TOKEN (fingerprint {tokens.fingerprint('wrong-token')})" in done.err
    assert "set HEARTBEAT_TOKEN to another" in done.err


def test_a_kept_token_that_does_not_do_is_named_with_its_file_and_scope(live: Live, cli: Cli) -> None:
    file = tokens.save(cli.config_dir, live.url, "wrong-token", "send")
    error = json.loads(live.inside("dashboard", "--json").out)["error"]
    assert error["code"] == "unauthorized"
    assert f"{file} (fingerprint {tokens.fingerprint('wrong-token')}, scope send)" in error["hint"]
    assert "heartbeat token save" in error["hint"]


@pytest.mark.parametrize("transport", ["ws", "http"])
def test_both_transports_lead_to_the_same_answers(live: Live, transport: str) -> None:
    cli, here = live.cli, live.inside
    cli.env["HEARTBEAT_TRANSPORT"] = transport
    assert here("apply", "--yes").code == 0
    assert here("send", "hint").code == 0
    assert here("send", "nobody").code == 1
    data = here("agents", "show", "hint", "--json").data
    assert data["heartbeats"][0]["rawStatus"] == "working" and isinstance(data["row"]["openTasks"], int)


class Pages:
    """A deployment of 2,500 agents, in pages of ten unless more are asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def query(self, path: str, body_name: str, body: Any) -> dict[str, Any]:
        if path == "queries/getMonitorStatus":
            return {"contractVersion": 1}
        self.asked += 1
        start = int(body.get("cursor") or 0)
        rest = min(body.get("limit", 10), 1000, 2500 - start)
        return {
            "agents": [row(f"a{number}") for number in range(start, start + rest)],
            "isDone": start + rest == 2500,
            "continueCursor": str(start + rest),
        }


def test_a_fleet_beyond_one_page_is_read_whole_in_as_few_calls_as_can_be() -> None:
    deployment = Pages()
    found = fleet.fetch(deployment, lambda: NOW)
    assert [agent["agent"] for agent in found.agents] == [f"a{number}" for number in range(2500)]
    assert deployment.asked == 3


def test_the_last_known_fleet_is_kept_for_each_deployment_and_to_its_owner(tmp_path: Path) -> None:
    fleet.keep(Fleet([row("here")], {"sweepRanAt": NOW}, NOW), tmp_path, "http://a")
    fleet.keep(Fleet([row("there")], {}, NOW), tmp_path, "http://b")
    known = fleet.last_known(tmp_path, "http://a")
    assert known is not None
    assert (known.agents[0]["agent"], known.as_of, known.monitor) == ("here", NOW, {"sweepRanAt": NOW})
    assert fleet.last_known(tmp_path, "http://c") is None
    files = list((tmp_path / "last-known").iterdir())
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    for file in files:
        file.write_text("{ torn")
    assert fleet.last_known(tmp_path, "http://a") is None


def test_a_disk_that_refuses_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    fleet.keep(Fleet([], {}, NOW), tmp_path / "data", "http://a")
    assert fleet.last_known(tmp_path / "data", "http://a") is None
