"""From the schedule to the dashboard on a real backend: apply, agents, tasks, tokens, and its absence."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from conftest import HEARTBEAT, TABLE, Cli, Inside, Live
from heartbeat_cli import tokens
from heartbeat_cli.times import HOUR_MS


def on_a_terminal(cli: Cli, *arguments: str, typed: str = "", columns: int = 80, env: dict[str, str]) -> str:
    """What the command shows on a terminal of so many columns, where `typed` is typed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [HEARTBEAT, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=cli.environment({"TERM": "xterm-256color", **env}),
        cwd=cli.home,
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    try:
        while data := os.read(ours, 65_536):
            shown += data
    except OSError:  # how a terminal says that nobody has it open any more
        pass
    os.close(ours)
    process.wait(timeout=60)
    return shown.decode()


def test_apply_shows_asks_does_and_then_has_nothing_to_do(live: Live) -> None:
    cli = live.cli
    refused = cli("apply")
    assert refused.code == 2 and "nobody can be asked here" in refused.err and "--yes" in refused.err
    assert "  + hint  0 */6 * * * UTC  first expected" in refused.out
    planned = cli("apply", "--dry-run", "--json")
    assert planned.data["outcome"] == "planned" and len(planned.data["changes"]) == 3
    assert cli("dashboard", "--json").data["agents"] == []
    declined = on_a_terminal(cli, "apply", typed="n\n", env={})
    assert "Apply? [y/N]" in declined and "not confirmed" in declined
    assert cli("dashboard", "--json").data["agents"] == []
    assert "applied: 3 agents" in on_a_terminal(cli, "apply", typed="y\n", env={})
    again = cli("apply")
    assert (again.code, again.out) == (0, "  = 3 unchanged\nnothing to change\n")
    assert again.err == f"{live.url}\n"


def test_a_changed_and_a_removed_row_are_shown_and_nobody_is_retired_unasked(live: Live) -> None:
    cli, here = live.cli, live.inside
    here("apply", "--yes")
    cli.write_schedule("\n".join(TABLE.replace("0 */6", "5 */6").splitlines()[:-1]) + "\n")
    done = here("apply", "--yes")
    assert "  ~ hint  5 */6 * * * UTC  (schedule)" in done.out and "  = 1 unchanged" in done.out
    assert "heartbeat agents retire rams" in done.out
    assert len(here("dashboard", "--json").data["agents"]) == 3
    assert here("agents", "retire", "rams").out == "rams is now retired\n"
    assert [row["agent"] for row in here("dashboard", "--json").data["agents"]] == ["hint", "torv"]


def test_what_the_backend_refuses_is_told_with_its_line_and_nothing_is_written(live: Live) -> None:
    cli, here = live.cli, live.inside
    cli.write_schedule(
        TABLE.replace("15 8", "99 8").replace("every 6h      |           |", "0 1 * * * | Mars/Base |")
    )
    done = here("apply", "--yes")
    assert (done.code, done.out) == (2, "")
    assert "refuses the schedule, 2 problems" in done.err
    assert re.search(r"^  line 6: torv, schedule: ", done.err, re.M)
    assert re.search(r"^  line 7: rams, timeZone: ", done.err, re.M)
    error = json.loads(here("apply", "--yes", "--json").out)["error"]
    assert (error["code"], [problem["line"] for problem in error["problems"]]) == ("schedule", [6, 7])
    assert here("dashboard", "--json").data["agents"] == []


def test_a_table_that_cannot_be_read_reaches_no_backend(cli: Cli, inside: Inside) -> None:
    cli.write_schedule(TABLE + "| hint | nonsense | | | |\n| a b | every 1h | | | |\n")
    done = inside("apply", "--url", "http://127.0.0.1:9")
    assert done.code == 2
    assert "  line 8: schedule 'nonsense'" in done.err and "  line 9: agent 'a b'" in done.err


def test_a_fleet_larger_than_one_batch_is_applied_whole(live: Live) -> None:
    rows = "".join(f"| agent-{number} | every 6h |\n" for number in range(450))
    live.cli.write_schedule("| agent | schedule |\n|---|---|\n" + rows)
    assert "applied: 450 agents" in live.inside("apply", "--yes").out
    assert live.inside("apply").out == "  = 450 unchanged\nnothing to change\n"
    found = live.inside("dashboard", "--json").data
    assert (found["totals"]["agents"], found["totals"]["new"]) == (450, 450)


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
    cli = live.cli
    cli("apply", "--yes")
    cli("send", "hint", "--summary", "\x1b[2J[red]word [/red]" * 20)
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
    [kept] = (cli.data_dir / "last-known").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_one_agent_is_looked_at_paused_and_resumed(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    here("send", "hint", "--error", "disk full")
    live.move_clock(1000)
    here("send", "hint", "--summary", "better")
    shown = here("agents", "show", "hint")
    assert shown.code == 0
    for words in (
        "drift detection scan",
        "0 */6 * * * UTC, grace",
        "last error",
        "failing",
        "better",
        "recovered",
    ):
        assert words in shown.out
    data = here("agents", "show", "hint", "--json").data
    assert (len(data["nextExpectedAt"]), len(data["heartbeats"]), len(data["flips"])) == (5, 2, 2)
    assert here("agents", "pause", "hint", "torv").out == "hint is now paused\ntorv is now paused\n"
    assert here("agents", "pause", "hint").out == "hint was already paused\n"
    assert "paused" in here("send", "hint").out
    assert "hint   paused" in here("dashboard").out
    assert here("agents", "resume", "hint").out == "hint is now active\n"
    listed = here("agents", "list").out.splitlines()
    assert listed[0].split() == ["agent", "control", "health", "schedule", "grace", "misses", "purpose"]
    assert len(listed) == 4
    assert here("agents", "show", "nobody").code == 1


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
    other = Cli(tmp_path / "other", {"HEARTBEAT_URL": live.url, "HEARTBEAT_DEADLINE": "30"})
    other.folder.mkdir()
    assert other("send", "hint").code == 2, "no token yet"
    saved = other("token", "save", "--scope", "send", stdin=made["token"] + "\n")
    assert saved.code == 0 and made["token"] not in saved.out + saved.err
    assert other("send", "hint").code == 0
    assert other("send", "torv").code == 1
    assert other("dashboard").code == 1
    listed = here("token", "list").out
    assert made["fingerprint"] in listed and "cron of box2 · box2" in listed and made["token"] not in listed
    assert here("token", "revoke", made["fingerprint"]).code == 0
    assert json.loads(other("send", "hint", "--json").out)["error"]["code"] == "unauthorized"
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
    assert refused.code == 2 and "heartbeat token create NAME --scope admin" in refused.err
    done = inside("token", "create", "first", "--scope", "admin")
    kept = tokens.stored(cli.config_dir, "https://happy-animal-123.convex.cloud", [])
    assert done.code == 0 and kept is not None and kept.scope == "admin"
    assert (
        done.out.startswith("npx convex run setup:storeFirstToken '")
        and tokens.token_hash(kept.text) in done.out
    )
    assert kept.text not in done.out + done.err


def test_a_token_that_is_not_valid_is_refused_without_being_shown(live: Live) -> None:
    done = live.inside("dashboard", env={"HEARTBEAT_TOKEN": "wrong-token"})
    assert done.code == 1 and "wrong-token" not in done.err + done.out
    assert live.url in done.err


@pytest.mark.parametrize("transport", ["ws", "http"])
def test_both_transports_lead_to_the_same_answers(live: Live, transport: str) -> None:
    cli, here = live.cli, live.inside
    cli.env["HEARTBEAT_TRANSPORT"] = transport
    assert here("apply", "--yes").code == 0
    assert here("send", "hint").code == 0
    assert here("send", "nobody").code == 1
    data = here("agents", "show", "hint", "--json").data
    assert data["heartbeats"][0]["rawStatus"] == "working" and isinstance(data["row"]["openTasks"], int)
