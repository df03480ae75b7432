"""Whether this minute is one at which a schedule fires, and how long to wait before starting. Light and pure.

Which fires an agent owes is the backend's to compute. This is for the moment in which cron has started a
line that is for several clocks: where the zone of a row is not the zone of cron, one line stands in the
crontab for each difference that the two can have, and all but one of them must do nothing.

The rules are those of Debian's cron (crontab(5), cron(8)), as in cron.ts of the functions: a time that a
repeated hour has twice fires the first time; one that a skipped hour lacks fires as if the clock had not been
changed, which is within the hour after it. Where the minute or hour field begins with `*` it is plain wall
clock.
"""

from __future__ import annotations

import os
import zlib
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

MINUTE_MS = 60_000
LONGEST_GAP = timedelta(hours=3)  # a clock that skips more was set anew, which is no daylight saving
SUNDAY = 7  # the other way to write 0
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Field(NamedTuple):
    """One of the five fields: what it is called, its least and greatest value, the names of its values."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY = Field("day of month", 1, 31)
MONTH = Field("month", 1, 12, MONTHS)
WEEKDAY = Field("day of week", 0, SUNDAY, WEEKDAYS)
FIELDS = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)


class Times(NamedTuple):
    """What the five fields mean: the values of each (Sunday is 0), ascending.

    `either_day`: neither day field begins with `*`, so that one that matches is enough. `wildcard`: the
    minute or the hour field begins with `*`.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool
    wildcard: bool

    def at(self, wall: datetime) -> bool:
        """Whether a clock that shows this is at one of these times; seconds are not looked at."""
        day, weekday = wall.day in self.days, wall.isoweekday() % SUNDAY in self.weekdays
        return (
            wall.minute in self.minutes
            and wall.hour in self.hours
            and wall.month in self.months
            and (day or weekday if self.either_day else day and weekday)
        )


def parse(expression: str) -> Times:
    """The five fields of crontab(5). Raises ValueError with one sentence."""
    texts = expression.split()
    if len(texts) != len(FIELDS):
        raise ValueError(f"expected the five fields of a cron expression, found {len(texts)}")
    minutes, hours, days, months, weekdays = (
        _values(text, field) for text, field in zip(texts, FIELDS, strict=True)
    )
    return Times(
        minutes,
        hours,
        days,
        months,
        tuple(sorted({weekday % SUNDAY for weekday in weekdays})),
        either_day=not texts[2].startswith("*") and not texts[4].startswith("*"),
        wildcard=texts[0].startswith("*") or texts[1].startswith("*"),
    )


def zone_of(name: str) -> tzinfo:
    """The time zone of that IANA name. Raises ValueError with one sentence."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most hosts need no zone

    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # not there, a folder, no name of a file at all
        raise ValueError(f"the time zone '{name}' is not one that this host knows") from None


def is_fire(expression: str, zone: str, now_ms: int) -> bool:
    """Whether the minute of an instant (epoch milliseconds) is a fire of the expression in that time zone.

    Raises ValueError, with one sentence, for what is no expression or no zone.
    """
    times, there = parse(expression), zone_of(zone)
    instant = datetime.fromtimestamp(now_ms // MINUTE_MS * 60, UTC)
    wall = instant.astimezone(there)
    if times.at(wall):
        return times.wildcard or not wall.fold
    if times.wildcard:
        return False
    as_before = (instant + _offset(instant - LONGEST_GAP, there)).replace(tzinfo=None)
    return times.at(as_before) and is_skipped(as_before, there)


def delay_s(most_s: float, seed: str = "") -> float:
    """Seconds to wait before starting, from 0 to `most_s`: always the same for one seed, any without one."""
    drawn = zlib.crc32(seed.encode("utf-8", "surrogateescape")) if seed else int.from_bytes(os.urandom(4))
    return most_s * drawn / 2**32


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def is_skipped(wall: datetime, zone: tzinfo) -> bool:
    """Whether the zone's clock never shows this, because it was set on then. `wall` has no zone."""
    back = wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return back.replace(tzinfo=None) != wall


def _values(text: str, field: Field) -> tuple[int, ...]:
    found: set[int] = set()
    for item in text.split(","):
        span, slash, step_text = item.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = field.low, field.high
        else:
            low = _value(first, field, text)
            high = _value(last, field, text) if dash else low
        step = int(step_text) if step_text.isascii() and step_text.isdigit() else 0
        if low > high or (slash and (not step or not (dash or span == "*"))):
            raise _no_field(text, field)
        found.update(range(low, high + 1, step or 1))
    return tuple(sorted(found))


def _value(text: str, field: Field, whole: str) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not field.low <= value <= field.high:
        raise _no_field(whole, field)
    return value


def _no_field(text: str, field: Field) -> ValueError:
    return ValueError(
        f"the {field.name} field '{text}' cannot be read: expected *, a, a-b, */n or a-b/n,"
        f" from {field.low} to {field.high}"
    )
