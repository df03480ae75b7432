"""Delivering what waits in the spool: oldest first, in batches, to the deployment it was meant for.

    probe ──no answer──▶ the deployment is away: nothing else is tried, no entry is blamed
      │ answers, and tells what it knows
      ▼
    batch ──each item──▶ recorded, duplicate: removed │ refused for good: aside │ else: put off
      ├──fails as a whole──▶ its halves, down to single heartbeats; one that fails alone is put off, and
      │                      after a second of its agent all of that agent
      └──no answer──▶ its entries are put off (the first time for nothing), and this is the end; the next
                      time they go in smaller batches

What may be delivered: entries sent with the token that is used now, and those of an older token for whose
agents this one may send (the deployment says which are older, and whose agents they are).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from heartbeat_cli import contract
from heartbeat_cli.clock import Moment
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Entry, Trouble, count

RECORD = "mutations/recordHeartbeat"
BATCH = 100  # what mutations/recordHeartbeats takes
AGENT_FAILURES = 2  # of single heartbeats: then it is what the functions make of the agent, not the heartbeat
AGENTS_IN_A_ROW = 3  # whose heartbeats fail: then it is the functions, whoever reports
SMALLER_BY = 4  # each time a call with it was not answered
REASON_CHARS = 200  # kept of an error: it stands beside each of thousands of heartbeats
FREE_OF_BLAME = 1  # tries that got no answer: the first time it is hardly the heartbeat that is at fault
TOKENS_ASKED_FOR = 100  # what queries/getToken takes
DONE = frozenset({"recorded", "duplicate"})
FOR_GOOD = frozenset({"invalid", "unknown_agent", "conflict"})  # trying again changes nothing
UNAUTHORIZED, SLOW_DOWN = "unauthorized", "slow_down"
MAY_SEND = frozenset({"send", "admin"})
# A deployment that answers so is there: the function failed, or there is none
_ANSWERED = frozenset({"function_missing", "server_error"})


class Caller(Protocol):
    """The part of a connection that sending and delivering need."""

    def query(self, path: str, body_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `client.Connection` has it."""

    def mutation(self, path: str, body_name: str, body: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """As `client.Connection` has it; `body` makes what one attempt sends."""


def answered(error: HeartbeatError) -> bool:
    """Whether the deployment itself said this; otherwise nobody knows what it made of the call."""
    return isinstance(error, Refused) or (
        isinstance(error, Unreachable) and error.cause in _ANSWERED and not error.maybe_done
    )


def trouble(error: HeartbeatError) -> Trouble:
    """What the spool keeps of an error."""
    code, reason = getattr(error, "cause", error.code), str(error)[:REASON_CHARS]
    if not isinstance(error, Refused):
        return Trouble(code, reason, free=0 if answered(error) else FREE_OF_BLAME)
    least = error.data.get("retryAfterMs")
    return Trouble(code, reason, least_ms=least if isinstance(least, int) and least > 0 else 0)


def done(answer: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """An answer that says so; anything else is that of functions we do not know, as an `Unreachable`."""
    if answer.get("outcome") not in DONE:
        raise Unreachable(f"{path} answered something else than that it is recorded", cause="server_error")
    return answer


def _agent_of(entry: Entry) -> dict[str, str]:
    return {"deployment": entry.deployment, "agent": entry.agent}


def _parts(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """In their order, so many in a call as may be: fewer of those that were in one that was not answered."""
    part: list[Entry] = []
    for entry in entries:
        room = max(1, BATCH // SMALLER_BY**entry.tries)
        if part and (len(part) >= room or part[0].tries != entry.tries):
            yield part
            part = []
        part.append(entry)
    if part:
        yield part


@dataclass(slots=True)
class Delivery:
    """Delivers what waits for one deployment; `recorded`, `duplicates` and `aside` count what became of it,
    `reached` says whether anybody answered.

    The caller holds the spool's lock. `fingerprint`: of the token that `caller` sends with. `may_go_on` is
    asked before each call. `but`: the id of an entry to leave alone.
    """

    spool: Spool
    deployment: str
    fingerprint: str
    caller: Caller
    now: Callable[[], Moment]
    may_go_on: Callable[[], bool]
    but: str | None = None
    recorded: int = 0
    duplicates: int = 0
    aside: int = 0
    reached: bool = False
    known: object = None  # the version of the contract that the deployment states
    _batches: bool = False
    _failures: Counter[str] = field(default_factory=Counter)
    _failing: set[str] = field(default_factory=set)  # agents, since the last that did not
    _put_off: set[frozenset[tuple[str, str]]] = field(default_factory=set)

    @property
    def delivered(self) -> int:
        """How many heartbeats the deployment has by now that it may not have had before."""
        return self.recorded + self.duplicates

    def run(self) -> None:
        """Deliver until nothing is due, or there is no time left.

        Raises `Unreachable` or `Refused` when nothing more can be delivered now; what was done is done.
        """
        if not self.spool.fingerprints(self.deployment, self._ms(), but=self.but):
            return
        self._probe()
        tokens = self._tokens()
        number = 0
        while due := self.spool.due(self.deployment, list(tokens), self._ms(), after=number, limit=BATCH):
            number = due[-1].number
            agents = ((entry, tokens[entry.fingerprint]) for entry in due if entry.heartbeat_id != self.but)
            mine = [entry for entry, own in agents if own is None or entry.agent in own]
            if not all(self._deliver(part) for part in _parts(mine)):
                return

    def odd(self, where: str) -> list[str]:
        """What people should know of the deployment, whose address is `where`."""
        return contract.notes(self.known, where)

    def told(self, where: str) -> list[str]:
        """What people should know of it; `where` is the address of the deployment."""
        done = f"delivered {count(self.delivered)} that had waited"
        aside = f"{count(self.aside)} that had waited: refused, set aside (heartbeat spool list)"
        return self.odd(where) + [done] * (self.delivered > 0) + [aside] * (self.aside > 0)

    def failed(self, entry: Entry, error: HeartbeatError) -> None:
        """A call with this one heartbeat failed: keep what that means for it, and for those like it."""
        problem = trouble(error)
        if isinstance(error, Refused) and problem.code in FOR_GOOD:
            self.spool.set_aside(entry.heartbeat_id, problem)
            self.aside += 1
            return
        alike = _agent_of(entry)
        if problem.code == UNAUTHORIZED:
            alike["fingerprint"] = entry.fingerprint
        elif problem.code != SLOW_DOWN:
            alike = {"heartbeat_id": entry.heartbeat_id}
        self._all_put_off(alike, problem)

    def _all_put_off(self, alike: Mapping[str, str], problem: Trouble) -> None:
        """Once in this delivery, however many of them were refused together."""
        if frozenset(alike.items()) not in self._put_off:
            self._put_off.add(frozenset(alike.items()))
            self.spool.put_off(alike, problem, self._ms())

    def _is_put_off(self, entry: Entry) -> bool:
        return any(all(getattr(entry, name) == value for name, value in one) for one in self._put_off)

    def _ms(self) -> int:
        return self.now().wall_ms

    def _probe(self) -> None:
        """Is it there, does it take our token, what does it know? Raises what is the matter."""
        known = 1
        try:
            status = self.caller.query("queries/getMonitorStatus", "request", {})
            known = status.get("contractVersion", known)
        except Refused as refused:
            mine = {"deployment": self.deployment, "fingerprint": self.fingerprint}
            self.spool.put_off(mine, trouble(refused), self._ms())
            raise
        except Unreachable as unreachable:
            if not answered(unreachable):
                raise
        self.reached = True
        self._batches = isinstance(known, int) and known >= contract.BATCHES_SINCE
        self.known = known

    def _tokens(self) -> dict[str, frozenset[str] | None]:
        """Of which tokens entries may be delivered, and for which agents; None is all."""
        mine: dict[str, frozenset[str] | None] = {self.fingerprint: None}
        others = [
            print_
            for print_ in self.spool.fingerprints(self.deployment, self._ms())
            if print_ != self.fingerprint
        ]
        if not others:
            return mine
        for print_ in others:
            waits = Trouble("other_token", f"waits for the token {print_}, or a newer one for its agent")
            self.spool.explain({"deployment": self.deployment, "fingerprint": print_}, waits)
        try:
            body = {"fingerprints": others[:TOKENS_ASKED_FOR]}
            token = self.caller.query("queries/getToken", "request", body)
        except (Refused, Unreachable) as error:
            if answered(error):
                return mine
            raise
        if token.get("scope") not in MAY_SEND:
            return mine
        agents = token.get("agents")
        older = {str(print_) for print_ in token.get("older", ())}.intersection(others)
        return mine | dict.fromkeys(older, None if agents is None else frozenset(map(str, agents)))

    def _deliver(self, entries: Sequence[Entry]) -> bool:
        """Deliver these. False when there is no time left."""
        entries = [entry for entry in entries if not self._is_put_off(entry)]
        if not entries:
            return True
        if not self.may_go_on():
            return False
        if len(entries) > 1 and self._batches:
            try:
                self._batch(entries)
            except Unreachable as error:
                if not answered(error):
                    for entry in entries:
                        self.failed(entry, error)
                    raise
            else:
                return True
        if len(entries) == 1:
            self._single(entries[0])
            return True
        middle = len(entries) // 2
        return self._deliver(entries[:middle]) and self._deliver(entries[middle:])

    def _batch(self, entries: Sequence[Entry]) -> None:
        answer = self.caller.mutation(
            "mutations/recordHeartbeats",
            "batch",
            lambda: {"heartbeats": [entry.wire(self.now()) for entry in entries]},
        )
        results = answer.get("results", ())
        self._remove(
            {
                entry.heartbeat_id: result
                for entry, result in zip(entries, results, strict=False)
                if result.get("outcome") in DONE
            }
        )
        for entry, result in zip(entries, results, strict=False):
            if result.get("outcome") == "refused":
                refusal = Refused(str(result.get("message")), code=result.get("code"), data=result)
                self.failed(entry, refusal)

    def _single(self, entry: Entry) -> None:
        try:
            answer = done(self.caller.mutation(RECORD, "heartbeat", lambda: entry.wire(self.now())), RECORD)
        except Refused as refused:
            self.failed(entry, refused)
        except Unreachable as error:
            self.failed(entry, error)
            self._failing.add(entry.agent)
            if not answered(error) or len(self._failing) >= AGENTS_IN_A_ROW:
                raise
            self._failures[entry.agent] += 1
            if self._failures[entry.agent] >= AGENT_FAILURES:
                self._all_put_off(_agent_of(entry), trouble(error))
        else:
            self._failing.clear()
            self._remove({entry.heartbeat_id: answer})

    def _remove(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        self.spool.remove(answers, self._ms())
        again = sum(answer["outcome"] == "duplicate" for answer in answers.values())
        self.duplicates += again
        self.recorded += len(answers) - again
