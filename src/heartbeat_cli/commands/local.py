"""`heartbeat local up|down|status|logs|backup|restore|guide`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from heartbeat_cli import backup, local, output, times, tokens
from heartbeat_cli.client import UNAUTHORIZED, Connection, Deadline, run_admin
from heartbeat_cli.command import NONE, PLAIN, WHICH_HOME, Edge, register
from heartbeat_cli.errors import Refused, Unreachable, UsageProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.output import Answer, shown
from heartbeat_cli.private_files import exposed

app = typer.Typer(**PLAIN)

LINES_DEFAULT = 50  # of the log: a screenful
CHECK_FAILED = 3  # as every --check of this program
KB = 1_000  # bytes, as disks are sold
CHEAPEST = "queries/getMonitorStatus"  # every token may call it, whatever its scope; it reads one row


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
    made: list[tokens.LocalToken] = []
    wish = local.Wish(port, functions)
    with _instance(edge) as instance:

        def greet(brought: local.BroughtUp) -> None:
            edge.speaks_to(brought.record.url, f"{brought.record.url} (local)")
            made.extend(_first_token(edge, instance, brought.record.url))

        brought = local.up(instance, wish, edge.settings.inherited, edge.now_ms, greet)
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
    return Answer(data, [shown(line)], says_deployment=True)


@register(app, "local down", NONE)
def down(edge: Edge) -> Answer:
    """Stop the local backend. Its data stays."""
    with _instance(edge) as instance:
        done = local.down(instance)
    if done.pid is None:
        return Answer({"stopped": None, "killed": False}, ["the local backend is not running"])
    how = " was killed: it did not stop when asked" if done.killed else " has stopped"
    return Answer(
        {"stopped": done.pid, "killed": done.killed}, [f"the local backend (process {done.pid}){how}"]
    )


@register(app, "local status", NONE)
def status(
    edge: Edge,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 3 unless it runs, answers, and runs the current code.")
    ] = False,
) -> Answer:
    """Say whether the local backend runs, where, since when, and with which code."""
    with _instance(edge) as instance:
        found = local.status(instance)
    data: dict[str, Any] = {
        "state": found.state,
        "answers": found.answers,
        "older": list(found.older),
        "url": found.url,
        "siteUrl": found.site_url,
        "pid": found.pid,
        "startedAt": found.started_at,
        "version": found.version,
        "functions": found.functions,
        "dataBytes": found.data_bytes,
        "folder": str(found.folder),
    }
    return Answer(
        data,
        [shown(line) for line in _told(found, edge.now_ms())],
        exit_code=CHECK_FAILED if check and not found.healthy else 0,
        says_deployment=True,
    )


@register(app, "local logs", NONE)
def logs(
    edge: Edge,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many.")] = LINES_DEFAULT,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
) -> Answer:
    """Show the end of what the local backend wrote."""
    if follow and edge.json:
        raise UsageProblem("--follow never ends, and --json is one object", hint="Leave one of them out.")
    with _instance(edge) as instance:
        log = instance.log
        for line in log.follow(lines) if follow else ():
            if not output.tell(shown(line)):
                return Answer({})
        found = log.lines(lines)
    return Answer({"file": str(log.path), "lines": found}, [shown(line) for line in found])


@register(app, "local backup", NONE)
def back_up(
    edge: Edge,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> Answer:
    """Write all data of the local backend, as of now, into FILE; it may run meanwhile."""
    with _instance(edge) as instance:
        made = backup.backup(instance, file, edge.settings.inherited, force=force)
    data = {"file": str(file.absolute()), **_contents(made)}
    return Answer(data, [shown(f"{file} holds {_told_contents(made, edge.now_ms())}"), *_tables(made)])


@register(app, "local restore", NONE)
def restore(
    edge: Edge,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What local backup wrote.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Answer:
    """Put the data of FILE in place of the local backend's: shows both, asks, keeps the present data too."""
    inherited = edge.settings.inherited
    with _instance(edge) as instance, backup.restore(instance, file, inherited) as coming:
        if not yes:
            edge.ask(_told_coming(file, coming, edge.now_ms()), "Restore?", hint="add --yes")
        done = coming.accept(edge.now_ms())
    present = coming.present
    data = {
        "file": str(file.absolute()),
        **_contents(done.contents),
        "before": _contents(present) if isinstance(present, backup.Contents) else None,
        "keptIn": str(done.kept_in) if done.kept_in else None,
    }
    lines = [f"restored: {_told_contents(done.contents, edge.now_ms())}"]
    if done.kept_in is not None:
        lines.append(f"the data of before is kept in {done.kept_in}")
    lines.append("Start it: heartbeat local up")
    return Answer(data, [shown(line) for line in lines])


@register(app, "local guide", WHICH_HOME)
def guide(edge: Edge) -> Answer:
    """Say what to try with the local backend, where everything lies, and how to be rid of it."""
    settings, me = edge.settings, shlex.quote(sys.argv[0])
    folder = Instance(settings.data_dir).folder
    places = {
        "schedule": str(settings.schedule_path),
        "log": str(settings.log_path),
        "data": str(folder),
        "token": str(tokens.path(settings.config_dir)),
    }
    commands = {
        "look": f"{me} dashboard",
        "report": f'{me} send torv --summary "the plan is reviewed"',
        "one agent": f"{me} agents show hint",
        "cron lines": f"{me} cron print",
        "stop": f"{me} local down",
        "then delete": f"rm -r {shlex.quote(str(folder))}",
    }
    lines = [
        "",
        "Try next (with --url local if HEARTBEAT_URL or CONVEX_URL is set otherwise):",
        *(f"  {name:<12} {command}" for name, command in commands.items()),
        "Where things are:",
        *(f"  {name:<12} {place}" for name, place in places.items()),
    ]
    return Answer({"try": commands, "files": places}, [shown(line) for line in lines], says_deployment=True)


@contextmanager
def _instance(edge: Edge) -> Iterator[Instance]:
    instance = Instance(edge.settings.data_dir)
    with instance.usable():
        yield instance


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
    if token.replaced is not None:
        output.say(f"heartbeat: the token {token.replaced}, which was kept for it, is not valid any more;")
        output.say(f"  {token.fingerprint} is kept in its place in {tokens.path(edge.settings.config_dir)}")
    return [token]


def _contents(contents: backup.Contents) -> dict[str, Any]:
    return {
        "bytes": contents.size,
        "documents": sum(contents.tables.values()),
        "tables": dict(contents.tables),
        "lastCommitAt": contents.last_commit_at,
    }


def _told_contents(contents: backup.Contents, now: int) -> str:
    count, size = sum(contents.tables.values()), contents.size / KB
    last = times.ago(contents.last_commit_at, now)
    return f"{count:,} documents, {size:,.0f} kB; the last was written {last}"


def _tables(contents: backup.Contents) -> list[str]:
    return [shown(f"  {count:>9,}  {name}") for name, count in contents.tables.items() if count]


def _told_coming(file: Path, coming: backup.Coming, now: int) -> list[str]:
    present = coming.present
    if isinstance(present, backup.Contents):
        lines = [shown(f"there now: {_told_contents(present, now)}"), *_tables(present)]
    else:
        lines = [shown(f"there now: {present or 'nothing'}")]
    return [*lines, shown(f"in {file}: {_told_contents(coming.contents, now)}"), *_tables(coming.contents)]


def _told(found: local.LocalStatus, now: int) -> list[str]:
    if found.state == "stopped":
        where = f"; it was at {found.url}" if found.url else ""
        return [f"the local backend is not running{where}. Start it: heartbeat local up", *_data(found)]
    if found.state == "starting":
        return [f"the local backend is starting (process {found.pid})", *_data(found)]
    since = times.ago(found.started_at, now)
    lines = [f"the local backend runs at {found.url} (process {found.pid}, started {since})"]
    if found.older:
        lines.append(f"it still runs the older {' and '.join(found.older)}: heartbeat local up")
    if not found.answers:
        lines.append("it does not answer: heartbeat local up restarts it")
    lines.append(f"HTTP actions: {found.site_url}")
    if found.functions:
        lines.append(f"functions: {found.functions}")
    return [*lines, *_data(found)]


def _data(found: local.LocalStatus) -> list[str]:
    return [f"data: {found.folder} ({found.data_bytes / KB:,.0f} kB)"]
