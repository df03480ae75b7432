"""`heartbeat dashboard`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from heartbeat_cli import contract, dashboard, fleet, output, times
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.dashboard import BAD, HEALTH_WORDS
from heartbeat_cli.errors import SpoolProblem, Unreachable, UsageProblem
from heartbeat_cli.output import Answer, Table
from heartbeat_cli.spool import Spool, told

CHECK_FAILED = 3  # exit code of --check; apart from every failure of the program itself

LAST_KNOWN = ("asOf", "agents", "totals")  # of an answer: what the JSON of its failure tells all the same

app = typer.Typer(**PLAIN)


@register(app, "dashboard")
def show(
    edge: Edge,
    health: Annotated[
        str | None,
        typer.Option(
            "--health", metavar="WORDS", help="Only these, as in degraded,late (totals stay whole)."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 3 when any agent is degraded or failing.")
    ] = False,
) -> Answer:
    """Every watched agent, worst first."""
    wanted = _wanted(health)
    spool = _spool(edge)
    try:
        found = fleet.fetch(edge.connect(), edge.now_ms)
    except Unreachable as unreachable:
        known = fleet.last_known(edge.settings.data_dir, edge.settings.deployment())
        if known is not None:
            age = times.ago(known.as_of, edge.now_ms())
            banner = f"as of {age}: the deployment cannot be reached now"
            answer = _answer(edge, known, wanted, banner, spool)
            unreachable.details["lastKnown"] = {name: answer.data[name] for name in LAST_KNOWN}
            if not edge.json:
                edge.show(answer)
        unreachable.details["spool"] = spool
        raise
    output.say_notes(contract.notes(found.monitor.get("contractVersion"), edge.settings.deployment()))
    fleet.keep(found, edge.settings.data_dir, edge.settings.deployment())
    answer = _answer(edge, found, wanted, None, spool)
    if check and any(answer.data["totals"].get(word) for word in BAD):
        answer.exit_code = CHECK_FAILED
    return answer


def _wanted(health: str | None) -> frozenset[str] | None:
    if health is None:
        return None
    words = frozenset(word.strip().lower() for word in health.split(",") if word.strip())
    unknown = sorted(words - set(HEALTH_WORDS))
    if unknown or not words:
        raise UsageProblem(
            f"--health '{health}' is not made of health words", hint=f"give some of: {','.join(HEALTH_WORDS)}"
        )
    return words


def _answer(
    edge: Edge,
    found: fleet.Fleet,
    wanted: frozenset[str] | None,
    banner: str | None,
    spool: dict[str, int] | None,
) -> Answer:
    seen = dashboard.views(found.agents, found.as_of)
    counts = dashboard.totals(seen)
    if wanted is not None:
        seen = [view for view in seen if view.health in wanted]
    summary = Text.assemble(
        dashboard.totals_line(counts), " · ", dashboard.sweep_line(found.monitor, found.as_of)
    )
    lines: list[str | Text | Table] = [banner] if banner else []
    if seen:
        lines.append(dashboard.table(seen, found.as_of, None))
    return Answer(
        dashboard.as_json(found, seen, counts) | {"spool": spool},
        [*lines, summary, edge.settings.shown_deployment() or ""],
        says_deployment=True,
    )


def _spool(edge: Edge) -> dict[str, int] | None:
    """What this host has not delivered, which the deployment cannot know; None if that cannot be read."""
    spool = Spool(edge.settings.data_dir)
    output.say_notes(told(spool, edge.now_ms()))
    try:
        counts = spool.counts()
    except SpoolProblem:
        return None
    return {"waiting": counts.waiting, "aside": counts.aside}
