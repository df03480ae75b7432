"""The dashboard: which agent needs somebody, worst first. Pure: rows and `now` in, a table out.

A deployment's queries never read a clock, so what depends on the time is judged here: `late` (rule 4),
"nothing done" (rule 11), the age of the sweep (rule 8). Everything else is shown as it is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from rich.text import Text

from heartbeat_cli import times
from heartbeat_cli.fleet import Fleet, Row
from heartbeat_cli.output import Table, shown

HEALTH_WORDS = ("degraded", "failing", "late", "new", "ok", "paused")  # as shown, worst first
BAD = frozenset({"degraded", "failing"})  # what --check is about
DATED = BAD | {"late", "paused"}  # for how long is worth the width
WORKING = "working"  # what a start report says
STATUSES_WAITING_FOR_SOMEBODY = frozenset({"blocked", "waiting"})

# Rule 10, with `late` and "nothing done" sorted in
_RANKS = ("degraded", "failing", "late", "needs somebody", "new", "nothing done", "ok", "paused")
STYLES = {
    "degraded": "bold red",
    "failing": "red",
    "late": "yellow",
    "new": "cyan",
    "ok": "green",
    "paused": "dim",
}
SWEEP_LATE_AFTER = 3  # times its own period: one skipped run is a slow minute, three are a dead sweep
STARTS_SWEEP = "heartbeat apply"  # where it was stopped
SWEEP_EVERY_MS = times.MINUTE_MS  # where a deployment does not tell it
DELIVERED_LATE_MS = times.MINUTE_MS  # as the deployment's history has it: below, a slow network explains it
ERROR_SHOWN_FOR_MS = times.DAY_MS  # after a recovery; older ones stand in `agents show`
DEFAULT_MISSES = 2  # as the deployment has it
COUNT_LIMIT = 1000  # what a deployment counts up to
SAID_LIMIT = 500  # characters of a summary or error in a cell: two lines, or one piped


@dataclass(frozen=True, slots=True)
class View:
    """One row, judged at an instant: the health as shown, and where it stands in the order."""

    row: Row
    health: str
    rank: int
    nothing_done_for: float | None = None


def judge(row: Row, now: float) -> View:
    """Health as shown now: the stored one, unless the agent is paused, or `late` has come true since."""
    stored = str(row.get("health", "new"))
    if row.get("control") == "paused":
        return _view(row, "paused", "paused")
    if stored in BAD:
        return _view(row, stored, stored)
    if _is_late(row, now):
        return _view(row, "late", "late")
    if row.get("status") in STATUSES_WAITING_FOR_SOMEBODY:
        return _view(row, stored, "needs somebody")
    idle_for = _nothing_done_for(row, now) if stored == "ok" else None
    if idle_for is not None:
        return View(row, stored, _RANKS.index("nothing done"), idle_for)
    return _view(row, stored, stored)


def _view(row: Row, health: str, place: str) -> View:
    # A word that a newer deployment invented is shown as it is, above what is known to be well
    return View(row, health, _RANKS.index(place if place in _RANKS else "new"))


def _is_late(row: Row, now: float) -> bool:
    """Rule 4, with rule 6: while a run is open, its own deadline is the only one."""
    missed = _first_missed(row)
    if missed is None or row.get("runningSince") is not None:
        return False
    return bool(row.get("misses", DEFAULT_MISSES) > 1 and now >= missed + row.get("graceMs", 0))


def _first_missed(row: Row) -> float | None:
    """The first expected instant of the silence that lasts: one that passed while a run went on, or before
    the agent was heard of otherwise, is none of it. None where only the backend could tell, and its functions
    do not yet: of cron fires.
    """
    if row.get("firstMissAt") is not None:
        return float(row["firstMissAt"])
    at, last, schedule = row.get("dueAt"), row.get("lastHeartbeatAt"), row.get("schedule") or {}
    if at is None or last is None or at > last:
        return at
    every = schedule.get("everyMs")
    return at + ((last - at) // every + 1) * every if every else None


def _nothing_done_for(row: Row, now: float) -> float | None:
    limit, last = row.get("actWithinMs"), row.get("lastHeartbeatAt")
    if limit is None or last is None:
        return None
    since = row.get("lastActedAt") or row.get("controlSince") or last
    return now - since if now - since >= limit else None


def views(rows: Iterable[Row], now: float) -> list[View]:
    """Every row judged, worst first, then by name."""
    return sorted((judge(row, now) for row in rows), key=lambda view: (view.rank, str(view.row.get("agent"))))


def table(seen: Sequence[View], now: float, zone: tzinfo | None) -> Table:
    """A row for each agent, in the order of `seen`; instants are told in `zone`, None: this host's.

    Where an agent has runs and the page has room there is a column about them.
    """
    with_runs = any(view.row.get("lastRun") for view in seen)
    header = ("agent", "health", "last", "due", "tasks", *(("run",) if with_runs else ()), "said")
    result = Table(header, spare=header.index("run") if with_runs else None)
    for view in seen:
        row = view.row
        result.rows.append(
            (
                shown(str(row.get("agent"))),
                Text(_health(view, now), style=STYLES.get(view.health, "")),
                times.ago(row.get("lastHeartbeatAt"), now),
                due(view, now, zone),
                tasks(row),
                *((last_run(row),) if with_runs else ()),
                said(view, now, zone),
            )
        )
    return result


def open_runs(row: Row) -> list[Mapping[str, Any]]:
    """The runs that go on, oldest first. Where the functions tell only since when one does, that one."""
    if "openRuns" in row:
        return sorted(row["openRuns"], key=lambda run: float(run["startedAt"]))
    return [] if row.get("runningSince") is None else [{"startedAt": row["runningSince"]}]


def overruns(run: Mapping[str, Any], now: float) -> bool:
    """Whether an open run is past its deadline."""
    deadline = run.get("deadlineAt")
    return deadline is not None and now >= deadline


def overrunning(row: Row, now: float) -> bool:
    """Whether any run of an agent is; that the sweep has not noticed yet does not matter."""
    noticed = row.get("reason") == "overrunning" and bool(row.get("degraded"))
    return noticed or any(overruns(run, now) for run in open_runs(row))


def last_run(row: Row) -> str:
    """How the run that finished last went: how long it took and, unless all was well, its exit code."""
    run = row.get("lastRun") or {}
    parts = [] if run.get("durationMs") is None else [times.took(run["durationMs"])]
    if run.get("exitCode"):
        parts.append(f"exit {int(run['exitCode'])}")
    return ", ".join(parts) or "-"


def since(view: View, now: float) -> float | None:
    """The instant from which the health is what is shown; None where nobody knows."""
    row = view.row
    if view.health == "paused":
        return row.get("controlSince")
    if view.health == "late":
        return (_first_missed(row) or now) + float(row.get("graceMs", 0))
    return row.get("healthSince")


def _health(view: View, now: float) -> str:
    word, at = shown(view.health), since(view, now)
    return f"{word} {times.span(now - at)}" if view.health in DATED and at is not None else word


def due(view: View, now: float, zone: tzinfo | None) -> str:
    """When the next report is expected, or how many were not given."""
    row = view.row
    at = _first_missed(row) or row.get("dueAt")
    if view.health == "paused":
        return "-"
    if view.health == "degraded" and row.get("reason") == "overrunning":
        return "overrunning"
    if view.health in {"degraded", "late"} or (at is not None and _is_late(row, now)):
        return f"{_unanswered(row, now)} {'missed' if view.health == 'degraded' else 'late'}"
    return "-" if at is None else times.until(at, now, zone)


def _unanswered(row: Row, now: float) -> str:
    """How many expected instants passed in silence: exact for an interval; cron fires are the backend's."""
    at, every = _first_missed(row), (row.get("schedule") or {}).get("everyMs")
    misses = int(row.get("misses", DEFAULT_MISSES))
    if at is not None and every:
        count = int((now - row.get("graceMs", 0) - at) // every) + 1
        return str(max(misses if row.get("degraded") else 1, count))
    if row.get("degraded"):
        return f"{misses}+"
    # A second one would make an agent degraded that may miss two, unless the monitor holds its judgement
    held = row.get("degradeAt") is not None and now >= row["degradeAt"]
    return "1" if misses == DEFAULT_MISSES and not held else "1+"


def tasks(row: Row) -> str:
    """`open/stale`; a count at the limit gets a plus."""
    counts = [row.get("openTasks"), row.get("staleTasks")]
    if counts[0] is None and counts[1] is None:
        return "-"
    capped = bool(row.get("countsCapped"))
    return "/".join(
        "?" if count is None else f"{int(count)}{'+' if capped and count >= COUNT_LIMIT else ''}"
        for count in counts
    )


def said(view: View, now: float, zone: tzinfo | None = None) -> Text:
    """The agent's own words; where it said nothing, what is known instead; then what else is worth a look."""
    row = view.row
    text = Text(_running(view, now, zone))
    failures, allowed = int(row.get("consecutiveFailures", 0)), int(row.get("failAfter", 1))
    if 0 < failures < allowed:
        text.append(f"{failures} of {allowed} failures; ", style="yellow")
    elif failures > 1:
        text.append(f"{failures} failures in a row; ", style="red")
    if view.health == "degraded" and row.get("reason") == "never reported":
        text.append("never reported; ")
    status = str(row.get("status") or "")
    if status in STATUSES_WAITING_FOR_SOMEBODY and row.get("statusSince") is not None:
        text.append(f"{status} for {times.span(now - row['statusSince'])}: ")
    elif status not in {"", "ok", "error"} and not (status == WORKING and open_runs(row)):
        text.append(f"{shown(status)}: ")
    if view.nothing_done_for is not None:
        runs = int(row.get("runsSinceActed", 0))
        span = times.span(view.nothing_done_for)
        text.append(f"on time, nothing done for {span} ({_count(runs, 'run')}); ", style="yellow")
    _append_words(text, view)
    for note, style in _notes(view, now):
        if text.plain and not text.plain.endswith(("; ", ": ")):
            text.append(" · ", style="dim")
        text.append(note, style=style)
    return text[: len(text.plain.rstrip("; :"))]


def _running(view: View, now: float, zone: tzinfo | None) -> str:
    runs = open_runs(view.row)
    if not runs:
        return ""
    since = runs[0]["startedAt"]
    many = f"{len(runs)} running, since {times.since(since, now, zone)}"
    text = f"running for {times.span(now - since)}" if len(runs) == 1 else many
    unnoticed = view.row.get("reason") != "overrunning" and overrunning(view.row, now)
    return f"{text}, overrunning; " if unnoticed else f"{text}; "


def _fails(view: View) -> bool:
    """Whether the last error is the news: it was in the last report, or before a run that goes on now."""
    row = view.row
    failing = view.health == "failing" and row.get("status") == WORKING
    return bool(row.get("lastError")) and (row.get("status") == "error" or failing)


def _append_words(text: Text, view: View) -> None:
    row, error = view.row, view.row.get("lastError")
    if _fails(view):
        text.append(shown(str((error or {}).get("message", "")), SAID_LIMIT), style="red")
    elif row.get("summary"):
        text.append(shown(str(row["summary"]), SAID_LIMIT))
    elif row.get("result") == "noop" and view.nothing_done_for is None:
        runs = int(row.get("runsSinceActed", 0))
        text.append(f"noop, nothing done in {runs} runs" if runs > 1 else "noop")
    elif row.get("purpose"):
        text.append(shown(str(row["purpose"]), SAID_LIMIT), style="dim")


def _notes(view: View, now: float) -> Iterable[tuple[str, str]]:
    row, error = view.row, view.row.get("lastError")
    received, alive = row.get("lastReceivedAt"), row.get("lastHeartbeatAt")
    if received is not None and alive is not None and received - alive > DELIVERED_LATE_MS:
        yield f"delivered {times.span(received - alive)} late", "yellow"
    if error and not _fails(view) and now - error.get("at", 0) < ERROR_SHOWN_FOR_MS:
        yield (
            f"error {times.ago(error['at'], now)}: {shown(str(error.get('message', '')), SAID_LIMIT)}",
            "dim",
        )
    hosts = [shown(str(entry.get("host"))) for entry in row.get("hosts") or []]
    if len(hosts) > 1:
        yield f"hosts {', '.join(hosts)}", "yellow"
    if row.get("linked") is False:
        yield "not linked", "dim"


def totals(seen: Sequence[View]) -> dict[str, int]:
    """How many agents there are, in all and of each health as shown."""
    counts = {"agents": len(seen)} | dict.fromkeys(HEALTH_WORDS, 0)
    for view in seen:
        counts[view.health] = counts.get(view.health, 0) + 1
    return counts


def totals_line(counts: Mapping[str, int]) -> str:
    """`4 agents: 1 degraded, 3 ok`, as `totals` counted them; what to do when there are none."""
    words = [f"{count} {shown(word)}" for word, count in counts.items() if word != "agents" and count]
    head = _count(counts["agents"], "agent")
    return (
        f"{head}: {', '.join(words)}"
        if words
        else "no agents yet; register those of a schedule: heartbeat apply"
    )


def sweep_is_late(monitor: Mapping[str, Any], now: float) -> bool:
    """Whether the sweep should have run by now, and has not; also where it was stopped."""
    ran = monitor.get("sweepRanAt")
    if ran is None or monitor.get("stoppedAt") is not None:
        return True
    return bool(now - ran > SWEEP_LATE_AFTER * monitor.get("sweepEveryMs", SWEEP_EVERY_MS))


def sweep_line(monitor: Mapping[str, Any], now: float) -> Text:
    """The monitor's own heartbeat: without a sweep nobody becomes degraded, so its silence is said loudly."""
    ran, stopped = monitor.get("sweepRanAt"), monitor.get("stoppedAt")
    if stopped is not None:
        said = f"the sweep was stopped {times.ago(stopped, now)}, silence is not noticed: {STARTS_SWEEP}"
        return Text(f"{said} starts it again", style="bold red")
    if ran is None:
        return Text("the sweep has not run yet", style="yellow")
    if sweep_is_late(monitor, now):
        return Text(f"sweep late: last {times.ago(ran, now)}, silence is not noticed", style="bold red")
    line = Text(f"sweep {times.ago(ran, now)}")
    hold = monitor.get("holdUntil")
    if hold is not None and hold > now:
        line.append(
            f" · the backend was away: nobody is degraded before {times.clock(hold, now)}", style="yellow"
        )
    return line


def as_json(fleet: Fleet, seen: Sequence[View], counts: Mapping[str, int]) -> dict[str, Any]:
    """The rows as the deployment tells them, each with what only a clock can tell: `shownHealth` and
    `overrunning`; totals by the health as shown.
    """
    return {
        "asOf": fleet.as_of,
        "agents": [
            {**view.row, "shownHealth": view.health, "overrunning": overrunning(view.row, fleet.as_of)}
            for view in seen
        ],
        "totals": dict(counts),
        "monitor": dict(fleet.monitor),
    }


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
