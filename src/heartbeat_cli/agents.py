"""One agent looked at closely, for `heartbeat agents show`. Pure: answers and `now` in, tables out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rich.text import Text

from heartbeat_cli import dashboard, fleet, times
from heartbeat_cli.fleet import Row
from heartbeat_cli.output import Table, shown

FACT_LINES = 60  # lines of one fact on a terminal: an error is shown whole (4,000 characters)
COUNTED_EARLIER_MS = times.MINUTE_MS  # counts of a heartbeat's own instant are not told to be older
OUTPUT_LINES = 10  # of a run: an error and where it came from
SAID_OF_RUN = ("status", "result", "summary", "error", "host", "deliveredLateMs")  # by its heartbeats
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a program that met a terminal; everything else is shown escaped


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
    """What is known of one agent, a row for each fact, the most telling first; unknown ones are left out."""
    row: Row = found["row"]
    view = dashboard.judge(row, now)
    last = row.get("lastHeartbeatAt")
    health = _since(view.health, dashboard.since(view, now), _reason(view), now, zone)
    pairs: dict[str, str | Text | None] = {
        "agent": str(row.get("agent")),
        "not linked": f"{fleet.NOT_LINKED}: {fleet.LINK}" if row.get("linked") is False else None,
        "purpose": row.get("purpose"),
        "health": Text(shown(health), style=dashboard.STYLES.get(view.health, "")),
        "due": dashboard.due(view, now, zone),
        "failures": _failures(row),
        "running": "; ".join(_open_run(run, now, zone) for run in dashboard.open_runs(row)),
        "last error": _error(row.get("lastError"), now, zone),
        "last run": _last_run(row.get("lastRun"), zone),
        "heartbeat": None if last is None else f"{times.stamp(last, zone)} ({times.ago(last, now)})",
        "status": _since(str(row["status"]), row.get("statusSince"), None, now, zone)
        if row.get("status")
        else None,
        "summary": row.get("summary"),
        "result": row.get("result"),
        "last acted": None if row.get("lastActedAt") is None else times.ago(row["lastActedAt"], now),
        "tasks": _tasks(row, now),
        "control": _since(str(row.get("control")), row.get("controlSince"), None, now, zone),
        "schedule": _schedule(row),
        "hosts": ", ".join(
            f"{entry['host']} ({times.ago(entry['at'], now)})" for entry in row.get("hosts") or []
        ),
        "client": row.get("clientVersion"),
        "sweep": _error(row.get("sweepError"), now, zone),
    }
    rows: list[Sequence[str | Text]] = [
        (name, value if isinstance(value, Text) else str(value)) for name, value in pairs.items() if value
    ]
    return Table(("", ""), rows, last_lines=FACT_LINES)


def _tasks(row: Row, now: float) -> str | None:
    """The counts; and as of when, where they are older than the heartbeat that they came with."""
    if row.get("openTasks") is None:
        return None
    counted, received = row.get("countedAt"), row.get("lastHeartbeatAt")
    earlier = counted is not None and received is not None and received - counted > COUNTED_EARLIER_MS
    return f"{dashboard.tasks(row)} open/stale" + (f", as of {times.ago(counted, now)}" if earlier else "")


def _failures(row: Row) -> str | None:
    count, allowed = int(row.get("consecutiveFailures", 0)), int(row.get("failAfter", 1))
    if count == 0 or count == allowed == 1:  # of one the health says as much
        return None
    return f"{count} in a row" + (f"; failing from {allowed} on" if allowed > 1 else "")


def _open_run(run: Mapping[str, Any], now: float, zone: tzinfo | None) -> str:
    text = f"since {times.stamp(run['startedAt'], zone)}, for {times.span(now - run['startedAt'])}"
    if not dashboard.overruns(run, now):
        return text
    return f"{text}, overrunning for {times.span(now - run['deadlineAt'])}"


def _last_run(run: Mapping[str, Any] | None, zone: tzinfo | None) -> str | None:
    if run is None:
        return None
    parts = []
    if run.get("finishedAt") is not None:
        parts.append(f"ended {times.stamp(run['finishedAt'], zone)}")
    if run.get("durationMs") is not None:
        parts.append(f"took {times.took(run['durationMs'])}")
    if run.get("exitCode") is not None:
        parts.append(f"exit code {int(run['exitCode'])}")
    return ", ".join(parts) or None


def _error(error: Mapping[str, Any] | None, now: float, zone: tzinfo | None) -> str | None:
    if error is None:
        return None
    return f"{times.ago(error['at'], now)}, {times.stamp(error['at'], zone)}: {error['message']}"


def _reason(view: dashboard.View) -> str | None:
    """Why the health is what is shown: known of the stored one only."""
    return view.row.get("reason") if view.health == view.row.get("health") else None


def _since(word: str, at: float | None, reason: str | None, now: float, zone: tzinfo | None) -> str:
    text = word if reason is None else f"{word} ({reason})"
    return text if at is None else f"{text} for {times.span(now - at)}, since {times.stamp(at, zone)}"


def _schedule(row: Row) -> str:
    parts = [str(row.get("scheduleText", "")), f"grace {times.every(row.get('graceMs', 0))}"]
    parts.append(f"misses {int(row.get('misses', 0))}")
    if row.get("failAfter", 1) > 1:
        parts.append(f"fail after {int(row['failAfter'])}")
    for name, field in (("max run", "maxRunMs"), ("act within", "actWithinMs")):
        if row.get(field):
            parts.append(f"{name} {times.every(row[field])}")
    return ", ".join(parts)


def expected_table(found: Mapping[str, Any], now: float, zone: tzinfo | None) -> Table | None:
    """The coming expected instants, also in the agent's own zone where that is another; None if there are
    none.
    """
    instants = found.get("nextExpectedAt") or []
    if not instants:
        return None
    here = [times.stamp(at, zone) for at in instants]
    coming = [f"in {times.span(at - now)}" for at in instants]
    name, own = _own_zone(found["row"])
    if own is None or all(_clock(at, own) == _clock(at, zone) for at in instants):
        return Table(("expected", ""), list(zip(here, coming, strict=True)))
    there = [times.stamp(at, own) for at in instants]
    return Table((f"expected in {name}", "here", ""), list(zip(there, here, coming, strict=True)))


def _own_zone(row: Row) -> tuple[str, tzinfo | None]:
    name = (row.get("schedule") or {}).get("timeZone")
    if not isinstance(name, str):
        return "", None
    try:
        return name, ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # this host has no rules for it
        return name, None


def _clock(at: float, zone: tzinfo | None) -> str:
    return f"{datetime.fromtimestamp(at / 1000, zone):%Y-%m-%d %H:%M}"


def runs_from(heartbeats: Sequence[Mapping[str, Any]], row: Row) -> list[Mapping[str, Any]]:
    """The runs that these heartbeats, newest first, tell of, as queries/getAgentRuns tells them: for a
    deployment whose functions do not know that one yet.
    """
    runs: dict[str, dict[str, Any]] = {}
    for past in heartbeats:
        told = past.get("run")
        if told is None:
            continue
        run = runs.setdefault(told["runId"], {"runId": told["runId"], "open": False, "overrunning": False})
        said = {name: past[name] for name in SAID_OF_RUN if name in past}
        facts = {name: value for name, value in told.items() if name != "phase"}
        # what stands there already is of the finish, which is the newer of the two
        for name, value in (facts | said).items():
            run.setdefault(name, value)
        if told["phase"] == "finish":
            run.setdefault("finishedAt", past["livenessAt"])
        else:
            run.setdefault("startedAt", past["livenessAt"])
    for run in runs.values():
        run["open"] = "finishedAt" not in run and row.get("runningSince") is not None
    return list(runs.values())


def runs_table(runs: Sequence[Mapping[str, Any]], now: float, zone: tzinfo | None) -> Table:
    """The runs of an agent in the order of `runs`: when each began, how long it took, how it ended."""
    result = Table(("run", "took", "exit", "how", "said"))
    for run in runs:
        began = run.get("startedAt", run.get("finishedAt"))
        result.rows.append(
            (
                "-" if began is None else times.stamp(began, zone),
                _taken(run, now),
                "-" if run.get("exitCode") is None else str(int(run["exitCode"])),
                _how(run, now),
                _words(run),
            )
        )
    return result


def _taken(run: Mapping[str, Any], now: float) -> str:
    if run.get("durationMs") is not None:
        return times.took(run["durationMs"])
    if run.get("open") and run.get("startedAt") is not None:
        return times.span(now - run["startedAt"])
    return "-"


def _how(run: Mapping[str, Any], now: float) -> str:
    if run.get("open"):
        return "overrunning" if run.get("overrunning") or dashboard.overruns(run, now) else "running"
    if run.get("finishedAt") is None:
        return "lost"  # nobody told how it ended
    return str(run.get("status") or "-")


def _words(past: Mapping[str, Any]) -> str:
    """What an agent said, and how late that came."""
    late = past.get("deliveredLateMs")
    words = past.get("error") or past.get("summary") or past.get("result") or ""
    note = f"delivered {times.span(late)} late" if late else ""
    return " · ".join(part for part in (str(words), note) if part) or "-"


def outputs(runs: Sequence[Mapping[str, Any]], zone: tzinfo | None) -> list[str | Table]:
    """The last lines of output of the newest run that left some, and of the newest one that failed."""
    told = [run for run in runs if str(run.get("output") or "").strip()]
    failed = [run for run in told if run.get("exitCode") or run.get("status") == "error"]
    found: list[str | Table] = []
    for run in [*failed[:1], *(run for run in told[:1] if run not in failed[:1])]:
        lines = COLOURS.sub("", str(run["output"])).rstrip().splitlines()[-OUTPUT_LINES:]
        began = run.get("startedAt", run.get("finishedAt"))
        which = "a run" if began is None else f"the run of {times.stamp(began, zone)}"
        ended = "" if run.get("exitCode") is None else f" (exit code {int(run['exitCode'])})"
        found += ["", f"{which}{ended} printed last:"]
        found.append(Table(("",), [(f"  {line}",) for line in lines]))
    return found


def open_tasks(tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that counted, the stale ones first, each kind in the order in which it was last touched."""
    counted = [task for task in tasks if task["counted"] != "no"]
    return sorted(counted, key=lambda task: (task["counted"] != "stale", _touched(task) or 0))


def _touched(task: Mapping[str, Any]) -> float | None:
    """When somebody last did something about a task; older functions tell it only as `updatedAt`."""
    touched: float | None = task.get("touchedAt", task.get("updatedAt"))
    return touched


def tasks_table(tasks: Sequence[Mapping[str, Any]], now: float, *, ids: bool) -> Table:
    """Tasks as queries/listAgentTasks tells them, with whether each counted, and why. `ids`: of each its own,
    by which it can be marked as done, and which takes half of a terminal.
    """
    table = Table((*(("task",) if ids else ()), "status", "counted", "touched", "title and why"))
    for task in tasks:
        touched = _touched(task)
        table.rows.append(
            (
                *((str(task["taskId"]),) if ids else ()),
                str(task["status"]),
                str(task["counted"]),
                "-" if touched is None else times.ago(touched, now),
                f"{task['title']} · {task['why']}",
            )
        )
    return table


def history_table(heartbeats: Sequence[Mapping[str, Any]], now: float, zone: tzinfo | None) -> Table:
    """An agent's heartbeats as queries/getAgentHistory tells them, in that order, with what each one said."""
    result = Table(("heartbeat", "status", "tasks", "host", "said"))
    for past in heartbeats:
        result.rows.append(
            (
                times.stamp(past["livenessAt"], zone),
                str(past.get("rawStatus") or past["status"]),
                dashboard.tasks(past),
                str(past.get("host") or "-"),
                _words(past),
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
