"""Durations as people type them, in a table and after a flag; loads nothing that takes time."""

from __future__ import annotations

import re

UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_UNIT_WORDS = {
    "d": r"d(?:ays?)?",
    "h": r"h(?:ours?)?",
    "m": r"m(?:in(?:utes?)?)?",
    "s": r"s(?:ec(?:onds?)?)?",
}
_DURATION = re.compile(
    r"\s*".join(rf"(?:(?P<{unit}>\d{{1,6}})\s*{words})?" for unit, words in _UNIT_WORDS.items())
)


def duration_ms(text: str) -> int | None:
    """`6h`, `90m`, `1d`, `2h30m`, `45 s` in milliseconds; None for anything else, and for nothing at all."""
    # One blank at most, each time: the pattern would try every way to share a thousand of them out
    found = _DURATION.fullmatch(" ".join(text.split()).lower())
    if not found:
        return None
    return sum(int(found[unit]) * ms for unit, ms in UNIT_MS.items() if found[unit]) or None


def duration_text(ms: int) -> str:
    """The reverse of `duration_ms`: `6h`, `1h30m`."""
    parts = []
    for unit, size in UNIT_MS.items():
        count, ms = divmod(ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
