"""An end of a move that is away for a while: waited for, for so long, and asked for less."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from heartbeat_cli.client import Connection
from heartbeat_cli.errors import Cause, Unreachable
from heartbeat_cli.move_ends import FAILURES, OBJECTS_BEFORE_GC, PATIENCE_S, Patient
from moves import Clock, Silent, end


def patient(told: Silent, clock: Clock) -> Patient:
    return Patient(end("http://there"), 200, told, clock, clock.sleep)


def failing(*causes: Cause | None) -> Callable[[Connection, int], str]:
    """Fails by each of these in turn, and by the last for ever."""
    left = list(causes)

    def call(caller: Connection, size: int) -> str:
        cause = left.pop(0) if len(left) > 1 else left[0]
        if cause is None:
            return "answer"
        raise Unreachable(f"it is {cause}", cause=cause, hint="look")

    return call


def test_an_end_that_answered_before_is_waited_for_and_asked_for_less() -> None:
    told, clock = Silent(), Clock()
    one = patient(told, clock)
    assert one.ask(failing(None)) == "answer" and one.size == 200
    assert one.ask(failing("refused", "timeout", "cut", None)) == "answer" and one.size == 12
    assert len(told.notes) == 3 and told.notes[0] == f"it is refused; trying again, for {PATIENCE_S:.0f} s"
    # then more again
    sizes = []
    for _ in range(5):
        one.ask(failing(None))
        sizes.append(one.size)
    assert sizes == [24, 48, 96, 192, 200]


@pytest.mark.parametrize("cause", ["refused", "timeout"])
def test_it_is_waited_for_so_long_and_then_told_how_to_go_on(cause: Cause) -> None:
    told, clock = Silent(), Clock()
    one = patient(told, clock)
    one.ask(failing(None))
    with pytest.raises(Unreachable) as gone:
        one.ask(failing(cause))
    assert PATIENCE_S <= clock.now <= PATIENCE_S + 10
    assert gone.value.hint == "look; then type the same again: it goes on where it was"


def test_what_does_not_pass_and_what_never_answered_is_told_at_once() -> None:
    told, clock = Silent(), Clock()
    never = patient(told, clock)
    with pytest.raises(Unreachable) as gone:
        never.ask(failing("refused"))
    assert gone.value.hint == "look"
    one = patient(told, clock)
    one.ask(failing(None))
    with pytest.raises(Unreachable):
        one.ask(failing("function_missing"))
    assert clock.now == 0 and told.notes == []
    # functions that fail whatever they are asked for fail at once, in the end
    with pytest.raises(Unreachable):
        one.ask(failing("server_error"))
    assert len(told.notes) == FAILURES - 1 and one.size == 1 and clock.now < PATIENCE_S


def test_what_it_asks_of_the_collector_of_garbage_ends_with_its_connection() -> None:
    one, before = patient(Silent(), Clock()), gc.get_threshold()
    gc.set_threshold(100_000)
    try:
        one.ask(failing(None))
        assert gc.get_threshold()[0] == OBJECTS_BEFORE_GC
        one.close()
        assert gc.get_threshold()[0] == 100_000
    finally:
        gc.set_threshold(*before)
