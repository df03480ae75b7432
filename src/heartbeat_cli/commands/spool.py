"""`heartbeat spool list|deliver|retry|drop|path`."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated, Any

import typer

from heartbeat_cli import clock, output, times
from heartbeat_cli.command import PLAIN, WHICH_HOME, Edge, register
from heartbeat_cli.config_address import LOCAL_WORD
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.deliver import Delivery, answered
from heartbeat_cli.errors import Refused, SettingsProblem, SpoolProblem, Unreachable, UsageProblem
from heartbeat_cli.heartbeat import agent_name
from heartbeat_cli.output import Answer, Table
from heartbeat_cli.spool import STILL_WAITING, Spool
from heartbeat_cli.spool_entry import Entry, State, Trouble, Which, count
from heartbeat_cli.tokens import fingerprint

LISTED = 50  # entries; the totals tell of the others
TURN_POLL_S = 0.05  # how often to look whether another process has finished delivering

app = typer.Typer(**PLAIN)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Heartbeat ids, from spool list.")]
AgentOption = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Those of one agent.")]


@register(app, "spool list", WHICH_HOME)
def list_entries(
    edge: Edge,
    agent: AgentOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = LISTED,
) -> Answer:
    """What waits to be delivered, and what was set aside: oldest first."""
    spool, now = Spool(edge.settings.data_dir), edge.now_ms()
    counts = spool.counts()
    entries = spool.entries(_which(agent=agent), limit)
    table = Table(("heartbeat", "agent", "sent", "state", "why and where"))
    for entry in entries:
        table.rows.append(
            (
                entry.heartbeat_id,
                entry.agent,
                times.ago(entry.sent.wall_ms, now),
                entry.state,
                f"{entry.reason or 'not tried yet'} · {entry.deployment}",
            )
        )
    data = {
        "path": str(spool.path),
        "waiting": counts.waiting,
        "aside": counts.aside,
        "entries": [_as_json(entry) for entry in entries],
    }
    return Answer(data, [*([table] if entries else []), _totals(spool)])


def _which(ids: list[str] | None = None, agent: str | None = None, state: State | None = None) -> Which:
    return Which(tuple(ids or ()), agent_name(agent) if agent else None, state=state)


def _as_json(entry: Entry) -> dict[str, Any]:
    told = {
        "heartbeatId": entry.heartbeat_id,
        "agent": entry.agent,
        "deployment": entry.deployment,
        "fingerprint": entry.fingerprint,
        "sentAt": entry.sent.wall_ms,
        "state": entry.state,
        "tries": entry.tries,
        "nextTryAt": entry.next_try_at or None,
        "code": entry.code,
        "reason": entry.reason,
    }
    return {name: value for name, value in told.items() if value is not None}


def _totals(spool: Spool) -> str:
    counts = spool.counts()
    if not counts.waiting and not counts.aside:
        return "the spool is empty"
    return f"{count(counts.waiting)} waiting, {counts.aside:,} set aside"


@register(app, "spool deliver")
def deliver(
    edge: Edge,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="For cron: leaves alone what was away of late, says little.")
    ] = False,
) -> Answer:
    """Deliver everything that waits and is due, to each deployment it was sent to."""
    return deliver_all(edge, quiet=quiet)


@register(app, "spool retry")
def retry(edge: Edge, ids: Ids = None, agent: AgentOption = None) -> Answer:
    """Try again now: what was put off, and what was set aside; all of it, or these."""
    spool = Spool(edge.settings.data_dir)
    spool.retry(_which(ids, agent))
    return deliver_all(edge)


@register(app, "spool drop", WHICH_HOME)
def drop(  # noqa: PLR0913, PLR0917 - its options
    edge: Edge,
    ids: Ids = None,
    agent: AgentOption = None,
    aside: Annotated[bool, typer.Option("--aside", help="Those that were set aside.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Answer:
    """Give up heartbeats that were never delivered: shows them, asks, keeps them in a file."""
    if not (ids or agent or aside or everything):
        raise UsageProblem("nothing was said to be dropped", hint="give ids, --agent, --aside or --all")
    spool = Spool(edge.settings.data_dir)
    chosen = spool.entries(_which(ids, agent, "aside" if aside else None))
    if not chosen:
        return Answer({"dropped": 0, "file": None}, ["there is nothing of that kind in the spool"])
    if not yes:
        table = Table(("heartbeat", "agent", "sent", "why"))
        for entry in chosen[:LISTED]:
            sent = times.ago(entry.sent.wall_ms, edge.now_ms())
            table.rows.append((entry.heartbeat_id, entry.agent, sent, entry.reason or "not tried yet"))
        edge.ask([table, f"{count(len(chosen))} in all"], "Drop?", hint="add --yes; spool list to look")
    file = spool.drop([entry.heartbeat_id for entry in chosen], edge.now_ms())
    if file is None:
        return Answer({"dropped": 0, "file": None}, ["all of it has been delivered meanwhile"])
    return Answer(
        {"dropped": len(chosen), "file": str(file)}, [f"dropped {count(len(chosen))}; kept in {file}"]
    )


@register(app, "spool path", WHICH_HOME)
def show_path(edge: Edge) -> Answer:
    """Where the spool is."""
    spool = Spool(edge.settings.data_dir)
    return Answer({"path": str(spool.path)}, [str(spool.path)])


def deliver_all(edge: Edge, *, quiet: bool = False) -> Answer:
    """Deliver what is due; for whom it does not work is told, and stops nobody else's.

    `quiet` is for those who were not asked to: deployments that were away of late are left alone.
    """
    spool = Spool(edge.settings.data_dir)
    data = {"delivered": 0, "duplicates": 0, "refused": 0}
    lines: list[str] = []
    if not spool.exists():
        pass
    elif _my_turn(spool, edge.settings.deadline_s, wait=not quiet):
        try:
            for url in spool.deployments(edge.now_ms(), put_off_too=not quiet):
                if edge.flags.url is None or url == edge.settings.spooled_as():
                    notes = deliver_to(edge, spool, url, data)
                    output.say_notes([] if quiet else notes)
        finally:
            spool.done()
    else:
        lines.append("another process is delivering")
    counts = spool.counts()
    lines += [f"delivered {count(data['delivered'])}", _totals(spool)]
    return Answer(
        data | {"waiting": counts.waiting, "aside": counts.aside},
        [] if quiet else lines,
        exit_code=STILL_WAITING if counts.waiting else 0,
        says_deployment=True,
    )


def _my_turn(spool: Spool, seconds: float, *, wait: bool) -> bool:
    deadline = Deadline(seconds)
    while not spool.alone():
        if not wait or deadline.left() <= 0:
            return False
        time.sleep(TURN_POLL_S)
    return True


def deliver_to(edge: Edge, spool: Spool, url: str, data: dict[str, int]) -> list[str]:
    """Deliver what is due for one deployment, counting in `data`; returns what to tell people."""
    notes: list[str] = []
    away: Trouble | None = None
    try:
        there = edge.at(url)
        deadline = Deadline(there.settings.deadline_s)

        def may_go_on() -> bool:
            deadline.renew()  # each call has the whole of it: ten thousand take as long as they take
            return True

        token = fingerprint(there.settings.needed_token())
        delivery = Delivery(spool, url, token, there.connect(deadline), clock.now, may_go_on)
        try:
            delivery.run()
        finally:
            data["delivered"] += delivery.delivered
            data["duplicates"] += delivery.duplicates
            data["refused"] += delivery.aside
            notes += delivery.odd(there.settings.deployment())
    except (Refused, Unreachable, SettingsProblem, SpoolProblem) as error:
        notes += [f"what waits for {url} stays: {error}", *([error.hint] if error.hint else [])]
        if url == LOCAL_WORD and edge.settings.url and not edge.settings.is_local:
            notes.append(f"to have it go there as well: heartbeat connect {edge.settings.url}")
        if isinstance(error, Unreachable) and not answered(error):
            away = Trouble(error.code, str(error))
    with contextlib.suppress(SpoolProblem):
        spool.contact(url, edge.now_ms(), away)
    return notes
