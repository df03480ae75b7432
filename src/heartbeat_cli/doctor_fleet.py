"""What `heartbeat doctor` reads off the agents that the deployment watches, where our token may read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from heartbeat_cli import fleet, times
from heartbeat_cli.client import UNAUTHORIZED
from heartbeat_cli.doctor_finding import Checks, Finding, NotLooked, Shared, ok, warning, word
from heartbeat_cli.doctor_there import There
from heartbeat_cli.errors import Refused

if TYPE_CHECKING:
    from heartbeat_cli import dashboard

NAMED = 5  # agents in one sentence


class Watched:
    """The rows of the dashboard, asked for once."""

    def __init__(self, there: There) -> None:
        self.there = there
        self.rows: Shared[list[fleet.Row]] = Shared(self._rows)

    def may_read(self) -> bool:
        """Whether our token may; raises `NotLooked` where nobody knows."""
        return self.there.token.needed().get("scope") != "send"

    def unknown(self, agents: Sequence[str]) -> list[str]:
        """Those of `agents` that are not watched, as far as a token that may only send can tell."""
        request = {"at": self.there.now_ms()}
        found = []
        with self.there.connection() as connection:
            for agent in agents:
                try:
                    connection.query("queries/getAgentTaskCounts", "request", request | {"agent": agent})
                except Refused as refused:
                    if refused.code == "unknown_agent":
                        found.append(agent)
                    elif refused.code != UNAUTHORIZED:  # that one is the token's, and its check says so
                        raise
        return found

    def _rows(self) -> list[fleet.Row]:
        if not self.may_read():
            raise NotLooked("our token may only send, and the agents cannot be read with it")
        with self.there.connection() as connection:
            return fleet.rows(connection)


def checks(watched: Watched) -> Checks:
    """Every check of this group."""
    yield "agents", partial(agents, watched)
    yield "hosts", partial(hosts, watched)
    yield "linked", partial(linked, watched)


def agents(watched: Watched) -> Iterator[Finding]:
    """How the agents do, as the dashboard has it; here because a set-up that is right shows in it."""
    from heartbeat_cli import dashboard  # noqa: PLC0415 - rich takes 60 ms

    now = watched.there.now_there()
    views = dashboard.views(watched.rows.own(), now)
    line = dashboard.totals_line(dashboard.totals(views))
    told = [(view, said) for view in views if (said := _not_well(view, now))]
    if not told:
        yield ok(line)
    for view, said in told[:NAMED]:
        agent = view.row["agent"]
        yield warning(f"{agent} is {said}", f"heartbeat agents show {word(agent)}")
    if len(told) > NAMED:
        yield warning(f"{len(told) - NAMED} more agents are not well ({line})", "heartbeat dashboard")


def _not_well(view: dashboard.View, now: float) -> str | None:
    """What is the matter with an agent; None where nothing is."""
    from heartbeat_cli import dashboard  # noqa: PLC0415 - as above

    if view.nothing_done_for is not None:
        return f"on time, and has done nothing for {times.span(view.nothing_done_for)}"
    if view.health not in dashboard.BAD:
        return None
    since = dashboard.since(view, now)
    lasting = f" for {times.span(now - since)}" if since is not None else ""
    reason = f": {view.row['reason']}" if view.row.get("reason") else ""
    return f"{view.health}{lasting}{reason}"


def hosts(watched: Watched) -> Iterator[Finding]:
    """Agents for which several hosts report: two crontabs run them, or a host was renamed."""
    several = [row for row in watched.rows.needed() if len(row.get("hosts") or []) > 1]
    for row in several[:NAMED]:
        names = " and ".join(str(one["host"]) for one in row["hosts"])
        fix = f"give the row of {row['agent']} one of them in the column host, then heartbeat apply on each"
        yield warning(f"{row['agent']} was reported for by {names} within one expected instant", fix)
    if not several:
        yield ok("no agent is reported for by two hosts")


def linked(watched: Watched) -> Iterator[Finding]:
    """Agents that no row of the team's `agents` table shows: no page of theirs does then."""
    lost = [str(row["agent"]) for row in watched.rows.needed() if row.get("linked") is False]
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        yield warning(f"not linked: {', '.join(lost[:NAMED])}{more}: {fleet.NOT_LINKED}", fleet.LINK)
    else:
        yield ok("each agent is linked with its row of the agents table")
