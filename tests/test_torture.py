"""Nothing lost, nothing doubled, whatever is killed, cut, filled up or set wrong: the torture test.

    make torture                        the long form, with a new seed
    make torture TORTURE_SEED=12345     the same plan again

A seed replays the plan of faults and sends (torture/plan.py), not the operating system's scheduling: what a
seed found may need a few runs to be found again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest

from torture import plan as plans
from torture.facts import Facts, Stored
from torture.oracle import problems
from torture.world import World

# The same each time, so that `make test` is the same each time. In little time this plan has every fate of a
# connection, a long absence and short ones, sends to a full disk, and enough kills that come before the end
# of a process also on a quick machine, enough sends that meet no full disk also on a busy one
SHORT_SEED = 20270
SHOWN = 40  # problems; more have one cause
LINE = 400  # characters of one of them


def _seed(usual: int) -> int:
    return int(os.environ.get("TORTURE_SEED") or usual)


def _run(folder: Path, bundle: Path, seed: int, size: plans.Size) -> Facts:
    print(f"\ntorture: TORTURE_SEED={seed}")
    facts = World(folder, bundle, plans.plan(seed, size)).run()
    print("\n".join(f"{count:>8,} {what}" for what, count in sorted(facts.done.items())))
    found = problems(facts)
    assert not found, "\n".join(
        [f"TORTURE_SEED={seed}: {len(found)} problems", *(one[:LINE] for one in found[:SHOWN])]
    )
    return facts


def test_a_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert plans.plan(1, plans.LONG) == plans.plan(1, plans.LONG) != plans.plan(2, plans.LONG)
    assert plans.plan(1, plans.LONG).fate(7) == plans.plan(1, plans.LONG).fate(7)


def test_what_was_accepted_is_there_once_after_kills_cuts_full_disks_and_jumping_clocks(
    tmp_path: Path, bundle: Path
) -> None:
    facts = _run(tmp_path, bundle, _seed(SHORT_SEED), plans.SHORT)
    done = facts.done
    assert done["sender kills"] + done["backend kills"] + done["deliver kills"] >= 6
    assert done["exited 0"] >= 12 and done["spooled"] and done["flips"]
    # the judge itself: it notices each of these
    for name, spoil in SPOILT.items():
        assert problems(spoil(facts)), f"nobody noticed: {name}"


@pytest.mark.long
def test_two_thousand_heartbeats_and_two_hundred_kills(tmp_path: Path, bundle: Path) -> None:
    facts = _run(tmp_path, bundle, _seed(secrets.randbelow(2**31)), plans.LONG)
    done = facts.done
    assert done["sent"] >= 2_000
    assert done["sender kills"] + done["backend kills"] + done["deliver kills"] >= 200


def _with(
    facts: Facts, *, heartbeats: list[Stored] | None = None, flips: list[Stored] | None = None
) -> Facts:
    spoilt = copy(facts)
    spoilt.heartbeats = facts.heartbeats if heartbeats is None else heartbeats
    spoilt.flips = facts.flips if flips is None else flips
    return spoilt


def _changed(rows: list[Stored], number: int, **changes: object) -> list[Stored]:
    row = Stored(rows[number].number, {**rows[number].document, **changes})
    return [*rows[:number], row, *rows[number:][1:]]


def _accepted(facts: Facts) -> int:
    """The place of a heartbeat whose sender was told that all is well."""
    told = {(sent.answer or {}).get("data", {}).get("heartbeatId") for sent in facts.sent if sent.code == 0}
    return next(place for place, row in enumerate(facts.heartbeats) if row["heartbeatId"] in told)


def _lost(facts: Facts) -> Facts:
    rows, place = facts.heartbeats, _accepted(facts)
    return _with(facts, heartbeats=rows[:place] + rows[place + 1 :])


def _sent_again(facts: Facts) -> Facts:
    again = _changed(facts.heartbeats, 0, heartbeatId="another")[0]
    return _with(facts, heartbeats=[*facts.heartbeats, again])


def _never_sent(facts: Facts) -> Facts:
    return _with(facts, heartbeats=_changed(facts.heartbeats, 0, summary="nobody said so"))


def _altered(facts: Facts) -> Facts:
    return _with(facts, heartbeats=_changed(facts.heartbeats, 0, host="elsewhere"))


def _younger(facts: Facts) -> Facts:
    liveness = facts.heartbeats[0]["livenessAt"] + 1
    return _with(facts, heartbeats=_changed(facts.heartbeats, 0, livenessAt=liveness))


def _flip_lost(facts: Facts) -> Facts:
    return _with(facts, flips=facts.flips[:-1])


def _flip_made_up(facts: Facts) -> Facts:
    last = facts.flips[-1]
    made_up = Stored(
        last.number + 1, {**last.document, "from": last["to"], "to": "degraded", "reason": "overrunning"}
    )
    return _with(facts, flips=[*facts.flips, made_up])


def _flip_moved(facts: Facts) -> Facts:
    moved = facts.flips[-1]["becameAt"] + 1
    return _with(facts, flips=_changed(facts.flips, len(facts.flips) - 1, becameAt=moved))


def _alive_for_ever(facts: Facts) -> Facts:
    """The row says that an agent is alive which has been silent."""
    spoilt = copy(facts)
    name, row = next((name, row) for name, row in facts.liveness.items() if row["health"] == "degraded")
    spoilt.liveness = {**facts.liveness, name: {**row, "health": "ok"}}
    return spoilt


SPOILT: dict[str, Callable[[Facts], Facts]] = {
    "a lost heartbeat": _lost,
    "one recorded under two ids": _sent_again,
    "one that nobody sent": _never_sent,
    "one of another host": _altered,
    "one that counts as younger than it is": _younger,
    "a flip that is missing": _flip_lost,
    "a flip that nothing explains": _flip_made_up,
    "a flip at another instant": _flip_moved,
    "a silent agent that is not degraded": _alive_for_ever,
}
