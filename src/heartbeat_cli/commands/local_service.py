"""`heartbeat local up|down|install|uninstall|keep`: what starts and stops the local backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from heartbeat_cli import crontab_lines, local, output, service, service_keep, tokens
from heartbeat_cli.client import UNAUTHORIZED, Connection, Deadline, run_admin
from heartbeat_cli.command import NONE, PLAIN, Edge, register
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable, UsageProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.output import Answer, shown
from heartbeat_cli.private_files import exposed
from heartbeat_cli.service import Form, Plan, Service

app = typer.Typer(**PLAIN)

SWEEP = "heartbeat/maintenance:sweep"
CHEAPEST = "queries/getMonitorStatus"  # every token may call it, whatever its scope; it reads one row

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


@register(app, "local up", NONE)
def up(
    edge: Edge,
    port: Annotated[
        int | None,
        typer.Option("--port", help="Where it listens; 0: any free port. Kept for the next time. [7210]"),
    ] = None,
    functions: Annotated[
        Path | None,
        typer.Option("--functions", metavar="FOLDER", help="Other Convex functions, or a bundle of them."),
    ] = None,
) -> Answer:
    """Start the local backend, or restart one whose code has changed. When it returns, it is ready."""
    data, line = _bring_up(edge, service_of(edge), local.Wish(port, functions))
    return Answer(data, [line], says_deployment=True)


@register(app, "local down", NONE)
def down(edge: Edge) -> Answer:
    """Stop the local backend, until the next `local up`. Its data stays."""
    mine = service_of(edge)
    with mine.instance.usable():
        done = service.down(mine)
    if done.pid is None:
        lines = ["the local backend is not running"]
    else:
        how = " was killed: it did not stop when asked" if done.killed else " has stopped"
        lines = [f"the local backend (process {done.pid}){how}"]
    if mine.standing().form is not None:
        lines.append("it stays down, also when this machine starts again, until: heartbeat local up")
    return Answer({"stopped": done.pid, "killed": done.killed}, lines)


@register(app, "local install", NONE)
def install(
    edge: Edge,
    form: Annotated[
        str | None,
        typer.Option("--with", metavar="systemd|cron", help="What is to start it. [systemd, else cron]"),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Answer:
    """Have the local backend start at boot and after a crash, and now: shows what is written, and asks."""
    mine = service_of(edge)
    with mine.instance.usable():
        plan = mine.plan(_form(form))
        if dry_run:
            return _planned(plan)
        kept = _apply(edge, mine, plan, yes, "Install?")
        try:
            data, line = _bring_up(edge, mine, local.Wish(functions=mine.last_functions()))
        except HeartbeatError as error:
            error.hint = f"{error.hint or ''} It is installed all the same, and will be tried again.".strip()
            raise
        standing = mine.standing()
    lines = [
        f"{plan.form} starts it from now on: heartbeat local uninstall takes that away"
        if plan.changes
        else f"{plan.form} starts it, as before",
        *_told_kept(kept),
        *standing.notes,
        line,
    ]
    told = _told_plan(plan, "installed" if plan.changes else "unchanged", kept)
    return Answer(
        told | {"notes": list(standing.notes), "up": data}, list(map(shown, lines)), says_deployment=True
    )


@register(app, "local uninstall", NONE)
def uninstall(edge: Edge, yes: Yes = False, dry_run: DryRun = False) -> Answer:
    """Take away what `local install` has written. A backend that runs goes on."""
    mine = service_of(edge)
    with mine.instance.usable():
        plan = mine.plan_removal()
        if dry_run or not plan.changes:
            return _planned(plan)
        ran = mine.instance.alive()
        kept = _apply(edge, mine, plan, yes, "Uninstall?")
        lines = ["nothing starts it from now on but heartbeat local up", *_told_kept(kept)]
        if ran and not mine.instance.alive():  # systemd has taken its process with it
            lines.append(_bring_up(edge, mine, local.Wish(functions=mine.last_functions()))[1])
    return Answer(_told_plan(plan, "uninstalled", kept), list(map(shown, lines)), says_deployment=True)


@register(app, "local keep", NONE)
def keep(
    edge: Edge,
    systemd: Annotated[
        bool, typer.Option(service_keep.SYSTEMD, help="For its unit: end one that runs.")
    ] = False,
) -> Answer:
    """For cron and systemd: start it as it ran last, unless it runs, or `local down` stopped it."""
    brought = service_keep.run(os.environ, edge.now_ms, systemd=systemd)
    lines = [] if brought is None else [f"the local backend is {brought.outcome}: {brought.record.url}"]
    return Answer({"outcome": brought and brought.outcome}, lines, says_deployment=True)


def stop_for_good(edge: Edge, mine: Service) -> tuple[local.BroughtDown, Plan, Path | None]:
    """Stop the backend and take away what starts it: what became of the two, and where the crontab of before
    is kept.
    """
    with mine.instance.usable():
        done = service.down(mine)
        plan = mine.plan_removal()
        return done, plan, mine.apply(plan, edge.now_ms())


def service_of(edge: Edge) -> Service:
    """This user's local backend as something that cron or systemd starts."""
    settings = edge.settings
    instance = Instance(settings.data_dir)
    return Service(instance, crontab_lines.program(), settings.config_dir.parent, settings.inherited)


def _form(word: str | None) -> Form | None:
    if word is None or word in get_args(Form):
        return cast(Form | None, word)
    raise UsageProblem(f"--with {word} is not one of {', '.join(get_args(Form))}")


def _apply(edge: Edge, mine: Service, plan: Plan, yes: bool, question: str) -> Path | None:
    if plan.changes and not yes:
        edge.ask(_why(plan), question, hint="add --yes, or --dry-run to look")
    return mine.apply(plan, edge.now_ms())


def _why(plan: Plan) -> list[str]:
    return [*([plan.why] if plan.why else []), *plan.lines()]


def _planned(plan: Plan) -> Answer:
    done = "nothing was written (dry run)" if plan.changes else "nothing to change"
    outcome = "planned" if plan.changes else "unchanged"
    return Answer(_told_plan(plan, outcome, None), [*_why(plan), done], says_deployment=True)


def _told_plan(plan: Plan, outcome: str, kept: Path | None) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "form": plan.form,
        "why": plan.why or None,
        "lines": plan.lines(),
        "keptIn": str(kept) if kept else None,
    }


def _told_kept(kept: Path | None) -> list[str]:
    return [] if kept is None else [f"the crontab of before is kept in {kept}"]


def _bring_up(edge: Edge, mine: Service, wish: local.Wish) -> tuple[dict[str, Any], str]:
    """What came of `up`, for JSON and for people."""
    made: list[tokens.LocalToken] = []

    def greet(brought: local.BroughtUp) -> None:
        edge.speaks_to(brought.record.url, f"{brought.record.url} (local)")
        made.extend(_first_token(edge, mine.instance, brought.record.url))

    with mine.instance.usable():
        brought = service.up(mine, wish, edge.now_ms, greet)
    record = brought.record
    because = f", because {' and '.join(brought.reasons)}" if brought.reasons else ""
    data = {
        "outcome": brought.outcome,
        "reasons": list(brought.reasons),
        "url": record.url,
        "siteUrl": record.siteUrl,
        "pid": record.pid,
        "startedAt": record.startedAt,
        "token": made[0].fingerprint if made else None,
        "replacedToken": made[0].replaced if made else None,
    }
    line = f"the local backend is {brought.outcome}{because}: {record.url} (process {record.pid})"
    return data, line


def _first_token(edge: Edge, instance: Instance, url: str) -> list[tokens.LocalToken]:
    """See to it that this user has a token there that works; nothing where the functions know no tokens."""
    trouble = exposed(instance.admin_key)
    if trouble is not None:
        output.say(f"heartbeat: {trouble}")
    admin_key = instance.admin_key.read_text(encoding="utf-8").splitlines()[0]
    deadline = Deadline(edge.settings.deadline_s)

    def works(token: str) -> bool:
        try:
            Connection(url, token, deadline=deadline, transport="http").query(CHEAPEST, "request", {})
        except Refused as refused:
            if refused.code != UNAUTHORIZED:
                raise
            return False
        return True

    def admin(path: str, args: Mapping[str, Any]) -> Any:
        return run_admin(url, admin_key, path, args, deadline)

    try:
        token = tokens.ensure_local_token(edge.settings.config_dir, url, works, admin)
    except Unreachable as problem:
        if problem.cause != "function_missing":
            raise
        output.say(f"heartbeat: no token was made: these functions have no {tokens.FIRST_TOKEN_FUNCTION}")
        return []
    # before the first token the sweep rested: it begins now, and not only after its next minute
    with suppress(Unreachable):
        admin(SWEEP, {})
    if token.replaced is not None:
        output.say(f"heartbeat: the token {token.replaced}, which was kept for it, is not valid any more;")
        output.say(f"  {token.fingerprint} is kept in its place in {tokens.path(edge.settings.config_dir)}")
    return [token]
