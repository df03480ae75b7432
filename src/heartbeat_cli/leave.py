"""Leaving a deployment: what `heartbeat uninstall` does, in which order, and what a kill leaves.

    crontab ──▶ spool ──▶ deployment: stop, links, cards, (empty), own token ──▶ local backend ──▶ app
                                                                           kept token ◀──────────┘

Typed again at any time it does what is still to be done; what is done already changes nothing. Why in this
order, and what stands where it is killed:

    crontab      First, so that no job begins to report any more. One write: the crontab of before or after.
    spool        While the token still works. What cannot be delivered stays, and nothing of it is deleted.
    stop         The sweep rests, every other token ends: no other host brings a card back. Each call of this
                 and the next steps is one transaction (convex/heartbeat/model/leave.ts); again from `stop`.
    links        From here on no heartbeat writes a card, whoever sends it.
    cards        `heartbeat` is unset in each of the team's agents.
    empty        Only if asked for. Its last call takes the own token along.
    own token    Else it is revoked, in the last call. Before that call, whichever it is, `left.json` says of
                 which token it is the last: where the answer is lost, or we are killed, a token that is not
                 accepted any more and stands there means that the deployment has been left. After it the
                 file says so too, for a local backend that has been stopped since.
    local        After the deployment, which it may be.
    app          Last, as nothing of the deployment could be undone without our functions in it, and Convex
                 refuses a schema without the field `heartbeat` while a card is there. What a kill leaves of
                 this says adopt_manifest.py.
    kept token   Its entry in tokens.toml. Without it nothing tells whether somebody has come back since: it
                 stays as long as anything else is to be done.

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

FILE = "left.json"
MOST = 500  # rows of one call: as many as the functions take
STEP = "mutations/leave"

State = Literal["ready", "left", "gone", "lesser", "refused", "no token", "away"]
"""Of a deployment: it can be left now; we left it; our functions are not there; our token may not; it is not
accepted; there is none; it does not answer.
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with leaving a deployment. `others`: the tokens that end besides ours, by their names.
    `emptied`: our tables were, when it was left from here; `left_before`: it was, and no more is known.
    """

    state: State
    scope: str | None = None
    others: tuple[str, ...] = ()
    emptied: bool = False
    left_before: bool = False
    problem: HeartbeatError | None = None


def before(url: str, data_dir: Path) -> Standing:
    """What is known of a deployment for which there is no token here: somebody may have come back to it."""
    note = _notes(data_dir).get(url, {})
    done = note.get("done") is True
    return Standing("no token", left_before=done, emptied=done and note.get("emptied") is True)


def look(end: End, token: str, data_dir: Path, told: Told) -> Standing:
    """Ask the deployment what may be done there; changes nothing."""
    note, own = _notes(data_dir).get(end.url, {}), fingerprint(token)
    if note.get("fingerprint") != own:
        note = {}
    emptied = note.get("emptied") is True
    patient = Patient(end, 1, told)
    try:
        scope = patient.ask(lambda there, _: there.query("queries/getToken", "request", {})).get("scope")
        if scope != ADMIN:
            return Standing("lesser", scope)
        listed = patient.ask(lambda there, _: there.query("queries/listTokens", "request", {}))["tokens"]
    except Unreachable as problem:
        if note.get("done"):
            return Standing("left", emptied=emptied)
        return Standing("gone") if _lacks(patient, problem) else Standing("away", problem=problem)
    except Refused as refused:
        if refused.code != UNAUTHORIZED:
            return Standing("away", problem=refused)
        return Standing("left" if note else "refused", emptied=emptied)
    finally:
        patient.close()
    valid = [one for one in listed if "revokedAt" not in one and one["fingerprint"] != own]
    return Standing("ready", ADMIN, tuple(str(one["name"]) for one in valid))


@dataclass(slots=True)
class Leaving:
    """One way through the deployment's half; `steps`: rows that each step changed, up to where it came."""

    end: End
    token: str = field(repr=False)
    data_dir: Path
    told: Told
    steps: dict[str, int] = field(default_factory=dict)

    def run(self, *, empty: bool) -> None:
        """Take everything of ours out of the deployment, but for its functions.

        Raises `Unreachable`, `Refused`: then it is to be done again, from the beginning. `SettingsProblem`
        where nothing can be noted here.
        """
        own = fingerprint(self.token)
        patient = Patient(self.end, MOST, self.told)
        try:
            for step in ("stop", "links", "cards"):
                self._take(patient, step)
            note = {"fingerprint": own, "emptied": empty}
            _note(self.data_dir, self.end.url, note)
            try:
                if empty:
                    self._take(patient, "empty")
                else:
                    body = {"fingerprint": own}
                    patient.ask(lambda there, _: there.mutation("mutations/revokeToken", "request", body))
            except Refused as refused:
                # the answer of the last call was lost, and the token has gone with that call
                if refused.code != UNAUTHORIZED:
                    raise
            _note(self.data_dir, self.end.url, {**note, "done": True})
        finally:
            patient.close()

    def _take(self, patient: Patient, step: str) -> None:
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


def _notes(data_dir: Path) -> dict[str, dict[str, Any]]:
    """By address: the token with which a deployment is left, whether our tables are emptied there, and
    whether all of it is done.
    """
    try:
        found = json.loads((data_dir / FILE).read_bytes())
        return {url: note for url, note in found.items() if isinstance(note, dict)}
    except (OSError, ValueError, AttributeError):
        return {}


def _note(data_dir: Path, url: str, note: Mapping[str, Any]) -> None:
    file = data_dir / FILE
    with private_files.writing(file):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.replace(file, json.dumps({**_notes(data_dir), url: note}).encode())
