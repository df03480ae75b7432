"""`heartbeat apply`."""

from __future__ import annotations

from typing import Annotated

import typer

from heartbeat_cli import apply, output, schedule
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.commands.spool import deliver_to
from heartbeat_cli.errors import SpoolProblem
from heartbeat_cli.output import Answer
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Which, count

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
        if not dry_run:
            _try_again(edge)
        done = "nothing was written (dry run)" if planned.changed else "nothing to change"
        return _answer("planned" if planned.changed else "unchanged", planned, [*lines, done])
    if not yes:
        edge.ask(lines, "Apply?", hint="add --yes, or --dry-run to look")
        lines = []
    # A person may have thought for longer than the first deadline: the second half has its own
    applied = apply.submit(edge.connect(), parsed.rows, page, source, dry_run=False)
    _try_again(edge)
    changed = len(applied.changed)
    return _answer(
        "applied",
        applied,
        [*lines, f"applied: {changed} agent{'' if changed == 1 else 's'} registered or changed"],
    )


def _try_again(edge: Edge) -> None:
    """What was refused before may do now: it has one more try. No problem of the spool is one of `apply`."""
    spool, url = Spool(edge.settings.data_dir), edge.settings.deployment()
    try:
        if not spool.retry(Which(deployment=url, state="aside")) or not spool.alone():
            return
        data = {"delivered": 0, "duplicates": 0, "refused": 0}
        notes = deliver_to(edge, spool, url, data)
        if data["delivered"]:
            notes.append(f"delivered {count(data['delivered'])} that had waited")
    except SpoolProblem as problem:
        notes = [str(problem)]
    for note in notes:
        output.say(f"heartbeat: {output.shown(note)}")


def _answer(outcome: str, result: apply.Outcome, lines: list[str]) -> Answer:
    return Answer({"outcome": outcome, "changes": result.changes, "unlisted": result.unlisted}, lines)
