"""`heartbeat cron print|install|remove|check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from heartbeat_cli import (
    crontab,
    crontab_check,
    crontab_lines,
    crontab_plan,
    crontab_text,
    fleet,
    output,
    schedule,
    tokens,
)
from heartbeat_cli.command import PLAIN, WHICH_DEPLOYMENT, WHICH_HOME, Edge, register
from heartbeat_cli.config import TOKEN_VARIABLE, Settings
from heartbeat_cli.errors import CrontabProblem, HeartbeatError
from heartbeat_cli.output import Answer
from heartbeat_cli.schedule import Row

DIFFERS = 1  # exit code of `check`

app = typer.Typer(**PLAIN)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


@register(app, "cron print", WHICH_DEPLOYMENT)
def print_lines(edge: Edge) -> Answer:
    """The exact block that cron install writes into the crontab."""
    settings = edge.settings
    try:
        text = crontab.read(settings.inherited)
    except CrontabProblem:  # it may be for another host's, or be looked at where there is no cron
        text = None
    host = crontab_lines.host_of(settings, text)
    rows = _rows(settings)
    entries = crontab_lines.entries(rows, host, str(settings.schedule_path), edge.now_ms())
    crontab_plan.log_folder(host)
    warn_of_token(settings)
    output.say_notes(crontab_lines.unreported(rows, host))
    block = crontab_text.with_block(b"", host.block, crontab_lines.block(entries, host))
    lines = [line.decode(*crontab_text.ENCODING) for line in block.splitlines()]
    told = [
        {"agent": entry.row.agent, "line": entry.row.line, "crontab": list(entry.lines)} for entry in entries
    ]
    return Answer({"entries": told, "block": lines}, lines)


@register(app, "cron install", WHICH_DEPLOYMENT)
def install(edge: Edge, yes: Yes = False, dry_run: DryRun = False) -> Answer:
    """Write the lines of the schedule into this user's crontab: shows what changes, asks, does it."""
    return install_lines(edge, yes=yes, dry_run=dry_run)


def install_lines(edge: Edge, *, yes: bool, dry_run: bool) -> Answer:
    """What `heartbeat cron install` does."""
    settings = edge.settings
    rows = _rows(settings)
    plan = crontab_plan.install(settings, rows, edge.now_ms())
    warn_of_token(settings)
    if not dry_run:
        crontab_plan.log_folder(plan.host)
    return _done(edge, plan, "installed", yes=yes, dry_run=dry_run)


@register(app, "cron remove", WHICH_HOME)
def remove(edge: Edge, yes: Yes = False, dry_run: DryRun = False) -> Answer:
    """Take our lines out of the crontab, and put back those that they had replaced."""
    return _done(edge, crontab_plan.remove(edge.settings), "removed", yes=yes, dry_run=dry_run)


@register(app, "cron check")
def check(
    edge: Edge,
    here: Annotated[bool, typer.Option("--crontab-only", help="Do not ask the deployment.")] = False,
) -> Answer:
    """Compare the table with the crontab and with what the deployment expects; exit 1 where they differ."""
    settings = edge.settings
    rows = _rows(settings)
    text = crontab.read(settings.inherited) if crontab_lines.concerned(rows, settings.host) else None
    host = crontab_lines.host_of(settings, text)
    output.say_notes(crontab_lines.unreported(rows, host))
    found = crontab_check.check(rows, host, text, None, edge.now_ms())
    if not here:
        try:
            agents = fleet.fetch(edge.connect(), edge.now_ms).agents
        except HeartbeatError:
            if found and not edge.json:
                edge.show(Answer({}, _told(found)))
            raise
        found = crontab_check.check(rows, host, text, agents, edge.now_ms())
    data = [
        {"kind": each.kind, "agent": each.agent, "what": each.what, "command": each.command} for each in found
    ]
    if found:
        return Answer({"differences": data}, _told(found), exit_code=DIFFERS)
    count = len(crontab_lines.lined(rows, host))
    asked = "the crontab has" if here else "the crontab and the deployment have"
    return Answer({"differences": data}, [f"{asked} what the table says ({count} agents)"])


def _told(found: Sequence[crontab_check.Difference]) -> list[str]:
    return [line for each in found for line in (each.what, f"  mend it: {each.command}")]


def warn_of_token(settings: Settings) -> None:
    """A secret goes into no crontab: say what cron is to use instead of this shell's."""
    if settings.token_source != TOKEN_VARIABLE or settings.url is None:
        return
    output.say(f"heartbeat: the token is from {TOKEN_VARIABLE}, which cron will not have;")
    if tokens.stored(settings.config_dir, settings.url, []) is not None:
        output.say(f"  cron uses the one kept in {tokens.path(settings.config_dir)}")
    else:
        output.say(f"  keep it: printenv {TOKEN_VARIABLE} | heartbeat token save --url {settings.url}")


def as_json(plan: crontab_plan.Plan) -> dict[str, Any]:
    """What changes in the crontab, for JSON."""
    return {"changed": plan.changes, "diff": plan.diff[1:], "notes": list(plan.notes)}


def _rows(settings: Settings) -> Sequence[Row]:
    parsed = schedule.load(settings.schedule_path)
    for warning in parsed.warnings:
        output.say(f"heartbeat: {settings.schedule_path}, {warning}")
    return parsed.rows


def _done(edge: Edge, plan: crontab_plan.Plan, word: str, *, yes: bool, dry_run: bool) -> Answer:
    output.say_notes(plan.notes)
    lines = list(plan.diff)
    data = as_json(plan)
    if not plan.changes:
        return Answer({"outcome": "unchanged", **data}, ["nothing to change in the crontab"])
    if dry_run:
        return Answer({"outcome": "planned", **data}, [*lines, "nothing was written (dry run)"])
    if not yes:
        edge.ask(lines, "Write this crontab?", hint="add --yes, or --dry-run to look")
        lines = []
    return Answer({"outcome": word, **data}, [*lines, *plan.carry_out(edge.now_ms())])
