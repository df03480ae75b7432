from __future__ import annotations

import traceback

import pytest

from heartbeat_cli.errors import (
    HeartbeatError,
    Refused,
    ScheduleProblem,
    SettingsProblem,
    Unreachable,
    UsageProblem,
)


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (UsageProblem("no"), 2, "usage"),
        (SettingsProblem("no"), 2, "settings"),
        (ScheduleProblem("no", [(3, "a schedule")]), 2, "schedule"),
        (Refused("no"), 1, "refused"),
        (Refused("no", code="unknown_agent"), 1, "unknown_agent"),
        (Unreachable("no", cause="refused"), 75, "unreachable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, HeartbeatError) else str(value),
)
def test_each_error_has_the_exit_code_and_the_word_of_the_table(
    error: HeartbeatError, exit_code: int, code: str
) -> None:
    assert (error.exit_code, error.code) == (exit_code, code)


def test_a_settings_problem_and_a_schedule_problem_are_usage_problems() -> None:
    assert issubclass(SettingsProblem, UsageProblem)
    assert issubclass(ScheduleProblem, UsageProblem)


def test_an_error_reads_as_its_sentence_and_keeps_the_hint_apart() -> None:
    error = Unreachable("nothing answers", cause="refused", hint="start it")

    assert str(error) == "nothing answers"
    assert error.hint == "start it"
    assert traceback.format_exception_only(error)[-1].strip().endswith("nothing answers")


def test_a_schedule_problem_lists_the_bad_lines_in_order() -> None:
    assert ScheduleProblem("no", [(3, "a"), (7, "b")]).problems == ((3, "a"), (7, "b"))
    assert str(ScheduleProblem("page.md", [(3, "a"), (7, "b")])) == "page.md: 2 problems"
    assert str(ScheduleProblem("page.md", [(3, "a")])) == "page.md, line 3: a"


def test_the_code_of_one_refusal_does_not_become_the_code_of_the_next() -> None:
    Refused("no", code="conflict")

    assert Refused("no").code == "refused"
