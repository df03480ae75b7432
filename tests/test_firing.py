"""Whether a minute is a fire, by the rules of Debian's cron; how long to wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from heartbeat_cli import firing
from heartbeat_cli.firing import delay_s, is_fire, parse


def at(text: str) -> int:
    """Epoch milliseconds of `2026-03-29 01:30` in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("expression", "zone", "instant", "fires"),
    [
        ("15 8 * * *", "UTC", "2026-11-23 08:15", True),
        ("15 8 * * *", "UTC", "2026-11-23 08:15:59.999", True),
        ("15 8 * * *", "UTC", "2026-11-23 08:14:59.999", False),
        ("15 8 * * *", "UTC", "2026-11-23 08:16", False),
        ("15 8 * * *", "Europe/Berlin", "2026-11-23 07:15", True),
        ("15 8 * * *", "Europe/Berlin", "2026-07-23 06:15", True),
        ("15 8 * * *", "Europe/Berlin", "2026-07-23 07:15", False),
        ("*/20 * * * *", "Asia/Kolkata", "2026-11-23 00:10", True),
        ("0 0 * * sun", "UTC", "2026-11-22 00:00", True),
        ("0 0 * * 7", "UTC", "2026-11-22 00:00", True),
        ("0 0 23 * 0", "UTC", "2026-11-23 00:00", True),
        ("0 0 23 * 0", "UTC", "2026-11-22 00:00", True),
        ("0 0 */2 * 0", "UTC", "2026-11-22 00:00", False),
        ("0 0 1-9/4,23 nov *", "UTC", "2026-11-23 00:00", True),
        ("0 0 23 jan,Mar-may *", "UTC", "2026-11-23 00:00", False),
    ],
)
def test_the_five_fields_are_matched_in_their_zone(
    expression: str, zone: str, instant: str, fires: bool
) -> None:
    assert is_fire(expression, zone, at(instant)) is fires


@pytest.mark.parametrize(
    ("expression", "instant", "fires"),
    [
        # 02:30 comes twice in Berlin on 25 October 2026, at 00:30 and 01:30 UTC
        ("30 2 * * *", "2026-10-25 00:30", True),
        ("30 2 * * *", "2026-10-25 01:30", False),
        ("30 * * * *", "2026-10-25 00:30", True),
        ("30 * * * *", "2026-10-25 01:30", True),
        # and never on 29 March 2026, when the clock goes from 02:00 to 03:00 at 01:00 UTC
        ("30 2 * * *", "2026-03-29 01:30", True),
        ("30 2 * * *", "2026-03-29 00:30", False),
        ("30 3 * * *", "2026-03-29 01:30", True),
        ("30 3 * * *", "2026-03-29 02:30", False),
        ("*/30 2 * * *", "2026-03-29 01:30", False),
    ],
)
def test_a_repeated_hour_counts_once_and_a_skipped_one_is_made_up_for(
    expression: str, instant: str, fires: bool
) -> None:
    assert is_fire(expression, "Europe/Berlin", at(instant)) is fires


@pytest.mark.parametrize(
    "expression",
    [
        "* * * *",
        "60 * * * *",
        "5/10 * * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "1,,2 * * * *",
        "x * * * *",
        "* * 0 * *",
        "* * * * 8",
        "@daily",
        "+5 * * * *",
        "\u0661 * * * *",
    ],
)
def test_what_is_no_expression_is_refused_with_a_sentence(expression: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(expression)


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "Europe", "/etc/localtime"])
def test_what_is_no_zone_is_refused_with_a_sentence(zone: str) -> None:
    with pytest.raises(ValueError, match="is not one that this host knows"):
        firing.zone_of(zone)


def test_a_delay_is_within_its_bounds_and_the_same_for_one_seed() -> None:
    drawn = [delay_s(30, f"host{number}:hint") for number in range(200)]
    assert all(0 <= seconds < 30 for seconds in drawn)
    assert max(drawn) - min(drawn) > 25
    assert delay_s(30, "host1:hint") == drawn[1]
    assert delay_s(0, "a") == 0 and len({delay_s(30) for _ in range(5)}) > 1
