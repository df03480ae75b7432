"""`heartbeat local status|logs|backup|restore|check|guide`, and those of commands/local_service.py."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from heartbeat_cli import backup, local, output, times, tokens
from heartbeat_cli.command import NONE, PLAIN, WHICH_HOME, Edge, register
from heartbeat_cli.commands import local_service
from heartbeat_cli.errors import UsageProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.output import Answer, shown
from heartbeat_cli.service import Standing

app, own = typer.Typer(**PLAIN), typer.Typer(**PLAIN)
app.add_typer(local_service.app)
app.add_typer(own)

LINES_DEFAULT = 50  # of the log: a screenful
CHECK_FAILED = 3  # as every --check of this program
KB = 1_000  # bytes, as disks are sold


@register(own, "local status", NONE)
def status(
    edge: Edge,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 3 unless it runs, answers, and runs the current code.")
    ] = False,
) -> Answer:
    """Say whether the local backend runs, where, since when, with which code, and what starts it."""
    with _instance(edge) as instance:
        found = local.status(instance)
        standing = local_service.service_of(edge).standing()
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
        "staysDown": found.stays_down,
        "service": {"form": standing.form, "inPlace": standing.in_place, "notes": list(standing.notes)},
    }
    lines = [*_told(found, edge.now_ms()), *_told_service(found, standing)]
    return Answer(
        data,
        lines,
        exit_code=CHECK_FAILED if check and not found.healthy else 0,
        says_deployment=True,
    )


@register(own, "local logs", NONE)
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
    return Answer({"file": str(log.path), "lines": found}, found)


@register(own, "local backup", NONE)
def back_up(
    edge: Edge,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> Answer:
    """Write all data of the local backend, as of now, into FILE; it may run meanwhile."""
    with _instance(edge) as instance:
        made = backup.backup(instance, file, edge.settings.inherited, force=force)
    data = {"file": str(file.absolute()), **_contents(made)}
    return Answer(data, [f"{file} holds {_told_contents(made, edge.now_ms())}", *_tables(made)])


@register(own, "local restore", NONE)
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
    return Answer(data, lines)


@register(own, "local check", NONE)
def check(edge: Edge) -> Answer:
    """Read all data of the local backend, and say whether it is whole; it may run meanwhile."""
    with _instance(edge) as instance:
        found = backup.check(instance, edge.settings.inherited)
    line = f"the data is whole: {_told_contents(found, edge.now_ms())}"
    return Answer(_contents(found), [line, *_tables(found)])


@register(own, "local guide", WHICH_HOME)
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
    return Answer({"try": commands, "files": places}, lines, says_deployment=True)


@contextmanager
def _instance(edge: Edge) -> Iterator[Instance]:
    instance = Instance(edge.settings.data_dir)
    with instance.usable():
        yield instance


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
    return [f"  {count:>9,}  {name}" for name, count in contents.tables.items() if count]


def _told_coming(file: Path, coming: backup.Coming, now: int) -> list[str]:
    present = coming.present
    if isinstance(present, backup.Contents):
        lines = [f"there now: {_told_contents(present, now)}", *_tables(present)]
    else:
        lines = [f"there now: {present or 'nothing'}"]
    return [*lines, f"in {file}: {_told_contents(coming.contents, now)}", *_tables(coming.contents)]


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


STARTED_BY = {
    None: "nothing starts it but heartbeat local up",
    "cron": "cron starts it at boot, and within a minute after a crash",
    "systemd": "systemd starts it, and again after a crash",
}


def _told_service(found: local.LocalStatus, standing: Standing) -> list[str]:
    line = STARTED_BY[standing.form]
    if standing.form and found.state == "stopped" and found.stays_down:
        line += ", but not now: it was stopped with heartbeat local down"
    return [line, *standing.notes]


def _data(found: local.LocalStatus) -> list[str]:
    return [f"data: {found.folder} ({found.data_bytes / KB:,.0f} kB)"]
