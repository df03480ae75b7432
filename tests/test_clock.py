"""How old a heartbeat is: by the clock that cannot be set, as long as the host was not started anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from heartbeat_cli import clock
from heartbeat_cli.clock import Moment, elapsed_ms

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("since", "until", "elapsed"),
    [
        (Moment(1_000, "a", 500), Moment(3_000, "a", 2_500), 2_000),
        (Moment(1_000, "a", 500), Moment(5 * HOUR, "a", 2_500), 2_000),  # the clock was put forward
        (Moment(5 * HOUR, "a", 500), Moment(1_000, "a", 2_500), 2_000),  # and back: it is no younger for it
        (Moment(1_000, "a", 9_000), Moment(3_000, "b", 10), 2_000),  # started anew in between
        (Moment(1_000), Moment(3_000), 2_000),  # a host that tells nothing of its boot
        (Moment(3_000), Moment(1_000), 0),
        (Moment(3_000, "a", 10), Moment(1_000, "b", 99), 0),
    ],
)
def test_what_has_passed_is_told_by_the_better_clock(since: Moment, until: Moment, elapsed: int) -> None:
    assert elapsed_ms(since, until) == elapsed


def test_both_clocks_of_this_host_go_on() -> None:
    first = clock.now()
    time.sleep(0.02)
    second = clock.now()
    assert abs(first.wall_ms - time.time() * 1000) < 60_000
    assert first.boot == second.boot and 20 <= elapsed_ms(first, second) < 60_000


@pytest.mark.skipif(not clock.BOOT_ID.exists(), reason="only Linux tells which boot it is")
def test_another_process_reads_the_same_clocks() -> None:
    script = "from heartbeat_cli import clock; now = clock.now(); print(now.wall_ms, now.boot, now.boot_ms)"
    before = clock.now()
    done = subprocess.run(
        [sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    wall_ms, boot, boot_ms = done.stdout.split()
    then = Moment(int(wall_ms), boot, int(boot_ms))
    assert then.boot == before.boot and 0 <= elapsed_ms(before, then) < 60_000
