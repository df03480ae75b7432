from __future__ import annotations

import os
import threading

import pytest

from heartbeat_cli.client import (
    Deadline,
)
from heartbeat_cli.deadline import Late, within


def test_work_that_is_done_in_time_returns_or_raises_and_work_that_is_not_is_late() -> None:
    never = threading.Event()

    assert within(5, lambda: 42) == 42
    with pytest.raises(KeyError):
        within(5, lambda: os.environ["NO_SUCH_VARIABLE"])
    with pytest.raises(Late):
        within(0.05, never.wait)


def test_a_deadline_counts_down_by_its_clock() -> None:
    now = [100.0]
    deadline = Deadline(10, clock=lambda: now[0])

    assert deadline.left() == 10
    now[0] = 110.5
    assert deadline.left() == -0.5
