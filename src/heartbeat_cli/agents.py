"""One agent looked at closely, for `heartbeat agents show`. Pure: answers and `now` in, tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any

from heartbeat_cli import dashboard, times
from heartbeat_cli.fleet import Row
from heartbeat_cli.output import Table

FACT_LINES = 60  # lines of one fact on a terminal: an error is shown whole (4,000 characters)
HISTORY = 10  # heartbeats shown: what fits on a screen beside the rest


def list_table(rows: Sequence[Row], now: float) -> Table:
    """What each agent is set to; the dashboard shows how it does."""
    result = Table(("agent", "control", "health", "schedule", "grace", "misses", "purpose"))
    for view in sorted(
        (dashboard.judge(row, now) for row in rows), key=lambda view: str(view.row.get("agent"))
    ):
        row = view.row
        result.rows.append(
            (
                str(row.get("agent")),
                str(row.get("control", "")),
                view.health,
                str(row.get("scheduleText", "")),
                times.every(row.get("graceMs", 0)),
                str(int(row.get("misses", 0))),
                str(row.get("purpose") or "-"),
            )
        )
    return result


def facts(found: Mapping[str, Any], now: float, zone: tzinfo | None) -> Table:
    """What is known of one agent, a row for each fact; unknown ones are left out."""
    row: Row = found["row"]
    view = dashboard.judge(row, now)
    error = row.get("lastError")
    pairs = {
        "agent": str(row.get("agent")) + ("" if row.get("linked", True) else "  (not linked)"),
        "purpose": row.get("purpose"),
        "health": _since(view.health, dashboard.since(view, now), _reason(view), now, zone),
        "control": _since(str(row.get("control")), row.get("controlSince"), None, now, zone),
        "schedule": _schedule(row),
        "expected": ", ".join(times.stamp(at, zone) for at in found.get("nextExpectedAt", [])) or None,
        "last": None
        if row.get("lastHeartbeatAt") is None
        else f"{times.stamp(row['lastHeartbeatAt'], zone)} ({times.ago(row['lastHeartbeatAt'], now)})",
        "status": _since(str(row["status"]), row.get("statusSince"), None, now, zone)
        if row.get("status")
        else None,
        "summary": row.get("summary"),
        "result": row.get("result"),
        "last acted": None if row.get("lastActedAt") is None else times.ago(row["lastActedAt"], now),
        "last error": f"{times.ago(error['at'], now)}: {error['message']}" if error else None,
        "tasks": f"{dashboard.tasks(row)} open/stale" if row.get("openTasks") is not None else None,
        "hosts": ", ".join(
            f"{entry['host']} ({times.ago(entry['at'], now)})" for entry in row.get("hosts") or []
        ),
        "client": row.get("clientVersion"),
    }
    return Table(
        ("", ""), [(name, str(value)) for name, value in pairs.items() if value], last_lines=FACT_LINES
    )


def _reason(view: dashboard.View) -> str | None:
    """Why the health is what is shown: known of the stored one only."""
    return view.row.get("reason") if view.health == view.row.get("health") else None


def _since(word: str, at: float | None, reason: str | None, now: float, zone: tzinfo | None) -> str:
    text = word if reason is None else f"{word} ({reason})"
    return text if at is None else f"{text} for {times.span(now - at)}, since {times.stamp(at, zone)}"


def _schedule(row: Row) -> str:
    parts = [str(row.get("scheduleText", "")), f"grace {times.every(row.get('graceMs', 0))}"]
    parts.append(f"misses {int(row.get('misses', 0))}")
    for name, field in (("max run", "maxRunMs"), ("act within", "actWithinMs")):
        if row.get(field):
            parts.append(f"{name} {times.every(row[field])}")
    return ", ".join(parts)


def history_table(heartbeats: Sequence[Mapping[str, Any]], now: float, zone: tzinfo | None) -> Table:
    """An agent's heartbeats as queries/getAgentHistory tells them, in that order, with what each one said."""
    result = Table(("heartbeat", "status", "tasks", "host", "said"))
    for past in heartbeats:
        late = past.get("deliveredLateMs")
        words = past.get("error") or past.get("summary") or past.get("result") or ""
        note = f"delivered {times.span(late)} late" if late else ""
        result.rows.append(
            (
                times.stamp(past["livenessAt"], zone),
                str(past.get("rawStatus") or past["status"]),
                dashboard.tasks(past),
                str(past.get("host") or "-"),
                " · ".join(part for part in (str(words), note) if part) or "-",
            )
        )
    return result


def flips_table(flips: Sequence[Mapping[str, Any]], zone: tzinfo | None) -> Table:
    """Changes of health as queries/getAgent tells them: when each became true, and why."""
    result = Table(("health changed", "from", "to", "why"))
    for flip in flips:
        why = str(flip["reason"])
        explained = flip.get("explainedBy")
        if explained:
            why += f" (delivered {times.span(explained['deliveredLateMs'])} late)"
        if flip.get("gapNote"):
            why += f" ({flip['gapNote']})"
        result.rows.append((times.stamp(flip["becameAt"], zone), str(flip["from"]), str(flip["to"]), why))
    return result
