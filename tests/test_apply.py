"""Registering the schedule: planned, shown, asked, done; on a real backend."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import TABLE, Cli, Inside, Live
from deployment import Deployment
from heartbeat_cli import apply
from heartbeat_cli.schedule import Cron, Interval, Row
from heartbeat_cli.times import HOUR_MS
from terminal import on_a_terminal


def test_apply_shows_asks_does_and_then_has_nothing_to_do(live: Live) -> None:
    cli, here = live.cli, live.inside
    cli.env["HEARTBEAT_TRANSPORT"] = "http"  # which the crontab lines repeat, whoever writes them
    refused = here("apply")
    assert refused.code == 2 and "nobody can be asked here" in refused.err and "--yes" in refused.err
    assert "  + hint  0 */6 * * * UTC  first expected" in refused.out
    assert re.search(r"^the crontab of .*:\n  \+ # heartbeat: begin ", refused.out, re.M)
    planned = here("apply", "--dry-run", "--json")
    assert planned.data["outcome"] == "planned" and len(planned.data["changes"]) == 3
    assert planned.data["crontab"]["changed"]
    assert here("dashboard", "--json").data["agents"] == []
    declined = on_a_terminal(cli, "apply", typed="n\n", env={})
    assert "Apply? [y/N]" in declined and "not confirmed" in declined
    assert here("dashboard", "--json").data["agents"] == [] and not crontab_of(cli).exists()
    applied = on_a_terminal(cli, "apply", typed="y\n", env={})
    assert "applied: 3 agents" in applied and "the crontab is written" in applied
    assert crontab_of(cli).read_text() == here("cron", "print").out
    again = here("apply")
    assert (again.code, again.out) == (0, "  = 3 unchanged\nnothing to change\n")
    assert again.err == f"{live.url}\n"


def crontab_of(cli: Cli) -> Path:
    return cli.folder / "crontab-of-this-home"


def test_each_half_is_done_alone_as_well(live: Live) -> None:
    cli, here = live.cli, live.inside
    done = here("apply", "--agents-only", "--yes")
    assert done.out.endswith("applied: 3 agents registered or changed\n") and not crontab_of(cli).exists()
    assert "crontab" not in here("apply", "--agents-only", "--json").data
    # the other half is still to be done, and does not register anybody again
    half = here("apply", "--yes", "--json").data
    assert (half["outcome"], half["crontab"]["changed"]) == ("applied", True)
    assert [change["change"] for change in half["changes"]] == ["unchanged"] * 3
    assert here("cron", "remove", "--yes").code == 0
    assert len(here("dashboard", "--json").data["agents"]) == 3


def test_a_line_that_runs_the_command_already_is_shown_to_be_replaced(live: Live) -> None:
    cli, here = live.cli, live.inside
    cli.write_schedule("| agent | schedule | command |\n|---|---|---|\n| torv | 15 8 * * * | /opt/torv |\n")
    crontab_of(cli).write_text("20 8 * * * /opt/torv\n")
    shown = here("apply").out
    assert "  - 20 8 * * * /opt/torv\n" in shown and "  + 15 8 * * * set -- /opt/torv; if " in shown
    here("apply", "--yes")
    plain = [line for line in crontab_of(cli).read_text().splitlines() if line.endswith("/opt/torv")]
    assert plain == [f"# heartbeat: wrapped torv {cli.home}: 20 8 * * * /opt/torv"]


def test_rows_of_other_hosts_concern_neither_half_and_have_not_left_the_schedule(live: Live) -> None:
    cli, here = live.cli, live.inside
    table = "| agent | schedule | host |\n|---|---|---|\n| hint | every 6h | |\n| torv | every 7m | {} |\n"
    cli.write_schedule(table.format("box2"))
    done = here("apply", "--yes", env={"HEARTBEAT_HOST": "box1"})
    assert done.code == 0 and "  . 1 row concerns other hosts only" in done.out
    assert [row["agent"] for row in here("dashboard", "--json").data["agents"]] == ["hint"]
    assert "torv" not in crontab_of(cli).read_text()
    cli.write_schedule(table.format(""))
    here("apply", "--agents-only", "--yes", env={"HEARTBEAT_HOST": "box1"})
    cli.write_schedule(table.format("box2"))
    assert here("apply", "--dry-run", "--json", env={"HEARTBEAT_HOST": "box1"}).data["unlisted"] == []
    here("apply", "--agents-only", "--yes", env={"HEARTBEAT_HOST": "box2"})
    refused = here("apply", env={"HEARTBEAT_HOST": "box2"})
    assert refused.code == 2 and "does not divide a day" in refused.err


def test_no_agent_is_registered_where_the_crontab_cannot_be_had(live: Live) -> None:
    cli, here = live.cli, live.inside
    (cli.folder / "crontab-refuses").touch()
    done = here("apply", "--yes")
    assert done.code == 1 and "not allowed to use this program" in done.err
    assert "heartbeat apply --agents-only" in done.err
    assert here("dashboard", "--json").data["agents"] == []
    assert here("apply", "--agents-only", "--yes").code == 0


def test_what_was_registered_is_told_also_where_the_crontab_is_refused_afterwards(live: Live) -> None:
    cli, here = live.cli, live.inside
    crontab_of(cli).write_text("# a\n")
    (cli.data_dir / "crontab-backups").parent.mkdir(parents=True, exist_ok=True)
    (cli.data_dir / "crontab-backups").write_text("no folder")
    done = here("apply", "--yes")
    assert done.code == 1 and "applied: 3 agents" in done.out and "cannot be kept" in done.err
    assert crontab_of(cli).read_text() == "# a\n"


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
    refused = here("apply", "--yes")
    assert refused.code == 2 and f"the crontab cannot keep {cli.home / 'cron-schedule.md'}: 2" in refused.err
    done = here("apply", "--agents-only", "--yes")
    assert (done.code, done.out) == (2, "")
    assert f"refuses {cli.home / 'cron-schedule.md'}: 2 problems" in done.err
    assert re.search(r"^  line 6: torv, schedule: ", done.err, re.M)
    assert re.search(r"^  line 7: rams, timeZone: ", done.err, re.M)
    error = json.loads(here("apply", "--agents-only", "--yes", "--json").out)["error"]
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


@pytest.mark.parametrize(("version", "taken"), [(1, False), (2, True)])
def test_what_older_functions_do_not_know_is_left_out_and_told(
    cli: Cli, inside: Inside, version: int, taken: bool
) -> None:
    cli.write_schedule("| agent | schedule | fail after |\n|---|---|---|\n| hint | every 6h | 3 |\n")
    asked: list[Any] = []

    def planned(args: Any) -> Any:
        asked.append(args["schedule"]["agents"][0])
        return {"outcome": "planned", "changes": [change("hint", "unchanged")], "unlisted": []}

    functions = {
        "mutations/applySchedule": planned,
        "queries/getMonitorStatus": lambda args: {"contractVersion": version},
    }
    with Deployment(functions) as deployment:
        env = {"HEARTBEAT_TOKEN": "t", "HEARTBEAT_URL": deployment.url}
        done = inside("apply", "--agents-only", "--dry-run", env=env)
    assert done.code == 0, done
    assert asked[0].get("failAfter") == (3 if taken else None)
    assert ("do not know the column 'fail after' yet" in done.err) != taken


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


def test_who_is_not_linked_is_told_with_what_to_do_also_where_nothing_changes() -> None:
    outcome = apply.Outcome(
        [change("hint", "unchanged", linked=False), change("kami", "changed", fields=["link"])], []
    )
    assert apply.lines(outcome, ROWS, NOW) == [
        "  ~ kami  every 1 h  (link)",
        "  = 1 unchanged",
        "  ! not linked: hint: no row of the agents table says its name; watched all the same;",
        "    let one say it (agentName in convex/fleet.ts), then heartbeat apply",
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
