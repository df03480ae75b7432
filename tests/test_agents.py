"""One agent looked at closely, paused, resumed, retired."""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from conftest import Cli, Inside, Live
from deployment import Deployment, PlainError
from heartbeat_cli import agents, tokens
from heartbeat_cli.heartbeat import heartbeat_id
from heartbeat_cli.output import Table
from heartbeat_cli.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from terminal import on_a_terminal
from test_dashboard import CONTRACT, GRACE, NOW, row


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


def test_a_name_that_is_not_there_leaves_the_others_as_they_are(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    done = here("agents", "pause", "hint", "nosuch", "torv")
    assert (done.code, done.out) == (1, "") and "nosuch" in done.err
    listed = here("agents", "list", "--json").data["agents"]
    assert {row["control"] for row in listed} == {"active"}


def test_one_agent_is_late_since_it_was_due_and_not_since_it_was_well() -> None:
    found = {"row": row(dueAt=NOW - GRACE - HOUR_MS, healthSince=NOW - 3 * DAY_MS), "nextExpectedAt": []}
    facts = {str(name): str(value) for name, value in agents.facts(found, NOW, UTC).rows}
    assert facts["health"] == "late for 60 min, since 2026-11-23 07:00 UTC"


def test_an_agent_without_a_row_and_counts_of_before_are_told() -> None:
    facts = {}
    for age in (0, 3 * HOUR_MS):
        seen = row(openTasks=3, staleTasks=1, lastHeartbeatAt=NOW, countedAt=NOW - age, linked=False)
        found = {"row": seen, "nextExpectedAt": []}
        facts[age] = {str(name): str(value) for name, value in agents.facts(found, NOW, UTC).rows}
    assert facts[0]["tasks"] == "3/1 open/stale"
    assert facts[3 * HOUR_MS]["tasks"] == "3/1 open/stale, as of 3 h ago"
    assert facts[0]["not linked"].endswith("(agentName in convex/fleet.ts), then heartbeat apply")


def test_history_as_the_functions_answered_it_is_shown() -> None:
    for example in json.loads((CONTRACT / "getAgentHistory.json").read_text(encoding="utf-8")):
        if "returns" in example:
            past = example["returns"]["heartbeats"]
            assert len(agents.history_table(past, NOW, UTC).rows) == len(past)


RUNS: list[dict[str, Any]] = [
    {"runId": "c", "startedAt": NOW - 40 * MINUTE_MS, "open": True, "deadlineAt": NOW - 10 * MINUTE_MS},
    {"runId": "b", "startedAt": NOW - 5 * HOUR_MS, "open": False},
    {
        "runId": "a",
        "startedAt": NOW - 11 * HOUR_MS,
        "finishedAt": NOW - 10 * HOUR_MS,
        "durationMs": 12_345,
        "exitCode": 3,
        "status": "error",
        "error": "exit 3",
        "deliveredLateMs": 5 * HOUR_MS,
        "open": False,
    },
    {"runId": "z", "finishedAt": NOW - DAY_MS, "durationMs": 400, "exitCode": 0, "status": "ok"},
]


def test_a_run_is_told_by_how_long_it_took_and_how_it_ended() -> None:
    rows = [[str(cell) for cell in row] for row in agents.runs_table(RUNS, NOW, UTC).rows]
    assert rows == [
        ["2026-11-23 07:20 UTC", "40 min", "-", "overrunning", "-"],
        ["2026-11-23 03:00 UTC", "-", "-", "lost", "-"],
        ["2026-11-22 21:00 UTC", "12 s", "3", "error", "exit 3 · delivered 5 h late"],
        ["2026-11-22 08:00 UTC", "400 ms", "0", "ok", "-"],
    ]


def heartbeat_of(phase: str, at: int, **more: Any) -> dict[str, Any]:
    run = {"runId": more.pop("run"), "phase": phase, **more.pop("told", {})}
    return {"livenessAt": at, "status": "ok", **more, "run": run}


def test_runs_of_a_deployment_that_tells_none_are_those_of_its_history() -> None:
    history = [
        {"livenessAt": NOW, "status": "ok"},
        heartbeat_of("start", NOW - 1, run="open", host="box1"),
        heartbeat_of("finish", NOW - 2, run="whole", error="exit 3", told={"exitCode": 3, "durationMs": 5}),
        heartbeat_of("start", NOW - 7, run="whole", summary="begun"),
        heartbeat_of("start", NOW - 8, run="late", status="working"),
        heartbeat_of("finish", NOW - 9, run="late"),
    ]
    running = agents.runs_from(history, row(runningSince=NOW - 1))
    assert [(run["runId"], run["open"]) for run in running] == [
        ("open", True),
        ("whole", False),
        ("late", False),
    ]
    assert not agents.runs_from(history, row())[0]["open"], "nobody says so"
    whole = running[1]
    assert (whole["startedAt"], whole["finishedAt"], whole["exitCode"]) == (NOW - 7, NOW - 2, 3)
    assert (whole["error"], whole["durationMs"]) == ("exit 3", 5)
    assert (running[2]["startedAt"], running[2]["finishedAt"]) == (NOW - 8, NOW - 9)


def test_the_last_lines_of_output_are_those_of_the_newest_failure_then_of_the_newest_run() -> None:
    long = "".join(f"line {number}\n" for number in range(20))
    runs = [
        {"runId": "c", "startedAt": NOW, "exitCode": 0, "output": "all is well\n"},
        {
            "runId": "b",
            "startedAt": NOW - HOUR_MS,
            "exitCode": 3,
            "output": f"{long}\x1b[31mbroke\x1b[0m\n\n",
        },
        {"runId": "a", "startedAt": NOW - DAY_MS, "exitCode": 4, "output": "older"},
    ]
    first, second = [part for part in agents.outputs(runs, UTC) if isinstance(part, Table)]
    assert [str(line) for (line,) in first.rows] == [
        *(f"  line {number}" for number in range(11, 20)),
        "  broke",
    ]
    assert [str(line) for (line,) in second.rows] == ["  all is well"]
    titles = [part for part in agents.outputs(runs, UTC) if isinstance(part, str) and part]
    assert titles == [
        "the run of 2026-11-23 07:00 UTC (exit code 3) printed last:",
        "the run of 2026-11-23 08:00 UTC (exit code 0) printed last:",
    ]
    assert agents.outputs([{"runId": "a", "output": " \n"}], UTC) == []


def test_stale_tasks_come_first_and_closed_ones_not_at_all() -> None:
    tasks: list[dict[str, Any]] = [
        {"taskId": "open", "counted": "open", "updatedAt": NOW - HOUR_MS},
        {"taskId": "done", "counted": "no"},
        {"taskId": "stale", "counted": "stale", "updatedAt": NOW - 8 * DAY_MS},
        {"taskId": "staler", "counted": "stale", "updatedAt": NOW - 9 * DAY_MS},
    ]
    assert [task["taskId"] for task in agents.open_tasks(tasks)] == ["staler", "stale", "open"]


def test_a_task_is_shown_by_when_it_was_touched_and_by_its_update_where_functions_tell_no_more() -> None:
    said = {"status": "doing", "counted": "stale", "title": "t", "why": "w"}
    tasks: list[dict[str, Any]] = [
        {"taskId": "told", **said, "touchedAt": NOW - 8 * DAY_MS},
        {"taskId": "both", **said, "touchedAt": NOW - 10 * DAY_MS, "updatedAt": NOW},
        {"taskId": "before", **said, "updatedAt": NOW - 9 * DAY_MS},
    ]
    shown = agents.tasks_table(agents.open_tasks(tasks), NOW, ids=True).rows
    assert [(row[0], row[3]) for row in shown] == [
        ("both", "10 d ago"),
        ("before", "9 d ago"),
        ("told", "8 d ago"),
    ]


def expected(zone: str, here: tzinfo) -> Table | None:
    schedule = {"kind": "cron", "expression": "0 12 * * *", "timeZone": zone}
    return agents.expected_table(
        {"row": row(schedule=schedule), "nextExpectedAt": [NOW + 3 * HOUR_MS]}, NOW, here
    )


def test_expected_instants_are_told_in_the_agents_zone_and_here_where_these_differ() -> None:
    found = expected("Europe/Berlin", UTC)
    assert found is not None
    assert found.header == ("expected in Europe/Berlin", "here", "")
    assert found.rows == [("2026-11-23 12:00 CET", "2026-11-23 11:00 UTC", "in 3 h")]
    for zone, here in (("Etc/UTC", UTC), ("Europe/Berlin", ZoneInfo("Europe/Paris")), ("No/Such", UTC)):
        same = expected(zone, here)
        assert same is not None and same.header == ("expected", ""), zone
    assert agents.expected_table({"row": row(), "nextExpectedAt": []}, NOW, UTC) is None


def test_the_facts_begin_with_what_is_wrong() -> None:
    found = row(
        health="failing",
        status="working",
        reason="reported error",
        consecutiveFailures=3,
        failAfter=2,
        openRuns=[
            {"runId": "a", "startedAt": NOW - 3 * HOUR_MS, "deadlineAt": NOW - HOUR_MS},
            {"runId": "b", "startedAt": NOW - 5 * SECOND_MS, "deadlineAt": NOW + HOUR_MS},
        ],
        lastError={"message": "exit 3", "at": NOW - 5 * HOUR_MS},
        lastRun={"runId": "c", "finishedAt": NOW - 5 * HOUR_MS, "durationMs": 12_345, "exitCode": 3},
    )
    facts = [(str(name), str(value)) for name, value in agents.facts({"row": found}, NOW, UTC).rows]
    assert facts[:7] == [
        ("agent", "hint"),
        ("health", "failing (reported error) for 7 h, since 2026-11-23 01:00 UTC"),
        ("due", "in 4 h"),
        ("failures", "3 in a row; failing from 2 on"),
        (
            "running",
            "since 2026-11-23 05:00 UTC, for 3 h, overrunning for 60 min;"
            " since 2026-11-23 07:59 UTC, for 5 s",
        ),
        ("last error", "5 h ago, 2026-11-23 03:00 UTC: exit 3"),
        ("last run", "ended 2026-11-23 03:00 UTC, took 12 s, exit code 3"),
    ]


def send(live: Live, agent: str, phase: str, run: str, **said: Any) -> None:
    """A heartbeat as `heartbeat run` makes it, at the backend's instant."""
    at = int(live.clock.read_text())
    token = tokens.stored(live.cli.config_dir, live.url, [])
    told = {"runId": run, "phase": phase, **said.pop("told", {})}
    heartbeat = {"heartbeatId": heartbeat_id(at, os.urandom(10)), "agent": agent, "sentAt": at}
    heartbeat |= {"deliveredAt": at, "host": "box1", "run": told, **said}
    live.admin("mutations/recordHeartbeat", {"token": token and token.text, "heartbeat": heartbeat})


SHOWN = {"row", "nextExpectedAt", "flips", "heartbeats", "runs", "tasks"}


def test_an_agent_that_fails_is_told_whole_and_fits_on_a_terminal(live: Live) -> None:
    here = live.inside
    live.move_clock(-4 * HOUR_MS)
    here("apply", "--agents-only", "--yes")
    for title in ("clean up the shed", "write it down"):
        here("tasks", "add", "hint", title)
    output_of = "Traceback (most recent call last):\n" + "ValueError: " + "the queue did not answer " * 20
    for _ in range(3):
        run = str(uuid.uuid4())
        at = int(live.clock.read_text())
        send(live, "hint", "start", run, status="working", told={"startedAt": at})
        live.move_clock(12_000)
        told = {"startedAt": at, "durationMs": 12_000, "exitCode": 3, "output": output_of}
        send(live, "hint", "finish", run, status="error", error="exit 3", told=told)
        live.move_clock(HOUR_MS)
    send(live, "hint", "start", str(uuid.uuid4()), status="working")

    data = here("agents", "show", "hint", "--json").data
    assert set(data) == SHOWN
    assert [run["open"] for run in data["runs"]] == [True, False, False, False]
    assert [run.get("exitCode") for run in data["runs"]] == [None, 3, 3, 3]
    assert (len(data["heartbeats"]), len(data["tasks"]), data["row"]["consecutiveFailures"]) == (5, 2, 3)
    few = here("agents", "show", "hint", "--json", "--limit", "1").data
    assert {name: len(few[name]) for name in SHOWN - {"row"}} == {
        **dict.fromkeys(("flips", "heartbeats", "runs", "tasks"), 1),
        "nextExpectedAt": 5,
    }
    assert "1 more: heartbeat tasks list hint" in here("agents", "show", "hint", "--limit", "1").out
    assert here("agents", "show", "hint", "--limit", "0").code == 2

    piped = here("agents", "show", "hint").out
    assert "failures    3 in a row\n" in piped
    assert "\n  ValueError: the queue" in piped
    assert "\x1b" not in piped
    for columns in (60, 80):
        plain = {"NO_COLOR": "1", "HEARTBEAT_TRANSPORT": "http"}
        shown = on_a_terminal(live.cli, "agents", "show", "hint", columns=columns, env=plain)
        assert "clean up the shed" in shown
        fleet = on_a_terminal(live.cli, "dashboard", columns=columns, env=plain)
        assert "running for" in " ".join(fleet.split())
        assert ("12 s, exit 3" in fleet) == (columns > 80)
        table = fleet.partition("3 agents: ")[0]
        assert max(map(len, (shown + table).splitlines())) <= columns, columns


def test_what_a_deployment_cannot_tell_does_not_hide_what_it_told(user: Cli, inside: Inside) -> None:
    def fails(_: Any) -> Any:
        raise PlainError("the disk is full")

    due = time.time_ns() // 1_000_000 + DAY_MS  # by this host's own clock, which shows it
    functions = {
        "queries/getAgent": lambda _: {"row": row(dueAt=due), "nextExpectedAt": [], "flips": []},
        "queries/getAgentHistory": fails,
        "queries/listAgentTasks": fails,
    }
    with Deployment(functions) as deployment:
        ran = inside("agents", "show", "hint", env={"HEARTBEAT_URL": deployment.url})
    assert ran.code == 0
    assert "health     ok" in ran.out
    for what in ("heartbeats", "runs", "tasks"):
        assert f"the {what} could not be read: " in ran.err
