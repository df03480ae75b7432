"""The local backend as `heartbeat doctor` sees it, where it is the deployment that is used."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from heartbeat_cli import service, times
from heartbeat_cli.crontab_lines import program
from heartbeat_cli.doctor_finding import Checks, Finding, ok, problem, warning
from heartbeat_cli.doctor_there import There
from heartbeat_cli.instance import Instance


def checks(there: There) -> Checks:
    """Every check of this group."""
    yield "local backend", partial(local_backend, there)
    yield "at boot", partial(at_boot, there)


def local_backend(there: There) -> Iterator[Finding]:
    """Where the deployment is the local one: does it run, with the code that is on disk? (`address` tells
    whether it answers.)
    """
    if not there.settings.is_local:
        return
    found = there.local.own()
    if found.state == "stopped":
        yield problem(f"the local backend at {found.url} is not running", "heartbeat local up")
    elif found.state == "starting":
        yield warning(f"the local backend is starting (process {found.pid})", "heartbeat doctor")
    elif found.older:
        older = " and ".join(found.older)
        yield warning(f"process {found.pid} still runs the older {older}", "heartbeat local up")
    else:
        yield ok(f"process {found.pid}, started {times.ago(found.started_at, there.now_ms())}")


def at_boot(there: There) -> Iterator[Finding]:
    """Where the deployment is the local one: does it start by itself, after a boot and after a crash?"""
    settings = there.settings
    if not settings.is_local:
        return
    place = Instance(settings.data_dir)
    mine = service.Service(place, program(), settings.config_dir.parent, settings.inherited)
    standing = mine.standing()
    if standing.in_place and not standing.notes:
        yield ok(f"the local backend is started and watched by {standing.form}")
    for note in standing.notes:
        said, _, command = note.rpartition(": ")
        if standing.form is None and command == service.AGAIN:
            yield warning("nothing starts the local backend after a boot or a crash", command)
        elif command == service.AGAIN or note == service.LINGER:
            yield warning(said, command)
        else:
            yield warning(note, service.AGAIN)
