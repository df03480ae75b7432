"""One agent looked at closely, paused, resumed, retired."""

from __future__ import annotations

import json
from datetime import UTC

from conftest import Live
from heartbeat_cli import agents
from heartbeat_cli.times import DAY_MS, HOUR_MS
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


def test_history_as_the_functions_answered_it_is_shown() -> None:
    for example in json.loads((CONTRACT / "getAgentHistory.json").read_text(encoding="utf-8")):
        if "returns" in example:
            past = example["returns"]["heartbeats"]
            assert len(agents.history_table(past, NOW, UTC).rows) == len(past)
