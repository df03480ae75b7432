"""`heartbeat apply`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from heartbeat_cli import apply, crontab_plan, output, schedule
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.commands import cron
from heartbeat_cli.commands.spool import deliver_to
from heartbeat_cli.errors import CrontabProblem, SpoolProblem
from heartbeat_cli.output import Answer
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Which, count

app = typer.Typer(**PLAIN)


@register(app, "apply")
def apply_schedule(
    edge: Edge,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    agents_only: Annotated[bool, typer.Option("--agents-only", help="Leave the crontab alone.")] = False,
) -> Answer:
    """Put cron-schedule.md in force: register its agents with the deployment, and write this host's crontab.

    Shows what changes of both, asks, does it.
    """
    return put_in_force(edge, yes=yes, dry_run=dry_run, agents_only=agents_only)


def put_in_force(edge: Edge, *, yes: bool, dry_run: bool, agents_only: bool) -> Answer:
    """What `heartbeat apply` does."""
    settings = edge.settings
    page = settings.schedule_path
    parsed = schedule.load(page)
    for warning in parsed.warnings:
        output.say(f"heartbeat: {page}, {warning}")
    rows = [row for row in parsed.rows if row.host in {None, settings.host}]
    listed = [row.agent for row in parsed.rows]
    plan = None if agents_only else _crontab(edge, rows)
    if plan is not None and not dry_run:
        crontab_plan.log_folder(plan.host)
    source = apply.source(settings.host, settings.home)
    rows, note = apply.understood(edge.connect(), rows)
    output.say_notes([note] if note else [])
    planned = apply.submit(edge.connect(), rows, listed, page, source, dry_run=True)
    lines = [*apply.lines(planned, rows, edge.now_ms()), *_others(len(listed) - len(rows))]
    if plan is not None:
        output.say_notes(plan.notes)
        cron.warn_of_token(settings)
        lines += plan.diff
    there = bool(planned.changed) or planned.stopped_at is not None
    changes = there or (plan is not None and plan.changes)
    if dry_run or not changes:
        if not dry_run:
            _try_again(edge)
        done = "nothing was written (dry run)" if changes else "nothing to change"
        return _answer("planned" if changes else "unchanged", planned, plan, [*lines, done])
    if not yes:
        edge.ask(lines, "Apply?", hint="add --yes, or --dry-run to look")
        lines = []
    # A person may have thought for longer than the first deadline: the second half has its own
    applied = planned
    if there:
        applied = apply.submit(edge.connect(), rows, listed, page, source, dry_run=False)
        changed = len(applied.changed)
        lines.append(f"applied: {changed} agent{'' if changed == 1 else 's'} registered or changed")
    _try_again(edge)
    if plan is not None:
        lines += _write(edge, plan, lines)
    return _answer("applied", applied, plan, lines)


def _crontab(edge: Edge, rows: list[schedule.Row]) -> crontab_plan.Plan:
    try:
        return crontab_plan.install(edge.settings, rows, edge.now_ms())
    except CrontabProblem as problem:
        hint = "; ".join(filter(None, [problem.hint, "or leave it alone: heartbeat apply --agents-only"]))
        raise CrontabProblem(str(problem), hint=hint) from None


def _write(edge: Edge, plan: crontab_plan.Plan, lines: list[str]) -> list[str]:
    """The second half; what the first one did is told also where this fails."""
    try:
        return plan.carry_out(edge.now_ms())
    except CrontabProblem:
        if lines and not edge.json:
            edge.show(Answer({}, lines))
        raise


def _others(count: int) -> list[str]:
    if not count:
        return []
    return [f"  . {count} {'row concerns' if count == 1 else 'rows concern'} other hosts only"]


def _try_again(edge: Edge) -> None:
    """What was refused before may do now: it has one more try. No problem of the spool is one of `apply`."""
    spool, url = Spool(edge.settings.data_dir), edge.settings.spooled_as()
    try:
        if not spool.retry(Which(deployment=url, state="aside")) or not spool.alone():
            return
        data = {"delivered": 0, "duplicates": 0, "refused": 0}
        notes = deliver_to(edge, spool, url, data)
        if data["delivered"]:
            notes.append(f"delivered {count(data['delivered'])} that had waited")
    except SpoolProblem as problem:
        notes = [str(problem)]
    output.say_notes(notes)


def _answer(outcome: str, result: apply.Outcome, plan: crontab_plan.Plan | None, lines: list[str]) -> Answer:
    data: dict[str, Any] = {"outcome": outcome, "changes": result.changes, "unlisted": result.unlisted}
    if result.stopped_at is not None:
        data["stoppedAt"] = result.stopped_at
    if plan is not None:
        data["crontab"] = cron.as_json(plan)
    return Answer(data, lines)
