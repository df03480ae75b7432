"""What people are told of a heartbeat that the deployment has: one line, and what else is worth saying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heartbeat_cli import times
from heartbeat_cli.output import shown

if TYPE_CHECKING:
    from heartbeat_cli.send import Sent

SKEW_WORTH_SAYING_MS = times.MINUTE_MS  # rule 1: it harms nothing, but somebody should set that clock
WATCHED = "active"  # the control that needs no mention


def worth_saying(answer: Mapping[str, Any]) -> list[str]:
    notes = []
    skew = answer.get("skewMs") or 0
    if abs(skew) > SKEW_WORTH_SAYING_MS:
        side = "behind" if skew > 0 else "ahead of"
        notes.append(
            f"this host's clock is {times.span(abs(skew))} {side} the deployment's, whose clock decides"
        )
    return notes


def line(sent: Sent, deployment: str, now: int) -> str:
    """`hint ok (working) · 12 open, 3 stale · due 06:00 UTC · http://127.0.0.1:7210`."""
    answer = sent.answer or {}
    health = shown(str(answer.get("health", answer["outcome"])))
    status = sent.heartbeat.status.lower()
    said = "" if status == health or (status, health) == ("error", "failing") else f" ({shown(status)})"
    parts = [f"{sent.heartbeat.agent} {health}{said}"]
    if answer.get("healthBefore") == "degraded" and health != "degraded":
        parts.append("was degraded until now")
    if answer["outcome"] == "duplicate":
        parts.append("duplicate: it was recorded before")
    if answer.get("reason") and health == "degraded":
        parts.append(shown(str(answer["reason"])))
    parts.append(_counts(answer))
    control = answer.get("control", WATCHED)
    if control != WATCHED:
        parts.append(shown(str(control)))
    elif answer.get("dueAt") is not None:
        parts.append(f"due {times.clock(answer['dueAt'], now)}")
    if answer.get("linked") is False:
        parts.append("not linked")
    return " · ".join([*(part for part in parts if part), deployment])


def _counts(answer: Mapping[str, Any]) -> str:
    if answer.get("openTasks") is None:
        return ""
    plus = "+" if answer.get("countsCapped") else ""
    return f"{int(answer['openTasks'])}{plus} open, {int(answer.get('staleTasks') or 0)} stale"
