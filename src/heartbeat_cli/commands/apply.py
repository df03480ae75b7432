"""`heartbeat apply`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from heartbeat_cli import apply, output, schedule
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.errors import UsageProblem
from heartbeat_cli.output import Answer

app = typer.Typer(**PLAIN)


@register(app, "apply")
def apply_schedule(
    edge: Edge,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> Answer:
    """Register the agents of cron-schedule.md: shows what changes, asks, does it."""
    settings = edge.settings
    page = settings.schedule_path
    parsed = schedule.load(page)
    for warning in parsed.warnings:
        output.say(f"heartbeat: {page}, {output.shown(warning)}")
    source = apply.source(settings.host, settings.home)
    planned = apply.submit(edge.connect(), parsed.rows, page, source, dry_run=True)
    lines = apply.lines(planned, parsed.rows, edge.now_ms())
    if dry_run or not planned.changed:
        done = "nothing was written (dry run)" if planned.changed else "nothing to change"
        return _answer("planned" if planned.changed else "unchanged", planned, [*lines, done])
    if not yes:
        _ask(edge, lines)
        lines = []
    # A person may have thought for longer than the first deadline: the second half has its own
    applied = apply.submit(edge.connect(), parsed.rows, page, source, dry_run=False)
    count = len(applied.changed)
    return _answer(
        "applied",
        applied,
        [*lines, f"applied: {count} agent{'' if count == 1 else 's'} registered or changed"],
    )


def _ask(edge: Edge, lines: list[str]) -> None:
    if not edge.json:
        edge.show(Answer({}, lines))
    if edge.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageProblem(
            "nobody can be asked here, so nothing was changed", hint="add --yes, or --dry-run to look"
        )
    if not typer.confirm("Apply?", err=True):
        raise UsageProblem("not confirmed, so nothing was changed")


def _answer(outcome: str, result: apply.Outcome, lines: list[str]) -> Answer:
    return Answer({"outcome": outcome, "changes": result.changes, "unlisted": result.unlisted}, lines)
