"""Rows in another zone than the host's: every fire once, on the days when clocks change as well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest

from heartbeat_cli import crontab_zones, firing
from heartbeat_cli.firing import HOUR, MINUTE
from test_cron_fires import ask

YEAR = 2026
STEP = timedelta(minutes=1)
LONGEST_GAP_MS = 3_600_000  # of the zones here: what a skipped hour holds comes so much later at most
ASKED_EACH_MS = 1_800_000  # for the fire before and the one after: no two fires of the cases are closer
Span = tuple[datetime, datetime]


def lines(expression: str, there: str, here: str) -> list[str] | None:
    days = expression.split(maxsplit=2)[2]
    return crontab_zones.whens(
        firing.parse(expression), days, firing.zone_of(there), firing.zone_of(here), YEAR
    )


@pytest.mark.parametrize(
    ("expression", "there", "here", "expected"),
    [
        ("15 8 * * *", "UTC", "UTC", None),
        ("15 8 * * *", "UTC", "Etc/UTC", None),
        ("15 8 * * *", "Europe/Vienna", "Europe/Berlin", None),
        ("*/5 * * * *", "Asia/Kolkata", "Europe/Berlin", None),
        ("0 * * * *", "America/New_York", "UTC", None),
        ("15 8 * * *", "UTC", "Europe/Berlin", ["15 9,10 * * *"]),
        ("15 8 * * *", "Europe/Berlin", "UTC", ["15 6,7 * * *"]),
        ("15 8 * * *", "Asia/Kolkata", "UTC", ["45 2 * * *"]),
        ("15 8 * * 1-5", "Asia/Tokyo", "UTC", ["15 23 * * 0-4"]),
        ("15 8 1 * *", "Asia/Tokyo", "UTC", ["15 23 * * *"]),
        ("0 0,12 * * 1", "Asia/Tokyo", "UTC", ["0 15 * * 0", "0 3 * * 1"]),
        ("0 */6 * * *", "Asia/Kolkata", "UTC", ["30 0,6,12,18 * * *"]),
        ("*/20 * * * *", "Asia/Kolkata", "UTC", ["10,30,50 * * * *"]),
        ("15 1 * * *", "UTC", "Europe/Berlin", ["15 */24,2,3 * * *"]),
        ("0 8,9 * * *", "Europe/Berlin", "UTC", ["0 6-8 * * *"]),
        # 22:30 UTC is 23:30 of that day in winter, and 00:30 of the next in summer
        ("30 0,23 * * 1", "Europe/Berlin", "UTC", ["30 21 * * 1", "30 22 * * *", "30 23 * * 0"]),
    ],
)
def test_as_few_lines_as_the_differences_of_the_two_zones_need(
    expression: str, there: str, here: str, expected: list[str] | None
) -> None:
    found = lines(expression, there, here)
    assert found is None if expected is None else sorted(found or []) == sorted(expected)


CASES = [
    (expression, there, here)
    for there, here in (
        ("UTC", "Europe/Berlin"),
        ("Europe/Berlin", "UTC"),
        ("Europe/Berlin", "America/New_York"),
        ("America/New_York", "Europe/London"),
        ("Australia/Lord_Howe", "Europe/Berlin"),
        ("Asia/Kolkata", "America/St_Johns"),
        ("America/Los_Angeles", "America/New_York"),
        ("Pacific/Auckland", "Europe/Lisbon"),
    )
    for expression in (
        "15 8 * * *",
        "30 2 * * *",
        "30 1 * * 0",
        "0 0,1,2,3,12 * * *",
        "45 23 * * 6",
        "0 */6 * * *",
        "30 0 1-15,25-31 3,10,11 *",
        "15 1 25 * 0",
    )
]


def starts_every_fire_once(expression: str, there: str, here: str) -> None:
    zone = ZoneInfo(here)
    spans = _spans(ZoneInfo(there), zone)
    started = [instant for span in spans for instant in _started(expression, there, zone, span)]
    expected = sorted(_expected(expression, there, spans))
    assert len(started) == len(set(started)) == len(expected) > 0
    for ours, theirs in zip(sorted(started), expected, strict=True):
        assert 0 <= ours - theirs < LONGEST_GAP_MS


@pytest.mark.parametrize(("expression", "there", "here"), CASES[7::13])
def test_every_fire_of_the_deployment_is_started_once_around_changes_of_a_clock(
    expression: str, there: str, here: str
) -> None:
    starts_every_fire_once(expression, there, here)


@pytest.mark.long
@pytest.mark.parametrize(("expression", "there", "here"), CASES)
def test_every_fire_is_started_once_whatever_the_zones(expression: str, there: str, here: str) -> None:
    starts_every_fire_once(expression, there, here)


@lru_cache
def _spans(*zones: tzinfo) -> list[Span]:
    """Three days around each change of a clock this year, and ten in January."""
    found, end = [], datetime(YEAR, 1, 10, tzinfo=UTC)
    day = datetime(YEAR, 1, 12, tzinfo=UTC)
    spans = [(end - timedelta(days=9), end)]
    while day.year == YEAR:
        following = day + timedelta(days=1)
        if any(day.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset() for zone in zones):
            found.append(day)
        day = following
    for change in found:
        first, last = change - timedelta(days=1), change + timedelta(days=2)
        if first < spans[-1][1]:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


def _expected(expression: str, zone: str, spans: list[Span]) -> set[int]:
    """What convex/heartbeat/model/cron.ts computes."""
    edges = [(int(first.timestamp() * 1000), int(last.timestamp() * 1000)) for first, last in spans]
    asked = [
        {"expression": expression, "timeZone": zone, "at": instant}
        for begin, end in edges
        for instant in range(begin, end, ASKED_EACH_MS)
    ]
    answers = {fire for answer in ask(asked) for fire in (answer["next"], answer["prev"]) if fire is not None}
    return {fire for fire in answers for begin, end in edges if begin <= fire < end}


def _started(expression: str, there: str, here: tzinfo, span: Span) -> list[int]:
    """What a cron of the zone `here` starts of our lines, and they then do not leave alone."""
    found = lines(expression, there, str(here))
    crons = [firing.parse(line) for line in found or [expression]]
    started = []
    for instant, wall, skipped in _minutes(here, span):
        due = sum(cron.at(wall) for cron in crons if cron.wildcard or not wall.fold)
        due += sum(cron.at(each) for each in skipped for cron in crons if not cron.wildcard)
        if due and (found is None or firing.is_fire(expression, there, instant)):
            started += [instant] * due
    return started


@lru_cache
def _minutes(zone: tzinfo, span: Span) -> list[tuple[int, datetime, list[datetime]]]:
    """Each minute: the instant, what the clock shows, and what it skipped right before."""
    found = []
    instant, before = span[0], span[0].astimezone(zone).utcoffset() or timedelta()
    while instant < span[1]:
        wall = instant.astimezone(zone)
        offset = wall.utcoffset() or timedelta()
        jumped = max(0, int((offset - before) / STEP))
        bare = wall.replace(tzinfo=None)
        skipped = [bare - STEP * number for number in range(jumped, 0, -1)]
        found.append((int(instant.timestamp() * 1000), wall, skipped))
        instant, before = instant + STEP, offset
    return found


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (range(24), "*"),
        ([0, 1, 2, 3], "0-3"),
        ([0, 1], "0,1"),
        ([1, 3, 4, 5, 23], "1,3-5,23"),
        ([7], "7"),
    ],
)
def test_values_are_listed_as_a_field(values: list[int], text: str) -> None:
    assert crontab_zones.listed(values, HOUR) == text
    assert list(firing.parse(f"* {text} * * *").hours) == list(values)
    assert crontab_zones.listed(range(60), MINUTE) == "*"
