"""What the answers of our functions must be for those who read them: checked in one place, before they do.

A deployment may be of another version, broken, or somebody else's. Rule 13: unknown fields are kept as they
are, unknown words too. Beyond that a known field that is of another kind than expected, or an instant that
no calendar has, is left out as if the deployment had not told it; an answer that lacks what nobody can do
without is `Misshapen`. So whatever reads answers meets the kinds it expects, and no answer ends in a
traceback.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from heartbeat_cli.scrub import scrubbed

WHOLE_MAX = 2**53  # beyond it a float64 no longer holds every whole number
LATEST_MS = 253_370_764_800_000  # the year 9999 begins: the last one that Python's calendar has
DEPTH_MAX = 64  # how deep values nest on Convex; Python's own limit is a few hundred

Check = Callable[[Any], bool]


class Misshapen(Exception):
    """An answer that cannot be one; the text says what is the matter with it."""


def plain(value: Any, depth: int = DEPTH_MAX) -> Any:
    """`value` as JSON can hold it, without a secret of ours in any text.

    Floats that are whole numbers become int (Convex's numbers are float64), floats that are none become None,
    what JSON has no kind for (bytes, 64-bit integers) becomes text, half a character becomes U+FFFD. Raises
    `Misshapen` for what nests too deep.
    """
    if depth < 0:
        raise Misshapen("its answer nests too deep")
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case int() | float():
            return _number(value)
        case list():
            return [plain(item, depth - 1) for item in value]
        case dict():
            return {_text(str(key)): plain(item, depth - 1) for key, item in value.items()}
    return _text(str(value))


def _text(text: str) -> str:
    """Without secrets, and without halves of characters, which no database and no other program takes."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return scrubbed(text)


def _number(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) <= WHOLE_MAX else number


def sound(path: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer of function `path`, fit to be read. Raises `Misshapen`."""
    shape = ANSWERS.get(path)
    if callable(shape):
        shape = shape(answer)
    found: dict[str, Any] = answer if shape is None else _fit(answer, shape, "its answer")
    return found


def _fit(value: Any, shape: Any, name: str) -> Any:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise Misshapen(f"{name} is not an object")
        return _fit_object(value, shape, name)
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise Misshapen(f"{name} is not a list")
        return [_fit(item, shape[0], f"an entry of {name}") for item in value]
    if not shape(value):
        raise Misshapen(f"{name} is not what was expected")
    return value


def _fit_object(value: Mapping[str, Any], shape: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = dict(value)
    for key, kind in shape.items():
        field = key.removesuffix("?")
        if field not in value:
            if field == key:
                raise Misshapen(f"{name} has no {field}")
            continue
        try:
            found[field] = _fit(value[field], kind, field)
        except Misshapen:
            if field == key:
                raise
            del found[field]
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _between(least: float, most: float) -> Check:
    def check(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most

    return check


TEXT, FLAG = _is_text, _is_flag
COUNT = _between(0, WHOLE_MAX)
SPAN = INSTANT = _between(0, LATEST_MS)
DIFFERENCE = _between(-LATEST_MS, LATEST_MS)
EXIT_CODE = _between(-WHOLE_MAX, WHOLE_MAX)

_RUN_TOLD = {"startedAt?": INSTANT, "finishedAt?": INSTANT, "durationMs?": SPAN, "exitCode?": EXIT_CODE}
_ROW = {
    "agent": TEXT,
    "purpose?": TEXT,
    "linked?": FLAG,
    "schedule?": {"everyMs?": SPAN},
    "scheduleText?": TEXT,
    "graceMs?": SPAN,
    "misses?": COUNT,
    "maxRunMs?": SPAN,
    "actWithinMs?": SPAN,
    "control?": TEXT,
    "controlSince?": INSTANT,
    "health?": TEXT,
    "degraded?": FLAG,
    "reason?": TEXT,
    "healthSince?": INSTANT,
    "status?": TEXT,
    "statusSince?": INSTANT,
    "summary?": TEXT,
    "result?": TEXT,
    "lastHeartbeatAt?": INSTANT,
    "lastReceivedAt?": INSTANT,
    "lastActedAt?": INSTANT,
    "runsSinceActed?": COUNT,
    "lastError?": {"message": TEXT, "at": INSTANT},
    "openTasks?": COUNT,
    "staleTasks?": COUNT,
    "countsCapped?": FLAG,
    "countedAt?": INSTANT,
    "hosts?": [{"host": TEXT, "at": INSTANT}],
    "clientVersion?": TEXT,
    "dueAt?": INSTANT,
    "degradeAt?": INSTANT,
    "firstMissAt?": INSTANT,
    "failAfter?": COUNT,
    "consecutiveFailures?": COUNT,
    "runningSince?": INSTANT,
    "openRuns?": [{"runId": TEXT, "startedAt": INSTANT, "deadlineAt?": INSTANT}],
    "lastRun?": {**_RUN_TOLD, "status?": TEXT},
    "sweepError?": {"message": TEXT, "at": INSTANT},
}
_PAGE = {"isDone": FLAG, "continueCursor": TEXT}
_PAST = {
    "livenessAt": INSTANT,
    "status": TEXT,
    "rawStatus?": TEXT,
    "summary?": TEXT,
    "error?": TEXT,
    "result?": TEXT,
    "host?": TEXT,
    "openTasks?": COUNT,
    "staleTasks?": COUNT,
    "countsCapped?": FLAG,
    "deliveredLateMs?": SPAN,
    "run?": {"runId": TEXT, "phase": TEXT, **_RUN_TOLD, "output?": TEXT, "outputCut?": FLAG},
}
_RUN = {
    "runId": TEXT,
    **_RUN_TOLD,
    "status?": TEXT,
    "result?": TEXT,
    "summary?": TEXT,
    "error?": TEXT,
    "output?": TEXT,
    "outputCut?": FLAG,
    "open?": FLAG,
    "overrunning?": FLAG,
    "deadlineAt?": INSTANT,
    "host?": TEXT,
    "deliveredLateMs?": SPAN,
}
_FLIP = {
    "from": TEXT,
    "to": TEXT,
    "reason": TEXT,
    "becameAt": INSTANT,
    "gapNote?": TEXT,
    "explainedBy?": {"deliveredLateMs": SPAN},
}
_TASK = {
    "taskId": TEXT,
    "title": TEXT,
    "status": TEXT,
    "counted": TEXT,
    "why": TEXT,
    "touchedAt?": INSTANT,
    "updatedAt?": INSTANT,
}
_TOKEN = {
    "fingerprint": TEXT,
    "name": TEXT,
    "scope": TEXT,
    "agents?": [TEXT],
    "hostName?": TEXT,
    "createdAt": INSTANT,
    "revokedAt?": INSTANT,
    "lastUsedAt?": INSTANT,
}
_CHANGE = {
    "agent": TEXT,
    "change": TEXT,
    "fields": [TEXT],
    "linked?": FLAG,
    "control?": TEXT,
    "firstDueAt?": INSTANT,
}
_RECORDED = {
    "outcome": TEXT,
    "health?": TEXT,
    "healthBefore?": TEXT,
    "reason?": TEXT,
    "control?": TEXT,
    "openTasks?": COUNT,
    "staleTasks?": COUNT,
    "countsCapped?": FLAG,
    "dueAt?": INSTANT,
    "linked?": FLAG,
    "skewMs?": DIFFERENCE,
}


_RESULT = _RECORDED | {"code?": TEXT, "message?": TEXT, "retryAfterMs?": SPAN}


def _applied(answer: Mapping[str, Any]) -> dict[str, Any]:
    if answer.get("outcome") == "refused":
        return {"problems": [{"agent": TEXT, "field": TEXT, "message": TEXT}]}
    return {"outcome": TEXT, "changes": [_CHANGE], "unlisted": [TEXT], "stoppedAt?": INSTANT}


# By function: each field that is read, a ? after those that may be missing
ANSWERS: dict[str, Any] = {
    "queries/getAgentDashboard": {"agents": [_ROW], **_PAGE},
    "queries/getMonitorStatus": {
        "contractVersion?": COUNT,
        "sweepEveryMs?": SPAN,
        "sweepRanAt?": INSTANT,
        "holdUntil?": INSTANT,
        "stoppedAt?": INSTANT,
    },
    "queries/getAgent": {"row": _ROW, "nextExpectedAt?": [INSTANT], "flips?": [_FLIP]},
    "queries/getAgentHistory": {"heartbeats": [_PAST], **_PAGE},
    "queries/getAgentRuns": {"runs": [_RUN], **_PAGE},
    "queries/listAgentTasks": {"tasks": [_TASK], **_PAGE},
    "queries/listTokens": {"tokens": [_TOKEN]},
    "queries/getAgentTaskCounts": {
        "openTasks": COUNT,
        "staleTasks": COUNT,
        "capped?": FLAG,
        "mirrored?": FLAG,
        "unknownStatuses?": [TEXT],
    },
    "queries/getToken": {"scope?": TEXT, "agents?": [TEXT], "hostName?": TEXT, "older?": [TEXT]},
    "mutations/recordHeartbeat": _RECORDED,
    "mutations/recordHeartbeats": {"results": [_RESULT]},
    "mutations/applySchedule": _applied,
    "mutations/setAgentControl": {"agent": TEXT, "changed": FLAG},
    "mutations/addTask": {"taskId": TEXT},
    "mutations/completeTask": {"taskId": TEXT},
    "mutations/createToken": {"fingerprint": TEXT},
    "mutations/revokeToken": {"fingerprint": TEXT},
    "mutations/leave": {"done": FLAG, "changed": COUNT, "continueCursor?": TEXT},
    # what a record holds is checked by move_format.py
    "queries/exportRecords": {"records": [{}], **_PAGE},
    "mutations/importRecords": {
        "recorded": COUNT,
        "updated": COUNT,
        "known": COUNT,
        "refused": [{"index": COUNT, "code": TEXT, "message": TEXT}],
    },
}
