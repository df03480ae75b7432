"""Instants and durations for people: pure functions of (instant, now, zone), all in epoch milliseconds.

The zone None is this host's own, with its rules for other instants than now.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# From two of a unit on, the unit below it says nothing that people act upon: "119 min", "2 h", "47 h", "2 d"
_STEPS = ((2 * DAY_MS, DAY_MS, "d"), (2 * HOUR_MS, HOUR_MS, "h"), (2 * MINUTE_MS, MINUTE_MS, "min"))
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
TENTH_MS = SECOND_MS // 10
TENTHS_UP_TO_MS = 10 * SECOND_MS  # of a run of less, a second more or less is a big part
RELATIVE_UP_TO_MS = 12 * HOUR_MS  # beyond, the hour of the day says more than "in 14 h"


def span(ms: float) -> str:
    """A duration in its one telling unit, rounded down: `24 s`, `5 min`, `19 h`, `3 d`."""
    for least, unit, word in _STEPS:
        if ms >= least:
            return f"{int(ms // unit)} {word}"
    return f"{max(0, int(ms // SECOND_MS))} s"


def ago(at: float | None, now: float) -> str:
    """`19 h ago`; `never` for no instant, `now` for one that is not over yet (two clocks differ)."""
    if at is None:
        return "never"
    return f"{span(now - at)} ago" if now - at >= SECOND_MS else "now"


def until(at: float, now: float, zone: tzinfo | None) -> str:
    """A coming instant: `in 5 h`, then `18:30` for later today, `tomorrow`, `in 3 d`; `now` if past."""
    left = at - now
    if left < SECOND_MS:
        return "now"
    if left <= RELATIVE_UP_TO_MS:
        return f"in {span(left)}"
    then = datetime.fromtimestamp(at / 1000, zone)
    days = (then.date() - datetime.fromtimestamp(now / 1000, zone).date()).days
    if days == 0:
        return f"{then:%H:%M}"
    return "tomorrow" if days == 1 else f"in {days} d"


def clock(at: float, now: float) -> str:
    """An instant to the minute in UTC: `06:00 UTC` today, `Tue 00:30 UTC` within a week, then with a date."""
    then, today = datetime.fromtimestamp(at / 1000, UTC), datetime.fromtimestamp(now / 1000, UTC)
    days = (then.date() - today.date()).days
    if days == 0:
        return f"{then:%H:%M} UTC"
    # %a would follow the locale
    day = WEEKDAYS[then.weekday()] if 0 < days < len(WEEKDAYS) else f"{then:%Y-%m-%d}"
    return f"{day} {then:%H:%M} UTC"


def stamp(at: float, zone: tzinfo | None) -> str:
    """An instant in full in a zone: `2026-11-23 06:00 CET`."""
    return f"{datetime.fromtimestamp(at / 1000, zone).astimezone(zone):%Y-%m-%d %H:%M %Z}"


def since(at: float, now: float, zone: tzinfo | None) -> str:
    """A past instant in a zone, as short as it can be: `07:10` today, `Tue 07:10` within a week, a date."""
    then, today = datetime.fromtimestamp(at / 1000, zone), datetime.fromtimestamp(now / 1000, zone)
    days = (today.date() - then.date()).days
    if days == 0:
        return f"{then:%H:%M}"
    return f"{WEEKDAYS[then.weekday()]} {then:%H:%M}" if 0 < days < len(WEEKDAYS) else f"{then:%Y-%m-%d}"


def took(ms: float) -> str:
    """How long something took, rounded down: `40 ms`, `1.4 s`, `12 s`, `5 min`."""
    if ms < SECOND_MS:
        return f"{int(ms)} ms"
    return f"{ms // TENTH_MS / 10:.1f} s" if ms < TENTHS_UP_TO_MS else span(ms)


def every(ms: float) -> str:
    """A setting's duration, exactly: `6 h`, `1 h 30 min`, `1 d 12 h`."""
    parts = []
    left = int(ms)
    for unit, word in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (SECOND_MS, "s")):
        count, left = divmod(left, unit)
        if count:
            parts.append(f"{count} {word}")
    return " ".join(parts) or "0 s"
