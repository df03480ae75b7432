"""Times of one zone told by the clock of another: which lines a crontab needs for them. Pure.

Debian's cron keeps the host's zone only. A row in another zone needs a line for each difference that the two
can have, and each line is started at some minutes that are none of the row's: what is started checks
(`--only-at`). No minute stands in two lines, or the job would run twice in one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache

from heartbeat_cli.firing import HOUR, MINUTE, Field, Times, is_skipped

YEARS = 2  # looked at, from this one on: the zones' rules of the next, and every change within a year
ANY_DAY = "* * *"
HOUR_MINUTES = 60
WEEK = 7
RUN = 3  # values in a row from which `a-b` is shorter than a list


def whens(times: Times, days: str, there: tzinfo, here: tzinfo, year: int) -> list[str] | None:
    """The five fields of each line that together are started at all these times of the zone `there`, by a
    cron that keeps `here`; None where the row's own fields mean the same here.

    `days` are the three day fields as they were written. Some lines may be started at other times as well.
    """
    found: dict[int, str] = {}  # minute of our day: its day fields
    own = {hour * HOUR_MINUTES + minute for hour in times.hours for minute in times.minutes}
    moved = repeated = False
    telling = _telling_days(there, here, year)
    for day in telling:
        for minute in own:
            for fold in (0, 1) if times.wildcard else (0,):
                wall = datetime(
                    day.year, day.month, day.day, *divmod(minute, HOUR_MINUTES), tzinfo=there, fold=fold
                )
                ours = wall.astimezone(here)
                at = ours.hour * HOUR_MINUTES + ours.minute
                shift = (ours.date() - day).days
                fields = _shifted(times, days, shift)
                found[at] = fields if found.get(at, fields) == fields else ANY_DAY
                moved |= at != minute or shift != 0
                repeated |= ours.fold == 1
    if not moved or (times.wildcard and days == ANY_DAY and set(found) == own):
        return None
    return _lines(found, wild=repeated or any(_skips(day, found, here) for day in telling))


def listed(values: Iterable[int], field: Field) -> str:
    """These values as a field: `*` for all of them, else a list with ranges."""
    left = sorted(set(values))
    if len(left) == field.high - field.low + 1:
        return "*"
    parts: list[str] = []
    while left:
        run = 1
        while run < len(left) and left[run] == left[0] + run:
            run += 1
        if run < RUN:
            run = 1
        parts.append(str(left[0]) if run == 1 else f"{left[0]}-{left[run - 1]}")
        left = left[run:]
    return ",".join(parts)


@lru_cache(maxsize=64)  # a fleet has a handful of zones
def _telling_days(there: tzinfo, here: tzinfo, year: int) -> list[date]:
    """A day for each way in which the two zones can go through one."""
    found: dict[tuple[timedelta | None, ...], date] = {}
    day = date(year, 1, 1)
    while day.year < year + YEARS:
        edges = [datetime(each.year, each.month, each.day, tzinfo=there) for each in (day, _after(day))]
        offsets = [edge.astimezone(zone).utcoffset() for edge in edges for zone in (there, here)]
        found.setdefault(tuple(offsets), day)
        day = _after(day)
    return list(found.values())


def _skips(day: date, minutes: Iterable[int], here: tzinfo) -> bool:
    """Whether our clock does not show one of these minutes on that day."""
    start = datetime(day.year, day.month, day.day)
    return any(is_skipped(start + timedelta(minutes=minute), here) for minute in minutes)


def _after(day: date) -> date:
    return day + timedelta(days=1)


def _shifted(times: Times, days: str, shift: int) -> str:
    """The day fields of a time that is `shift` days later here; any day where fields cannot say it."""
    if shift == 0:
        return days
    month_days, months, _ = days.split()
    if (month_days, months) != ("*", "*"):
        return ANY_DAY
    return f"* * {_weekdays((weekday + shift) % WEEK for weekday in times.weekdays)}"


def _weekdays(values: Iterable[int]) -> str:
    return listed(values, Field("day of week", 0, WEEK - 1))


def _lines(found: dict[int, str], *, wild: bool) -> list[str]:
    """As few lines as minutes, hours and days can be told in.

    `wild`: some stand in an hour that our clock repeats or skips. Cron starts what names fixed times in
    the first of two such hours only, and at another time for one that was skipped; where a field begins with
    a `*` it goes by the clock: `*/24` is the hour 0 and no other.
    """
    hours: dict[tuple[str, int], set[int]] = defaultdict(set)
    for at, fields in found.items():
        hours[ANY_DAY if wild else fields, at % HOUR_MINUTES].add(at // HOUR_MINUTES)
    minutes: dict[tuple[str, str], set[int]] = defaultdict(set)
    for (fields, minute), those in hours.items():
        text = listed(those, HOUR)
        if wild and text != "*":
            text = ",".join(filter(None, ["*/24", listed(those - {0}, HOUR)]))
        minutes[fields, text].add(minute)
    return [
        f"{listed(those, MINUTE)} {text} {fields}"
        for (fields, text), those in sorted(minutes.items(), key=lambda item: min(item[1]))
    ]
