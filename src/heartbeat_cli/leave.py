"""Leaving a deployment: what `heartbeat uninstall` does, in which order, and what a kill leaves.

    crontab ──▶ spool ──▶ deployment: stop, links, cards, (empty) ──▶ app ──▶ own token
                                                     local backend ◀── kept token ◀──┘

Typed again at any time it does what is still to be done; what is done already changes nothing. Why in this
order, and what stands where it is killed:

    crontab      First, so that no job begins to report any more. One write: the crontab of before or after.
    spool        While the token still works. What is refused stays, and nothing of it is deleted; where it
                 could still be delivered, only later, nothing more is done.
    stop         The sweep rests, every other token ends: no other host brings a card back. Each call of this
                 and the next steps is one transaction (convex/heartbeat/model/leave.ts); again from `stop`.
    links        From here on no heartbeat writes a card, whoever sends it.
    cards        `heartbeat` is unset in each of the team's agents.
    empty        Only if asked for.
    app          After the cards: Convex refuses a schema without the field `heartbeat` while one is there.
                 What a kill leaves of this says adopt_manifest.py. The functions that run are those of the
                 last push: they still answer.
    own token    After the app: a token that is good says that we have not ended; one that is not says nothing
                 about who ended it, and then no file of the app is touched. One call; where its answer is
                 lost the token is not accepted any more, and nothing else is left to be done.
    kept token   Its entry in tokens.toml. `left.json` remembers that our tables were emptied, only to say so
                 to whoever types it again: somebody may have come back.
    local        Last: where it is the deployment, nothing could be asked of it any more.

Where the deployment is away, or our token may not do this, the app keeps our functions: this host's half is
done, and the rest is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from heartbeat_cli import private_files
from heartbeat_cli.client import UNAUTHORIZED, Connection
from heartbeat_cli.connect import PROBED
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable
from heartbeat_cli.move_ends import End, Patient, Told
from heartbeat_cli.tokens import ADMIN, fingerprint

MOST = 500  # rows of one call: as many as the functions take
STEP = "mutations/leave"
FILE = "left.json"

State = Literal["ready", "gone", "lesser", "refused", "no token", "away"]
"""Of a deployment: it can be left now; our functions are not there; our token may not; it is not accepted;
there is none; it does not answer.
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with leaving a deployment. `others`: the tokens that end besides ours, by their names."""

    state: State
    scope: str | None = None
    others: tuple[str, ...] = ()
    problem: HeartbeatError | None = None


def look(end: End, token: str, told: Told) -> Standing:
    """Ask the deployment what may be done there; changes nothing."""
    patient = Patient(end, 1, told)
    try:
        scope = patient.ask(lambda there, _: there.query("queries/getToken", "request", {})).get("scope")
        if scope != ADMIN:
            return Standing("lesser", scope)
        listed = patient.ask(lambda there, _: there.query("queries/listTokens", "request", {}))["tokens"]
    except Unreachable as problem:
        return Standing("gone") if _lacks(patient, problem) else Standing("away", problem=problem)
    except Refused as refused:
        return Standing("refused" if refused.code == UNAUTHORIZED else "away", problem=refused)
    finally:
        patient.close()
    own = fingerprint(token)
    valid = [one for one in listed if "revokedAt" not in one and one["fingerprint"] != own]
    return Standing("ready", ADMIN, tuple(str(one["name"]) for one in valid))


@dataclass(slots=True)
class Leaving:
    """One way through the deployment's half; `steps`: rows that each step changed, up to where it came."""

    end: End
    told: Told
    steps: dict[str, int] = field(default_factory=dict)

    def clear(self, *, empty: bool) -> None:
        """Take everything of ours out of the deployment, but for its functions and our token.

        Raises `Unreachable`, `Refused`: then it is to be done again, from the beginning.
        """
        self._take("stop", "links", "cards", *(["empty"] if empty else []))

    def finish(self) -> bool:
        """End our token. False where our functions went with the app's folder, which somebody pushes on each
        change: it is good then, for whoever brings them back. Raises `Unreachable`, `Refused`.
        """
        try:
            self._take("end")
        except Refused as refused:
            # the answer of a call was lost, and the token has gone with that call
            if refused.code != UNAUTHORIZED:
                raise
        except Unreachable as problem:
            if problem.cause != "function_missing":
                raise
            return False
        return True

    def _take(self, *steps: str) -> None:
        patient = Patient(self.end, MOST, self.told)
        try:
            for step in steps:
                self._step(patient, step)
        finally:
            patient.close()

    def _step(self, patient: Patient, step: str) -> None:
        cursor: str | None = None
        self.steps[step] = 0
        while True:
            answer = patient.ask(partial(_call, {"step": step} | ({"cursor": cursor} if cursor else {})))
            self.steps[step] += answer["changed"]
            self.told.progress(f"{step}, {self.steps[step]:,} rows")
            if answer["done"]:
                return
            before, cursor = cursor, answer.get("continueCursor")
            if not answer["changed"] and cursor in {None, before}:
                raise Unreachable(f"{self.end.url} does not get on with {step}", cause="server_error")


def emptied(data_dir: Path) -> dict[str, int]:
    """The deployments whose tables were emptied from here: when (epoch ms), by their addresses."""
    try:
        found = json.loads((data_dir / FILE).read_bytes())
        return {str(url): int(at) for url, at in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def note_emptied(data_dir: Path, url: str, now_ms: int) -> None:
    """Raises `SettingsProblem`."""
    file = data_dir / FILE
    with private_files.writing(file):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.replace(file, json.dumps({**emptied(data_dir), url: now_ms}).encode())


def _call(body: Mapping[str, Any], there: Connection, limit: int) -> dict[str, Any]:
    return there.mutation(STEP, "request", {**body, "limit": limit})


def _lacks(patient: Patient, problem: Unreachable) -> bool:
    """Whether none of our functions is there, where one of them is not."""
    if problem.cause != "function_missing":
        return False
    try:
        patient.ask(lambda there, _: there.query(PROBED, "request", {}))
    except Unreachable as other:
        return other.cause == "function_missing"
    except Refused:
        pass
    return False
