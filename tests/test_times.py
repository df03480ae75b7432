"""Ages and due times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_cli import times
from heartbeat_cli.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp() * 1000


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, "0 s"),
        (999, "0 s"),
        (119 * SECOND_MS, "119 s"),
        (2 * MINUTE_MS, "2 min"),
        (2 * HOUR_MS - 1, "119 min"),
        (2 * HOUR_MS, "2 h"),
        (2 * DAY_MS - 1, "47 h"),
        (2 * DAY_MS, "2 d"),
        (-5 * HOUR_MS, "0 s"),
    ],
)
def test_a_duration_is_told_in_its_one_telling_unit(ms: int, expected: str) -> None:
    assert times.span(ms) == expected


@given(st.integers(0, 400 * DAY_MS))
def test_a_told_duration_is_never_longer_than_the_real_one(ms: int) -> None:
    number, unit = times.span(ms).split()
    told = int(number) * {"s": SECOND_MS, "min": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}[unit]
    assert told <= ms < told + {"s": SECOND_MS, "min": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}[unit]


def test_an_agent_that_never_reported_was_last_heard_never() -> None:
    assert times.ago(None, NOON) == "never"
    assert times.ago(NOON - 19 * HOUR_MS, NOON) == "19 h ago"
    assert times.ago(NOON + 5 * SECOND_MS, NOON) == "now"


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (0, "now"),
        (25 * MINUTE_MS, "in 25 min"),
        (5 * HOUR_MS, "in 5 h"),
        (12 * HOUR_MS, "in 12 h"),
        (12 * HOUR_MS + 1, "tomorrow"),
        (36 * HOUR_MS - 1, "tomorrow"),
        (36 * HOUR_MS, "in 2 d"),
    ],
)
def test_a_coming_instant_is_relative_when_near_and_a_day_when_far(left: int, expected: str) -> None:
    assert times.until(NOON + left, NOON, UTC) == expected


def test_later_today_is_told_by_the_clock_of_the_zone() -> None:
    morning = NOON - 11 * HOUR_MS
    assert times.until(morning + 13 * HOUR_MS, morning, UTC) == "14:00"
    assert times.until(morning + 13 * HOUR_MS, morning, timezone(timedelta(hours=2))) == "16:00"
    assert times.until(morning + 13 * HOUR_MS, morning, timezone(timedelta(hours=11))) == "tomorrow"


def test_the_days_of_a_zone_that_changes_its_clock_are_its_own() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    before = datetime(2026, 10, 24, 23, 30, tzinfo=berlin).timestamp() * 1000
    assert times.until(before + 24 * HOUR_MS, before, berlin) == "tomorrow"  # 22:30 on the 25-hour day
    assert times.stamp(before + 24 * HOUR_MS, berlin) == "2026-10-25 22:30 CET"


def test_a_utc_clock_time_carries_its_day_only_when_that_is_not_today() -> None:
    assert times.clock(NOON + HOUR_MS, NOON) == "13:00 UTC"
    assert times.clock(NOON + DAY_MS, NOON) == "Tue 12:00 UTC"
    assert times.clock(NOON + 6 * DAY_MS, NOON) == "Sun 12:00 UTC"
    assert times.clock(NOON + 7 * DAY_MS, NOON) == "2026-11-30 12:00 UTC"
    assert times.clock(NOON - DAY_MS, NOON) == "2026-11-22 12:00 UTC"


def test_a_setting_is_told_exactly() -> None:
    assert [times.every(ms) for ms in (6 * HOUR_MS, 90 * MINUTE_MS, DAY_MS + 12 * HOUR_MS, 0)] == [
        "6 h",
        "1 h 30 min",
        "1 d 12 h",
        "0 s",
    ]


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, "0 ms"),
        (999.9, "999 ms"),
        (1_000, "1.0 s"),
        (1_999, "1.9 s"),
        (9_999, "9.9 s"),
        (10_000, "10 s"),
        (300_000, "5 min"),
    ],
)
def test_how_long_something_took_is_told_in_tenths_of_a_second_while_they_matter(
    ms: float, expected: str
) -> None:
    assert times.took(ms) == expected


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (MINUTE_MS, "11:59"),
        (12 * HOUR_MS, "00:00"),
        (12 * HOUR_MS + 1, "Sun 23:59"),
        (6 * DAY_MS, "Tue 12:00"),
        (7 * DAY_MS, "2026-11-16"),
    ],
)
def test_a_past_instant_is_as_short_as_it_can_be(ago: int, expected: str) -> None:
    assert times.since(NOON - ago, NOON, UTC) == expected
