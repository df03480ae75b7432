"""Whether what the databases hold follows from what happened. Pure: facts in, sentences about faults out.

Three questions: is each heartbeat there exactly once (`counted`), does each count as life only for when it
was sent (`dated`), and does every change of health follow from the heartbeats and the sweeps (`judged`)?
The rules are those of product.md, for intervals, written down here a second time and independently.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from torture.facts import Document, Facts, Life, Sent, Stored, Watched
from torture.plan import MINUTE_MS

AWAY_MS = 5 * MINUTE_MS  # a sweep whose predecessor is longer ago was away (rule 8)
HOLD_MS = 10 * MINUTE_MS  # for so long after it nobody is flipped to degraded
ON_ITS_WAY_S = 5.0  # real seconds after the end of a process: the delays of the proxy


def problems(facts: Facts) -> list[str]:
    """Everything that is wrong; empty when all is well."""
    return [*facts.troubles, *counted(facts), *dated(facts), *judged(facts)]


def summary(seed: int, number: int) -> str:
    """What the heartbeat of this send says, and no other."""
    return f"torture {seed}: heartbeat {number}"


# --- exactly once ---


def counted(facts: Facts) -> Iterator[str]:
    """What was accepted is there once, what was killed at most once, and nothing that nobody sent."""
    started = {summary(facts.plan.seed, sent.send.number): sent for sent in facts.sent}
    ids = Counter(row["heartbeatId"] for row in facts.heartbeats)
    yield from (f"the heartbeat id {one} is there {times} times" for one, times in ids.items() if times > 1)
    found: dict[str, list[Stored]] = defaultdict(list)
    for row in facts.heartbeats:
        found[row.get("summary") or ""].append(row)
    for words, rows in found.items():
        if len(rows) > 1:
            yield f"{words!r} is recorded {len(rows)} times: {[row['heartbeatId'] for row in rows]}"
        if words in started:
            yield from _as_sent(rows[0], started[words])
        else:
            yield f"{words!r} is recorded and was never sent"
    for words, sent in started.items():
        if sent.code == 0 and words not in found:
            yield f"{words!r} is lost: its send exited 0, saying {sent.answer} {sent.complaint!r}"


def _as_sent(row: Stored, sent: Sent) -> Iterator[str]:
    send, told = sent.send, (sent.answer or {}).get("data") or {}
    wanted = {"agent": send.agent, "status": send.status, "host": send.host}
    if told.get("heartbeatId"):
        wanted["heartbeatId"] = told["heartbeatId"]
    for name, value in wanted.items():
        if row.get(name) != value:
            yield f"heartbeat {send.number} has {name} {row.get(name)!r}, and was sent with {value!r}"


# --- its own time ---


def dated(facts: Facts) -> Iterator[str]:
    """A heartbeat counts for when it was sent, however late it comes and whoever's clock jumped."""
    started = {summary(facts.plan.seed, sent.send.number): sent for sent in facts.sent}
    for row in facts.heartbeats:
        sent = started.get(row.get("summary") or "")
        if sent is not None:
            for fault in _dated(facts, row, sent):
                yield f"heartbeat {sent.send.number} ({row['heartbeatId']}): {fault}"


def _dated(facts: Facts, row: Stored, sent: Sent) -> Iterator[str]:
    made, arrived = facts.tick_of(row["sentAt"]), facts.tick_of(row["receivedAt"])
    if not sent.life.first <= made <= sent.life.last:
        yield f"sent in tick {made}, but its process lived from {sent.life.first} to {sent.life.last}"
        return
    if row["sentAt"] != facts.ticks[made].host_ms[sent.send.host]:
        yield f"sentAt {row['sentAt']} is not what its host's clock showed in tick {made}"
    if row["receivedAt"] != facts.ticks[arrived].backend_ms:
        yield f"receivedAt {row['receivedAt']} is not what the backend's clock showed in tick {arrived}"
    # the age is reckoned by a clock that nobody sets, so that it tells the tick of the attempt
    tried = facts.tick_of(made + row["deliveredAt"] - row["sentAt"])
    age = facts.ticks[tried].true_ms - facts.ticks[made].true_ms
    if row["deliveredAt"] - row["sentAt"] != age or not made <= tried <= arrived:
        yield f"delivered at {row['deliveredAt']}, in no tick from {made} to {arrived}"
    elif not any(_delivers(facts, sent, life, tried, arrived) for life in facts.lives):
        yield f"delivered in tick {tried}, it says, and arrived in {arrived}: nobody was there to do that"
    if row["livenessAt"] != row["receivedAt"] - age:
        yield f"counts for {row['livenessAt']}, not for {row['receivedAt'] - age}, when it was sent"


def _delivers(facts: Facts, sent: Sent, life: Life, tried: int, arrived: int) -> bool:
    """Whether this process may have delivered it in that tick, so that it arrived in the other."""
    if life.host != sent.send.host or not life.first <= tried <= life.last:
        return False
    if life is sent.life and _cause(sent) == "refused":
        return arrived <= life.last  # whatever it had sent before was lost when nobody listened any more
    return facts.ticks[arrived].real_s <= life.ended_s + ON_ITS_WAY_S


def _cause(sent: Sent) -> str | None:
    """Why it was only spooled, if it was."""
    data = (sent.answer or {}).get("data") or {}
    return data["reason"].get("cause") if data.get("outcome") == "spooled" else None


# --- health ---


def judged(facts: Facts) -> Iterator[str]:
    """Each agent's flips and its health at the end follow from its heartbeats and the sweeps."""
    holds = Holds(facts)
    known = {one.agent.name for one in facts.watched}
    for row in (*facts.heartbeats, *facts.flips):
        if row["agent"] not in known:
            yield f"there is something of {row['agent']!r}, which was never registered"
    for one in facts.watched:
        judge = _Judge(facts, holds, one)
        yield from (f"{one.agent.name}: {fault}" for fault in judge.faults())


class Holds:
    """When nobody may be flipped, as far as is known: the sweep also runs by itself, nobody knows when."""

    def __init__(self, facts: Facts) -> None:
        self._clock = [tick.backend_ms for tick in facts.ticks]
        self._certain = [False] * len(self._clock)
        self._possible = [False] * len(self._clock)
        for before, after in pairwise([0, *facts.swept, len(self._clock) - 1]):
            self._may_follow(before, after)
        for last, first in facts.away:
            swept = [tick for tick in facts.swept if tick <= last]
            self._must_follow(swept[-1] if swept else 0, last, first)

    def is_certain(self, tick: int) -> bool:
        """The sweep was away until shortly before."""
        return self._certain[tick]

    def is_possible(self, tick: int) -> bool:
        """The sweep may have been away until shortly before."""
        return self._possible[tick]

    def _may_follow(self, before: int, after: int) -> None:
        """Between two sweeps that surely ran, one may have run in any tick, after one in any tick before."""
        lowest, holds = self._clock[before], []
        for now in self._clock[before + 1 : after + 1]:
            lowest = min(lowest, now)
            if now - lowest > AWAY_MS:
                holds.append(now)
        for tick in range(before, len(self._clock)):
            now = self._clock[tick]
            self._possible[tick] |= any(begins <= now < begins + HOLD_MS for begins in holds)

    def _must_follow(self, swept: int, last: int, first: int) -> None:
        """No process ran between two ticks: the hold begins when one might, or later."""
        clock = self._clock
        if clock[first] - clock[last] <= AWAY_MS:
            return
        for tick in range(first, len(clock)):
            if clock[tick] >= clock[first] + HOLD_MS or clock[tick] < clock[tick - 1]:
                return
            # where the clock was set back, what the sweep saw last may be later than it is now
            self._certain[tick] = clock[swept : tick + 1] == sorted(clock[swept : tick + 1])


class _Judge:
    """One agent's heartbeats and flips, gone through in the order in which they were stored."""

    def __init__(self, facts: Facts, holds: Holds, watched: Watched) -> None:
        self._facts, self._holds, self._watched = facts, holds, watched
        name = watched.agent.name
        self._heartbeats = [row for row in facts.heartbeats if row["agent"] == name]
        self._flips = [row for row in facts.flips if row["agent"] == name]
        self._row: Document = facts.liveness.get(name, {})
        self._health = "new"
        self._since = watched.since_ms
        self._newest: tuple[int, str] | None = None
        self._failing = False

    def faults(self) -> Iterator[str]:
        flips = list(self._flips)
        yield from _unconnected(flips)
        # what the sweep does between two heartbeats stands between them
        before_tick = 0
        for row, following in pairwise([*self._heartbeats, None]):
            assert row is not None
            if row is self._heartbeats[0]:
                yield from self._swept(
                    _taken(flips, row.number), before_tick, self._facts.tick_of(row["receivedAt"])
                )
            mine = _taken(flips, following.number if following else None)
            yield from self._heard(row, mine)
            before_tick = self._facts.tick_of(row["receivedAt"])
            after = self._facts.tick_of(following["receivedAt"]) if following else len(self._facts.ticks)
            yield from self._swept(mine, before_tick, after)
        if not self._heartbeats:
            yield from self._swept(flips, 0, len(self._facts.ticks))
        yield from self._at_last()

    # --- what a heartbeat does ---

    def _heard(self, row: Stored, flips: list[Stored]) -> Iterator[str]:
        """Takes from `flips` the one that the heartbeat is for, if any."""
        newest = (row["livenessAt"], row["heartbeatId"])
        if self._newest is not None and newest <= self._newest:
            return
        self._newest = newest
        self._failing = row["status"] == "error"
        now, tick = row["receivedAt"], self._facts.tick_of(row["receivedAt"])
        overdue = now >= self._degrade_at()
        if overdue and self._health == "degraded":
            return
        if overdue:
            wanted = self._flip("degraded", self._why(), self._degrade_at(), now)
            if flips and _same(flips[0], wanted):
                if self._holds.is_certain(tick):
                    yield f"flipped to degraded in tick {tick}, though the backend had just been away"
                self._turn(flips.pop(0))
                return
            if not self._holds.is_possible(tick):
                yield f"too old in tick {tick}, {row['heartbeatId']}: no {wanted}, but {_shown(flips)}"
        to = "failing" if self._failing else "ok"
        if to == self._health:
            return
        reason = "reported error" if self._failing else _OK_REASONS[self._health]
        wanted = self._flip(to, reason, row["livenessAt"], now)
        if flips and _same(flips[0], wanted):
            self._turn(flips.pop(0))
        else:
            yield f"heartbeat {row['heartbeatId']} in tick {tick}: no {wanted}, but {_shown(flips)}"
            self._health, self._since = to, max(row["livenessAt"], self._since)

    # --- what the sweep does ---

    def _swept(self, flips: list[Stored], after: int, before: int) -> Iterator[str]:
        """What is left in `flips` was the sweep's, between two ticks in which a heartbeat came."""
        degrade_at = self._degrade_at()
        for flip in flips:
            tick = self._facts.tick_of(flip["noticedAt"])
            wanted = self._flip("degraded", self._why(), degrade_at, flip["noticedAt"])
            if self._health == "degraded" or not _same(flip, wanted):
                yield f"nothing explains {_shown([flip])}; expected {wanted}"
            elif flip["noticedAt"] < degrade_at or not after <= tick <= before:
                yield f"too early or late: {_shown([flip])}, in tick {tick}, from {after} to {before}"
            elif self._facts.ticks[tick].backend_ms != flip["noticedAt"]:
                yield f"noticed when no clock showed it: {_shown([flip])}"
            elif self._holds.is_certain(tick):
                yield f"flipped to degraded in tick {tick}, though the backend had just been away"
            self._turn(flip)
        if self._health == "degraded":
            return
        for tick in self._facts.swept:
            overdue = self._facts.ticks[tick].backend_ms >= degrade_at
            if after < tick < before and overdue and not self._holds.is_possible(tick):
                yield f"still {self._health} after the sweep of tick {tick}: degraded since {degrade_at}"
                return

    def _at_last(self) -> Iterator[str]:
        row = self._row
        wanted = {"health": self._health, "lastHeartbeatAt": self._newest and self._newest[0]}
        wanted["lastHeartbeatId"] = self._newest and self._newest[1]
        for name, value in wanted.items():
            if row.get(name) != value:
                yield f"{name} is {row.get(name)!r}, and {value!r} follows from its heartbeats"

    # --- the rules ---

    def _degrade_at(self) -> int:
        """The `misses`-th expected instant after the last heartbeat, or after registration; and the grace."""
        agent, since = self._watched.agent, self._watched.since_ms
        every = agent.every_minutes * MINUTE_MS
        due = since + every
        if self._newest is not None:
            due = self._newest[0] + every
            if due <= since:  # sent before anybody watched
                due += ((since - due) // every + 1) * every
        return due + (agent.misses - 1) * every + agent.grace_minutes * MINUTE_MS

    def _why(self) -> str:
        if self._newest is None:
            return "never reported"
        misses = self._watched.agent.misses
        return f"{misses} expected {'run' if misses == 1 else 'runs'} missed"

    def _flip(self, to: str, reason: str, became_at: int, noticed_at: int) -> dict[str, object]:
        flip: dict[str, object] = {"from": self._health, "to": to, "reason": reason}
        flip |= {"becameAt": max(became_at, self._since), "noticedAt": noticed_at}
        if to == "degraded":
            flip["silentSince"] = max(self._watched.since_ms, self._newest[0] if self._newest else 0)
        return flip

    def _turn(self, flip: Stored) -> None:
        self._health, self._since = flip["to"], flip["becameAt"]


_OK_REASONS = {"new": "first report", "failing": "recovered", "degraded": "reported again"}


def _taken(flips: list[Stored], until: int | None) -> list[Stored]:
    """Takes the flips that were stored before this number."""
    taken = [flip for flip in flips if until is None or flip.number < until]
    del flips[: len(taken)]
    return taken


def _unconnected(flips: list[Stored]) -> Iterator[str]:
    for one, following in pairwise(flips):
        if one["to"] != following["from"] or one["becameAt"] > following["becameAt"]:
            yield f"{_shown([one])} is followed by {_shown([following])}"


def _same(flip: Stored, wanted: Document) -> bool:
    return all(flip.get(name) == value for name, value in wanted.items())


def _shown(flips: list[Stored]) -> str:
    if not flips:
        return "no flip"
    return str({name: value for name, value in flips[0].document.items() if not name.startswith("_")})
