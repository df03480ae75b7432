"""The records of an export: what a heartbeat, a flip, an agent holds, as docs/export-format.md has it.

Fields that are not known here are left out, and told; what is missing, or of another kind, is a `Misfit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heartbeat_cli.shapes import COUNT, DIFFERENCE, EXIT_CODE, FLAG, INSTANT, SPAN

QUOTED_MAX = 40  # characters of a word in our sentence
# The kinds of records, in the order of a file, by the names that the functions have for them. Agents come
# last: their rows then know of everything that comes before
KINDS = {"heartbeats": "heartbeat", "flips": "flip", "agents": "agent"}
KIND_OF = {word: kind for kind, word in KINDS.items()}


class Misfit(Exception):
    """A record that cannot be one; the text says what is the matter with it."""


Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Shape:
    """What an object holds: by field a check, another shape, or a list of one of them."""

    fields: Mapping[str, Any]
    required: tuple[str, ...]

    def fit(self, value: Any, where: str, ignored: set[str]) -> dict[str, Any]:
        """`value` without the fields that are not known here, which go into `ignored`. Raises `Misfit`."""
        if not isinstance(value, dict):
            raise Misfit(f"{where or 'it'} is no object")
        for name in self.required:
            if name not in value:
                raise Misfit(f"{where}{name} is missing")
        out = value
        if not value.keys() <= self.fields.keys():
            ignored.update(f"{where}{name}"[:QUOTED_MAX] for name in value.keys() - self.fields.keys())
            out = {name: found for name, found in value.items() if name in self.fields}
        for name, kind in self.fields.items():
            if name in out:
                found = out[name]
                fitted = _fit(found, kind, f"{where}{name}", ignored)
                if fitted is not found:
                    out = {**out, name: fitted}
        return out


@dataclass(frozen=True, slots=True)
class _Either:
    """One of several shapes, by the word in the field `kind`."""

    shapes: Mapping[str, Shape]

    def fit(self, value: Any, where: str, ignored: set[str]) -> dict[str, Any]:
        word = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(word, str) or word not in self.shapes:
            raise Misfit(f"{where}kind is none of {', '.join(self.shapes)}")
        return self.shapes[word].fit(value, where, ignored)


def _fit(value: Any, kind: Any, name: str, ignored: set[str]) -> Any:
    if isinstance(kind, (Shape, _Either)):
        return kind.fit(value, f"{name}.", ignored)
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise Misfit(f"{name} is no list")
        return [_fit(item, kind[0], name, ignored) for item in value]
    if not kind(value):
        raise Misfit(f"{name} is not what it should be")
    return value


def shape(fields: Mapping[str, Any]) -> Shape:
    """From fields as shapes.py writes them: a ? after those that may be missing."""
    known = {name.removesuffix("?"): kind for name, kind in fields.items()}
    return Shape(known, tuple(name for name in fields if not name.endswith("?")))


def TEXT(value: Any) -> bool:
    """A text that every database takes: no half of a character."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def one_of(*words: str) -> Check:
    """One of these texts."""
    return lambda value: isinstance(value, str) and value in words


_STATUS = one_of("ok", "idle", "working", "blocked", "waiting", "error")
_RESULT = one_of("acted", "noop", "error")
_HEALTH = one_of("new", "ok", "failing", "degraded")
_ENDS = {"startedAt?": INSTANT, "finishedAt?": INSTANT, "durationMs?": SPAN, "exitCode?": EXIT_CODE}
_SAID = shape({"message": TEXT, "at": INSTANT})
_RUN = {"runId": TEXT, "phase": one_of("start", "finish"), **_ENDS, "output?": TEXT, "outputCut?": FLAG}
_OPEN_RUN = {"runId": TEXT, "startedAt": INSTANT, "answeredFromAt": INSTANT, "deadlineAt": INSTANT}

RECORDS: Mapping[str, Shape] = {
    "heartbeat": shape(
        {
            "heartbeatId": TEXT,
            "agent": TEXT,
            "sentAt": INSTANT,
            "deliveredAt": INSTANT,
            "receivedAt": INSTANT,
            "livenessAt": INSTANT,
            "status": _STATUS,
            "rawStatus": TEXT,
            "summary?": TEXT,
            "error?": TEXT,
            "result?": _RESULT,
            "openTasks": COUNT,
            "staleTasks": COUNT,
            "countsCapped": FLAG,
            "countedBy": one_of("sender", "server"),
            "host?": TEXT,
            "clientVersion?": TEXT,
            "run?": shape(_RUN),
            "runAt?": INSTANT,
        }
    ),
    "flip": shape(
        {
            "agent": TEXT,
            "from": _HEALTH,
            "to": _HEALTH,
            "reason": TEXT,
            "becameAt": INSTANT,
            "noticedAt": INSTANT,
            "gapNote?": TEXT,
            "silentSince?": INSTANT,
        }
    ),
    "agent": shape(
        {
            "agent": TEXT,
            "source": TEXT,
            "schedule": _Either(
                {
                    "interval": shape({"kind": TEXT, "everyMs": SPAN}),
                    "cron": shape({"kind": TEXT, "expression": TEXT, "timeZone": TEXT}),
                }
            ),
            "graceMs": SPAN,
            "graceComputed": FLAG,
            "misses": COUNT,
            "failAfter?": COUNT,
            "maxRunMs?": SPAN,
            "actWithinMs?": SPAN,
            "purpose?": TEXT,
            "plannedStatus?": _STATUS,
            "plannedHost?": TEXT,
            "control": one_of("active", "paused", "retired"),
            "controlSince": INSTANT,
            "health": _HEALTH,
            "healthSince": INSTANT,
            "noticedAt": INSTANT,
            "reason?": TEXT,
            "resetAt": INSTANT,
            "answeredFromAt?": INSTANT,
            "openRuns": [shape(_OPEN_RUN)],
            "lastRun?": shape({"runId": TEXT, **_ENDS, "status?": _STATUS}),
            "lastReport?": shape({"at": INSTANT, "heartbeatId": TEXT, "failing": FLAG}),
            "failures?": shape({"goodAt?": INSTANT, "at": [INSTANT]}),
            "lastHeartbeatId?": TEXT,
            "lastHeartbeatAt?": INSTANT,
            "lastSentAt?": INSTANT,
            "lastReceivedAt?": INSTANT,
            "skewMs?": DIFFERENCE,
            "status?": _STATUS,
            "rawStatus?": TEXT,
            "statusSince?": INSTANT,
            "summary?": TEXT,
            "result?": _RESULT,
            "clientVersion?": TEXT,
            "hosts": [shape({"host": TEXT, "at": INSTANT})],
            "lastError?": _SAID,
            "lastActedAt?": INSTANT,
            "runsSinceActed": COUNT,
            "openTasks?": COUNT,
            "staleTasks?": COUNT,
            "countedAt?": INSTANT,
            "countsCapped?": FLAG,
        }
    ),
}


def checked(kind: str, record: Any) -> None:
    """Raise `Misfit` for what a deployment answered as a record and is none."""
    RECORDS[kind].fit(record, "", set())
