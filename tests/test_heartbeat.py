from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from heartbeat_cli.errors import UsageProblem
from heartbeat_cli.heartbeat import (
    ALIASES,
    ERROR_MAX,
    RESULTS,
    STATUSES,
    SUMMARY_MAX,
    Heartbeat,
    Run,
    agent_name,
    compose,
    heartbeat_id,
    normalise_status,
)

NOW_MS = 1_790_000_000_000
ID = heartbeat_id(NOW_MS, bytes(10))
CONTRACT = Path(__file__).parent / "contract"


def given_only(**fields: Any) -> tuple[Heartbeat, list[str]]:
    known: dict[str, Any] = {"heartbeat_id": ID, "agent": "hint", "sent_at": NOW_MS, "status": "ok"}
    return compose(**(known | fields))


# --- the wire form


def test_the_wire_form_has_camel_case_names_and_nothing_that_is_not_known() -> None:
    heartbeat, notes = given_only()

    assert heartbeat.body() == {"heartbeatId": ID, "agent": "hint", "sentAt": NOW_MS, "status": "ok"}
    assert notes == []


def test_every_field_that_was_given_is_on_the_wire() -> None:
    run = Run(
        run_id=str(uuid.UUID(int=5)), phase="finish", exit_code=3, duration_ms=10, output="x", output_cut=True
    )
    heartbeat, _ = given_only(
        summary="3 files drifted",
        error="boom",
        result="acted",
        open_tasks=12,
        stale_tasks=0,
        host="web-1",
        client_version="0.1.0",
        run=run,
    )

    wire = heartbeat.body()

    assert wire["openTasks"] == 12
    assert wire["staleTasks"] == 0
    assert wire["clientVersion"] == "0.1.0"
    assert wire["run"] == {
        "runId": run.run_id,
        "phase": "finish",
        "exitCode": 3,
        "durationMs": 10,
        "output": "x",
        "outputCut": True,
    }
    assert (wire["summary"], wire["error"], wire["result"], wire["host"]) == (
        "3 files drifted",
        "boom",
        "acted",
        "web-1",
    )


def test_the_agents_own_word_travels_not_what_it_means() -> None:
    heartbeat, _ = given_only(status=" In Progress ")

    assert heartbeat.status == "In Progress"


def test_a_heartbeat_cannot_be_changed() -> None:
    heartbeat, _ = given_only()

    with pytest.raises(ValidationError):
        heartbeat.status = "error"


def examples() -> list[Any]:
    read = json.loads((CONTRACT / "recordHeartbeat.json").read_text())
    return [pytest.param(example, id=example["name"]) for example in read]


@pytest.mark.parametrize("example", examples())
def test_the_servers_examples_are_what_this_side_sends(example: dict[str, Any]) -> None:
    body = example["args"]["heartbeat"]
    fields = {name: value for name, value in body.items() if name != "deliveredAt"}

    if example.get("refusal", {}).get("code") == "invalid":
        with pytest.raises(ValidationError):
            Heartbeat.model_validate(fields)
    else:
        assert Heartbeat.model_validate(fields).body() == fields


# --- text


def test_a_summary_of_500_characters_stays_as_it_is() -> None:
    heartbeat, notes = given_only(summary="x" * SUMMARY_MAX)

    assert heartbeat.summary == "x" * SUMMARY_MAX
    assert notes == []


def test_a_summary_of_501_characters_loses_its_end_and_says_so() -> None:
    heartbeat, notes = given_only(summary="a" + "x" * SUMMARY_MAX)

    assert heartbeat.summary == "a" + "x" * (SUMMARY_MAX - 2) + "…"
    assert notes == ["the summary is longer than 500 characters: its beginning was kept"]


def test_an_error_that_is_too_long_loses_its_beginning_and_says_so() -> None:
    heartbeat, notes = given_only(error="x" * ERROR_MAX + "the cause")

    assert heartbeat.error is not None
    assert heartbeat.error.startswith("…x")
    assert heartbeat.error.endswith("the cause")
    assert notes == ["the error is longer than 4,000 characters: its end was kept"]


def test_characters_are_counted_as_the_server_does_an_emoji_being_one() -> None:
    heartbeat, notes = given_only(summary="😀" * SUMMARY_MAX, error="x" + "😀" * ERROR_MAX)

    assert heartbeat.summary == "😀" * SUMMARY_MAX
    assert heartbeat.error == "…" + "😀" * (ERROR_MAX - 1)
    assert len(notes) == 1


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_blank_text_is_no_text(blank: str) -> None:
    heartbeat, _ = given_only(summary=blank, error=blank, host=blank)

    assert {"summary", "error", "host"}.isdisjoint(heartbeat.body())


def test_control_characters_are_data() -> None:
    heartbeat, notes = given_only(summary="a\x1b[31m\x00\u202e\nb")

    assert heartbeat.summary == "a\x1b[31m\x00\u202e\nb"
    assert notes == []


def test_bytes_of_an_argument_that_are_no_text_are_replaced_and_it_says_so() -> None:
    heartbeat, notes = given_only(summary=b"caf\xe9".decode("utf-8", "surrogateescape"))

    assert heartbeat.summary == "caf\ufffd"
    assert notes == ["the summary is not valid text: what could not be read was replaced"]


ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]), max_size=700) | st.text(
    min_size=480, max_size=520
)


@given(summary=ANY_TEXT, error=ANY_TEXT.map(lambda text: text * 8))
def test_any_text_at_all_becomes_a_heartbeat_that_the_server_takes(summary: str, error: str) -> None:
    heartbeat, _ = given_only(summary=summary, error=error)

    json.dumps(heartbeat.body(), ensure_ascii=False).encode()
    assert heartbeat.summary is None or 0 < len(heartbeat.summary) <= SUMMARY_MAX
    assert heartbeat.error is None or 0 < len(heartbeat.error) <= ERROR_MAX


# --- names, words, counts


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("hint", "hint"), ("Hint", "hint"), (" rams ", "rams"), ("a", "a"), ("9_-x", "9_-x")],
)
def test_an_agents_name_is_read_in_lower_case(given_name: str, name: str) -> None:
    assert agent_name(given_name) == name


@pytest.mark.parametrize(
    "bad", ["", " ", "-x", "_x", "a b", "a/b", "é", "\u212a", "a\n\nb", "x" * 65, "../a", "a;b", "a%b"]
)
def test_what_cannot_be_an_agents_name_is_refused_with_what_it_may_hold(bad: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        agent_name(bad)

    assert caught.value.hint is not None
    assert "letters, digits, - and _" in caught.value.hint


def test_the_longest_name_has_64_characters() -> None:
    assert agent_name("x" * 64) == "x" * 64


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("ok", "ok"),
        ("OK", "ok"),
        ("active", "working"),
        ("In-Progress", "working"),
        ("in progress", "working"),
        (" failed ", "error"),
        ("awaiting input", "waiting"),
    ],
)
def test_a_status_word_is_understood_whatever_its_case_and_joints(word: str, meaning: str) -> None:
    assert normalise_status(word) == meaning


@pytest.mark.parametrize("word", ["", "fine", "okay", "x" * 1000])
def test_an_unknown_status_is_refused_with_the_words_there_are(word: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        given_only(status=word)

    assert ", ".join(STATUSES) in str(caught.value.hint)
    assert len(str(caught.value)) < 120


def test_the_status_words_are_the_servers() -> None:
    assert json.loads((CONTRACT / "statuses.json").read_text())["aliases"] == ALIASES


def test_an_unknown_result_is_refused_with_the_words_there_are() -> None:
    with pytest.raises(UsageProblem, match="unknown result 'done'") as caught:
        given_only(result="done")

    assert ", ".join(RESULTS) in str(caught.value.hint)


@pytest.mark.parametrize("counts", [{"open_tasks": 3}, {"stale_tasks": 0}])
def test_one_count_without_the_other_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(UsageProblem, match="without the other"):
        given_only(**counts)


@pytest.mark.parametrize("count", [-1, 1_000_001, 1.5, True])
def test_a_count_that_is_no_whole_number_from_0_is_refused(count: Any) -> None:
    with pytest.raises(UsageProblem, match="open-tasks cannot be"):
        given_only(open_tasks=count, stale_tasks=0)


def test_more_stale_tasks_than_open_ones_are_refused() -> None:
    with pytest.raises(UsageProblem, match="3 stale tasks of 2 open ones"):
        given_only(open_tasks=2, stale_tasks=3)


def test_no_count_and_no_tasks_differ() -> None:
    assert given_only(open_tasks=0, stale_tasks=0)[0].body()["openTasks"] == 0
    assert "openTasks" not in given_only()[0].body()


# --- ids


@given(now_ms=st.integers(0, 2**48 - 1), random=st.binary(min_size=10, max_size=20))
def test_a_heartbeat_id_is_a_uuid_of_version_7_that_holds_the_instant(now_ms: int, random: bytes) -> None:
    made = uuid.UUID(heartbeat_id(now_ms, random))

    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == now_ms
    assert given_only(heartbeat_id=str(made))[0].heartbeat_id == str(made)


@given(first=st.binary(min_size=10, max_size=10), second=st.binary(min_size=10, max_size=10))
def test_ids_sort_by_when_they_were_made(first: bytes, second: bytes) -> None:
    assert heartbeat_id(NOW_MS, first) < heartbeat_id(NOW_MS + 1, second)


def test_different_random_bytes_give_different_ids() -> None:
    seen = {heartbeat_id(NOW_MS, bytes([byte] * 10)) for byte in range(256)}

    assert len(seen) == 256


def test_too_few_random_bytes_are_a_bug_not_a_weak_id() -> None:
    with pytest.raises(ValueError, match="random bytes"):
        heartbeat_id(NOW_MS, bytes(9))


@pytest.mark.parametrize("bad", ["", str(uuid.UUID(int=0)), ID.upper(), ID + "\n"])
def test_a_heartbeat_takes_no_other_kind_of_id(bad: str) -> None:
    with pytest.raises(UsageProblem):
        given_only(heartbeat_id=bad)
