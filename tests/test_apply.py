"""Registering the schedule: planned, shown, asked, done; on a real backend."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from conftest import TABLE, Cli, Inside, Live
from heartbeat_cli import apply
from heartbeat_cli.schedule import Cron, Interval, Row
from heartbeat_cli.times import HOUR_MS
from terminal import on_a_terminal


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
    assert f"refuses {cli.home / 'cron-schedule.md'}: 2 problems" in done.err
    assert re.search(r"^  line 6: torv, schedule: ", done.err, re.M)
    assert re.search(r"^  line 7: rams, timeZone: ", done.err, re.M)
    error = json.loads(here("apply", "--yes", "--json").out)["error"]
    assert (error["code"], [problem["line"] for problem in error["problems"]]) == ("schedule", [6, 7])
    assert here("dashboard", "--json").data["agents"] == []


def test_a_table_that_cannot_be_read_reaches_no_backend(cli: Cli, inside: Inside) -> None:
    cli.write_schedule(TABLE + "| hint | nonsense | | | |\n| a b | every 1h | | | |\n")
    done = inside("apply", "--url", "http://127.0.0.1:9")
    assert done.code == 2
    assert f"{cli.home / 'cron-schedule.md'}: 2 problems" in done.err
    assert "  line 8: schedule 'nonsense'" in done.err and "  line 9: agent 'a b'" in done.err


def test_a_fleet_larger_than_one_batch_is_applied_whole(live: Live) -> None:
    rows = "".join(f"| agent-{number} | every 6h |\n" for number in range(450))
    live.cli.write_schedule("| agent | schedule |\n|---|---|\n" + rows)
    assert "applied: 450 agents" in live.inside("apply", "--yes").out
    assert live.inside("apply").out == "  = 450 unchanged\nnothing to change\n"
    found = live.inside("dashboard", "--json").data
    assert (found["totals"]["agents"], found["totals"]["new"]) == (450, 450)


def change(agent: str, change: str, **more: Any) -> dict[str, Any]:
    return {"agent": agent, "change": change, "fields": [], "linked": True, **more}


NOW = 1_795_420_800_000  # 2026-11-23T08:00:00Z
ROWS = [Row(3, "hint", Cron("0 */6 * * *", "UTC")), Row(4, "kami", Interval(HOUR_MS))]


def test_who_is_paused_or_retired_is_told_with_how_to_watch_again_also_where_nothing_changes() -> None:
    outcome = apply.Outcome(
        [change("hint", "unchanged", control="paused"), change("kami", "changed", fields=["misses"])], []
    )
    assert apply.lines(outcome, ROWS, NOW) == [
        "  ~ kami  every 1 h  (misses)",
        "  = 1 unchanged",
        "  ! hint is paused, not watched: heartbeat agents resume hint",
    ]


def test_a_retired_agent_of_the_schedule_is_told_by_apply(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    here("agents", "retire", "torv")
    assert "  ! torv is retired, not watched: heartbeat agents resume torv" in here("apply").out
    here("agents", "resume", "torv")
    assert "!" not in here("apply").out


def test_a_source_is_this_host_and_home_within_the_limit_of_the_deployment() -> None:
    assert apply.source("box1", Path("/srv/fleet")) == "box1:/srv/fleet"
    assert len(apply.source("box1", Path("/" + "x" * 2000))) == apply.SOURCE_LIMIT
