"""The dashboard's judgement: what is shown of a row at an instant, and in which order."""

from __future__ import annotations

import io
import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from heartbeat_cli import agents, dashboard, send, send_told
from heartbeat_cli.fleet import Fleet, Row
from heartbeat_cli.heartbeat import Heartbeat
from heartbeat_cli.output import Page, look_of
from heartbeat_cli.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

NOW = 1_795_420_800_000  # 2026-11-23T08:00:00Z
GRACE = 30 * MINUTE_MS


def row(agent: str = "hint", **more: Any) -> dict[str, Any]:
    return {
        "agent": agent,
        "linked": True,
        "schedule": {"kind": "cron", "expression": "0 */6 * * *", "timeZone": "UTC"},
        "scheduleText": "0 */6 * * * UTC",
        "graceMs": GRACE,
        "misses": 2,
        "control": "active",
        "controlSince": NOW - 30 * DAY_MS,
        "health": "ok",
        "degraded": False,
        "healthSince": NOW - 7 * HOUR_MS,
        "status": "ok",
        "statusSince": NOW - 2 * HOUR_MS,
        "lastHeartbeatAt": NOW - 2 * HOUR_MS,
        "lastReceivedAt": NOW - 2 * HOUR_MS,
        "runsSinceActed": 0,
        "openTasks": 0,
        "staleTasks": 0,
        "hosts": [{"host": "box1", "at": NOW}],
        "dueAt": NOW + 4 * HOUR_MS,
        "degradeAt": NOW + 10 * HOUR_MS + GRACE,
        **more,
    }


def interval(**more: Any) -> dict[str, Any]:
    return row(schedule={"kind": "interval", "everyMs": HOUR_MS}, **more)


def degraded(agent: str = "hint", **more: Any) -> dict[str, Any]:
    return row(agent, health="degraded", degraded=True, dueAt=NOW - 13 * HOUR_MS, **more)


RUNNING = [  # oldest first
    {"runId": "a", "startedAt": NOW - 50 * MINUTE_MS, "deadlineAt": NOW + HOUR_MS},
    {"runId": "b", "startedAt": NOW - 5 * MINUTE_MS, "deadlineAt": NOW + HOUR_MS},
]
STARTED_FRIDAY = {"runId": "c", "startedAt": NOW - 3 * DAY_MS, "deadlineAt": NOW}
FULL = {"message": "disk full", "at": NOW - HOUR_MS}


def said(found: dict[str, Any]) -> str:
    return dashboard.said(dashboard.judge(found, NOW), NOW, UTC).plain


def due(found: dict[str, Any]) -> str:
    return dashboard.due(dashboard.judge(found, NOW), NOW, UTC)


def lines(rows: list[dict[str, Any]], columns: int | None = 80) -> list[str]:
    stream = io.StringIO()
    page = Page(stream, look_of(stream, colour=False, columns=columns))
    page.table(dashboard.table(dashboard.views(rows, NOW), NOW, UTC))
    return stream.getvalue().splitlines()


def test_an_agent_is_late_from_due_plus_grace_on_and_not_before() -> None:
    at_boundary = row(dueAt=NOW - GRACE)
    assert dashboard.judge(row(dueAt=NOW - GRACE + 1), NOW).health == "ok"
    assert dashboard.judge(at_boundary, NOW).health == "late"
    assert dashboard.judge(row(dueAt=NOW - GRACE - 1), NOW).health == "late"
    assert due(row(dueAt=NOW - GRACE + 1)) == "now"
    assert due(at_boundary) == "1 late"


def test_with_one_miss_allowed_there_is_no_late() -> None:
    assert dashboard.judge(row(dueAt=NOW - HOUR_MS, misses=1), NOW).health == "ok"


def test_while_a_run_is_open_an_agent_is_not_late() -> None:
    running = row(dueAt=NOW - HOUR_MS, runningSince=NOW - 7 * HOUR_MS)
    assert dashboard.judge(running, NOW).health == "ok"
    assert due(running) == "now"


RAN_LONG: dict[str, Any] = {  # started 10 h ago, which answered that hour alone, and finished 65 min ago
    "dueAt": NOW - 9 * HOUR_MS,
    "lastHeartbeatAt": NOW - 65 * MINUTE_MS,
    "graceMs": HOUR_MS,
}


def test_a_run_longer_than_its_schedule_counts_as_silence_only_after_its_end() -> None:
    assert dashboard.judge(interval(**RAN_LONG), NOW).health == "late"
    assert due(interval(**RAN_LONG)) == "1 late"
    just_before = interval(**RAN_LONG | {"graceMs": HOUR_MS + 1})
    assert dashboard.judge(just_before, NOW).health == "ok"
    assert due(just_before) == "now"
    reported = interval(**RAN_LONG | {"lastHeartbeatAt": NOW})
    assert (dashboard.judge(reported, NOW).health, due(reported)) == ("ok", "in 60 min")
    missed = interval(**RAN_LONG | {"lastHeartbeatAt": NOW - 3 * HOUR_MS + 1, "degraded": True})
    assert due(missed | {"health": "degraded", "reason": "2 expected runs missed"}) == "2 missed"


def test_of_cron_fires_since_a_long_run_only_the_backend_knows() -> None:
    found = row(**RAN_LONG)
    assert dashboard.judge(found, NOW).health == "ok"
    assert due(found) == "now"


def test_a_paused_agent_is_neither_late_nor_due() -> None:
    paused = row(control="paused", dueAt=None, health="degraded", degraded=True)
    assert dashboard.judge(paused, NOW).health == "paused"
    assert due(paused) == "-"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (degraded(), "2+ missed"),
        (degraded(misses=3), "3+ missed"),
        (degraded(reason="overrunning"), "overrunning"),
        (interval(dueAt=NOW - GRACE), "1 late"),
        (interval(dueAt=NOW - GRACE - HOUR_MS, misses=4), "2 late"),
        (interval(dueAt=NOW - GRACE - HOUR_MS, health="degraded", degraded=True), "2 missed"),
        (
            interval(
                dueAt=NOW - GRACE - 18 * HOUR_MS - 1, lastHeartbeatAt=None, health="degraded", degraded=True
            ),
            "19 missed",
        ),
        (row(dueAt=NOW - GRACE - HOUR_MS, degradeAt=NOW), "1+ late"),
        (row(dueAt=NOW - GRACE, misses=3), "1+ late"),
        (row(dueAt=NOW + 5 * HOUR_MS), "in 5 h"),
        (row(dueAt=NOW + 30 * HOUR_MS), "tomorrow"),
        (row(dueAt=None), "-"),
        (row(dueAt=NOW - HOUR_MS, health="failing"), "1 late"),
    ],
)
def test_due_says_when_or_how_many_were_missed(found: dict[str, Any], expected: str) -> None:
    assert due(found) == expected


def test_worst_comes_first_and_equals_by_name() -> None:
    rows = [
        row("paused", control="paused"),
        row("ok-b"),
        row("ok-a"),
        row("nothing-done", actWithinMs=DAY_MS, lastActedAt=NOW - 3 * DAY_MS),
        row("new", health="new", lastHeartbeatAt=None),
        row("blocked", status="blocked"),
        row("late", dueAt=NOW - HOUR_MS),
        row("failing", health="failing", status="error"),
        degraded("degraded"),
        row("newer-word", health="quarantined"),
    ]
    assert [view.row["agent"] for view in dashboard.views(rows, NOW)] == [
        "degraded",
        "failing",
        "late",
        "blocked",
        "new",
        "newer-word",
        "nothing-done",
        "ok-a",
        "ok-b",
        "paused",
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (row(status="working", summary="3 files drifted"), "working: 3 files drifted"),
        (row(summary="all fine"), "all fine"),
        (row(result="noop", runsSinceActed=6), "noop, nothing done in 6 runs"),
        (row(result="noop", runsSinceActed=1), "noop"),
        (row(purpose="drift scan"), "drift scan"),
        (row(), ""),
        (
            row(status="blocked", statusSince=NOW - 3 * HOUR_MS, summary="need a key"),
            "blocked for 3 h: need a key",
        ),
        (row(status="waiting", statusSince=NOW - 3 * HOUR_MS), "waiting for 3 h"),
        (row(status="dreaming", summary="of sheep"), "dreaming: of sheep"),
        (
            row(actWithinMs=DAY_MS, lastActedAt=NOW - 3 * DAY_MS, runsSinceActed=12, result="noop"),
            "on time, nothing done for 3 d (12 runs)",
        ),
        (
            row(health="failing", status="error", lastError={"message": "disk full", "at": NOW}, summary="x"),
            "disk full",
        ),
        (
            row(summary="better", lastError={"message": "disk full", "at": NOW - 5 * HOUR_MS}),
            "better · error 5 h ago: disk full",
        ),
        (row(summary="better", lastError={"message": "disk full", "at": NOW - 25 * HOUR_MS}), "better"),
        (row(lastHeartbeatAt=NOW - 5 * HOUR_MS, lastReceivedAt=NOW), "delivered 5 h late"),
        (row(summary="x", linked=False), "x · not linked"),
        (row(hosts=[{"host": "box1", "at": NOW}, {"host": "box2", "at": NOW}]), "hosts box1, box2"),
        (degraded(reason="never reported", lastHeartbeatAt=None, status=None), "never reported"),
        (row(runningSince=NOW - 5 * MINUTE_MS), "running for 5 min"),
        (row(openRuns=[], summary="x"), "x"),
        (row(openRuns=RUNNING[:1], status="working", purpose="audit"), "running for 50 min; audit"),
        (row(openRuns=RUNNING, status="working"), "2 running, since 07:10"),
        (row(openRuns=[STARTED_FRIDAY, *RUNNING]), "3 running, since Fri 08:00, overrunning"),
        (degraded(openRuns=[STARTED_FRIDAY], reason="overrunning"), "running for 3 d"),
        (
            row(health="failing", status="error", lastError=FULL, consecutiveFailures=3),
            "3 failures in a row; disk full",
        ),
        (
            row(status="error", lastError=FULL, consecutiveFailures=2, failAfter=3),
            "2 of 3 failures; disk full",
        ),
        (row(health="failing", status="error", lastError=FULL, consecutiveFailures=1), "disk full"),
        (
            row(health="failing", status="working", lastError=FULL, openRuns=RUNNING[:1], purpose="audit"),
            "running for 50 min; disk full",
        ),
    ],
)
def test_what_was_said_and_what_is_known_besides(found: dict[str, Any], expected: str) -> None:
    assert said(found) == expected


def test_nothing_done_needs_an_agent_that_is_on_time() -> None:
    idle: dict[str, Any] = {"actWithinMs": DAY_MS, "lastActedAt": NOW - DAY_MS}
    assert dashboard.judge(row(**idle), NOW).nothing_done_for == DAY_MS
    assert (
        dashboard.judge(row(actWithinMs=DAY_MS, lastActedAt=NOW - DAY_MS + 1), NOW).nothing_done_for is None
    )
    assert dashboard.judge(degraded(**idle), NOW).nothing_done_for is None
    assert dashboard.judge(row(dueAt=NOW - HOUR_MS, **idle), NOW).nothing_done_for is None
    never_acted = row(actWithinMs=DAY_MS, controlSince=NOW - 2 * DAY_MS)
    assert dashboard.judge(never_acted, NOW).nothing_done_for == 2 * DAY_MS


def test_a_purpose_is_dimmed_and_an_agents_own_words_are_not() -> None:
    purpose = dashboard.said(dashboard.judge(row(purpose="drift scan"), NOW), NOW)
    words = dashboard.said(dashboard.judge(row(summary="drift scan", purpose="drift scan"), NOW), NOW)
    assert [str(span.style) for span in purpose.spans] == ["dim"]
    assert words.spans == []


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"openTasks": 12, "staleTasks": 3}, "12/3"),
        ({"openTasks": 1000, "staleTasks": 3, "countsCapped": True}, "1000+/3"),
        ({"openTasks": 1000, "staleTasks": 1000, "countsCapped": True}, "1000+/1000+"),
        ({"openTasks": None, "staleTasks": None}, "-"),
        ({"openTasks": 4, "staleTasks": None}, "4/?"),
    ],
)
def test_counts_at_the_limit_get_a_plus(counts: dict[str, Any], expected: str) -> None:
    assert dashboard.tasks(counts) == expected


def test_the_table_of_the_readme_at_eighty_columns() -> None:
    rows = [
        row("rams", result="noop", runsSinceActed=6, dueAt=NOW + 24 * HOUR_MS),
        degraded(
            lastHeartbeatAt=NOW - 19 * HOUR_MS,
            lastReceivedAt=NOW - 19 * HOUR_MS,
            openTasks=12,
            staleTasks=3,
            status="working",
            summary="3 files drifted",
        ),
    ]
    assert lines(rows) == [
        "agent  health        last      due        tasks  said",
        "hint   degraded 7 h  19 h ago  2+ missed  12/3   working: 3 files drifted",
        "rams   ok            2 h ago   tomorrow   0/0    noop, nothing done in 6 runs",
    ]


RAN = row(
    "torv",
    lastRun={"runId": "c", "durationMs": 12_345, "exitCode": 3, "status": "error"},
    lastError=FULL,
    health="failing",
    status="error",
    consecutiveFailures=4,
)


def test_the_last_run_has_a_column_where_there_is_room() -> None:
    rows = [RAN, row("rams", summary="3 files drifted")]
    assert lines(rows, 100) == [
        "agent  health       last     due     tasks  run           said",
        "torv   failing 7 h  2 h ago  in 4 h  0/0    12 s, exit 3  4 failures in a row; disk full",
        "rams   ok           2 h ago  in 4 h  0/0    -             3 files drifted",
    ]
    assert lines(rows, 80) == [
        "agent  health       last     due     tasks  said",
        "torv   failing 7 h  2 h ago  in 4 h  0/0    4 failures in a row; disk full",
        "rams   ok           2 h ago  in 4 h  0/0    3 files drifted",
    ]
    assert lines(rows, None)[0].split()[5] == "run"
    assert lines(rows[1:], None)[0].split() == ["agent", "health", "last", "due", "tasks", "said"]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"durationMs": 400, "exitCode": 0}, "400 ms"),
        ({"durationMs": 9_999}, "9.9 s"),
        ({"durationMs": 10_000, "exitCode": 137}, "10 s, exit 137"),
        ({"exitCode": 1}, "exit 1"),
        ({}, "-"),
        (None, "-"),
    ],
)
def test_a_run_is_told_by_its_time_and_its_exit_code_if_it_failed(run: Any, expected: str) -> None:
    assert dashboard.last_run(row(lastRun=run)) == expected


def test_the_json_says_of_every_agent_whether_a_run_overruns() -> None:
    at_deadline = [{"runId": "c", "startedAt": NOW - HOUR_MS, "deadlineAt": NOW}]
    rows: list[Row] = [
        row("a"),
        row("b", openRuns=RUNNING),
        row("c", openRuns=at_deadline),
        degraded("d", reason="overrunning"),
    ]
    seen = dashboard.views(rows, NOW)
    found = dashboard.as_json(Fleet(rows, {}, NOW), seen, dashboard.totals(seen))
    assert {told["agent"]: told["overrunning"] for told in found["agents"]} == {
        "a": False,
        "b": False,
        "c": True,
        "d": True,
    }
    [told] = [told for told in found["agents"] if told["agent"] == "b"]
    assert told["openRuns"] == RUNNING


def test_late_counts_from_the_first_miss_that_the_deployment_tells() -> None:
    found = row(**RAN_LONG, firstMissAt=NOW - HOUR_MS)
    assert dashboard.judge(found, NOW).health == "late"
    assert dashboard.judge(found | {"firstMissAt": NOW - HOUR_MS + 1}, NOW).health == "ok"


RUBBISH = row(
    "x" * 64, summary="日本\x1b[31m[red]\u202e\n" * 50, hosts=[{"host": "h" * 255, "at": 1}] * 2, linked=False
)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_rubbish_fits_too(columns: int) -> None:
    found = lines([RUBBISH, degraded("d" * 64, summary="s" * 500), row(summary="日本" * 250)], columns)
    assert len(found) == 7
    assert all(cell_len(line) <= columns for line in found)
    assert all(line.isprintable() for line in found)


def test_piped_nothing_is_cut() -> None:
    assert lines([row(summary="s" * 500)], None)[1].endswith(" " + "s" * 500)


def test_totals_count_what_is_shown() -> None:
    seen = dashboard.views(
        [row("a"), row("b", dueAt=NOW - HOUR_MS), degraded("c"), row("d", control="paused")], NOW
    )
    counts = dashboard.totals(seen)
    assert counts == {"agents": 4, "degraded": 1, "failing": 0, "late": 1, "new": 0, "ok": 1, "paused": 1}
    assert dashboard.totals_line(counts) == "4 agents: 1 degraded, 1 late, 1 ok, 1 paused"
    assert dashboard.totals_line(dashboard.totals(seen[:1])) == "1 agent: 1 degraded"
    assert "heartbeat apply" in dashboard.totals_line(dashboard.totals([]))


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ({"sweepRanAt": NOW - 24 * SECOND_MS, "sweepEveryMs": MINUTE_MS}, "sweep 24 s ago"),
        ({"sweepRanAt": NOW - 3 * MINUTE_MS}, "sweep 3 min ago"),
        ({"sweepRanAt": NOW - 3 * MINUTE_MS - 1}, "sweep late: last 3 min ago, silence is not noticed"),
        ({"sweepRanAt": NOW - 4 * MINUTE_MS, "sweepEveryMs": 5 * MINUTE_MS}, "sweep 4 min ago"),
        ({}, "the sweep has not run yet"),
        (
            {"sweepRanAt": NOW, "holdUntil": NOW + 5 * MINUTE_MS},
            "sweep now · the backend was away: nobody is degraded before 08:05 UTC",
        ),
        ({"sweepRanAt": NOW, "holdUntil": NOW}, "sweep now"),
    ],
)
def test_the_sweeps_own_heartbeat(monitor: dict[str, Any], expected: str) -> None:
    assert dashboard.sweep_line(monitor, NOW).plain == expected


CONTRACT = Path(__file__).parent / "contract"
EXAMPLES = [
    example["returns"]
    for name in ("getAgentDashboard", "getAgent")
    for example in json.loads((CONTRACT / f"{name}.json").read_text(encoding="utf-8"))
    if "returns" in example
]


@pytest.mark.parametrize("answer", EXAMPLES)
def test_every_row_that_the_functions_answered_is_shown(answer: dict[str, Any]) -> None:
    rows = answer["agents"] if "agents" in answer else [answer["row"]]
    now = max((found["controlSince"] for found in rows), default=NOW) + DAY_MS
    seen = dashboard.views(rows, now)
    assert {view.health for view in seen} <= set(dashboard.HEALTH_WORDS)
    stored = [
        found["health"] for found in rows if found["health"] in dashboard.BAD and found["control"] == "active"
    ]
    assert [view.health for view in seen if view.health in dashboard.BAD] == sorted(stored)
    cells = [str(cell) for found in dashboard.table(seen, now, UTC).rows for cell in found]
    assert not any("None" in cell for cell in cells)
    if "row" in answer:
        agents.facts(answer, now, UTC)
        agents.flips_table(answer["flips"], UTC)


def test_recorded_answers_of_the_functions_make_a_line() -> None:
    examples = json.loads((CONTRACT / "recordHeartbeat.json").read_text(encoding="utf-8"))
    answers = [
        (example["args"]["heartbeat"], example["returns"]) for example in examples if "returns" in example
    ]
    assert answers
    for sent, answer in answers:
        body = {name: value for name, value in sent.items() if name != "deliveredAt"}
        heartbeat = Heartbeat.model_validate_json(json.dumps(body))
        line = send_told.line(
            send.Sent(heartbeat, [], answer), "http://127.0.0.1:7210 (local)", answer["receivedAt"]
        )
        assert line.startswith(f"{answer['agent']} {answer['health']}")
        assert ("duplicate" in line) == (answer["outcome"] == "duplicate")
