"""Whether a crontab line is meant for this minute, and the wait before it begins; loads little."""

from __future__ import annotations

import time
from collections.abc import Callable


def is_meant_now(only_at: str, zone: str | None, say: Callable[[str], None]) -> bool:
    """Whether the schedule `only_at` fires in this minute; the zone None is UTC.

    What cannot be judged (a zone that is gone from this host, say) is said, and counts as meant: better once
    too often.
    """
    from heartbeat_cli.firing import is_fire  # noqa: PLC0415 - those crontab lines only

    try:
        return is_fire(only_at, zone or "UTC", time.time_ns() // 1_000_000)
    except ValueError as problem:
        say(f"heartbeat: --only-at cannot be judged, so this goes on: {problem}")
        return True


def wait_at_random(most_s: float) -> None:
    """Wait for up to so many seconds: a fleet whose crontabs fire together does not begin together."""
    from heartbeat_cli.firing import delay_s  # noqa: PLC0415 - as above

    time.sleep(delay_s(most_s, ""))
