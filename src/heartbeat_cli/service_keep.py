"""`heartbeat local keep`: what cron calls each minute and systemd at each start (service.py puts it there).

It has the backend run again, as it ran last. What it finds, and what it does about it:

    nothing was ever up here, or `down` stopped it      leave it
    it runs                                             leave it; under systemd: end it and start it
    it does not run                                     start it

Systemd watches only what it has started itself, and calls this only when that is gone: so what runs then
was started by somebody else.

It stands on nothing but the data folder: a wrong setting does not keep the backend from coming back. Nobody
reads what cron's jobs print, so that what it does is told in the backend's own log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from heartbeat_cli import config, local, output
from heartbeat_cli.errors import HeartbeatError
from heartbeat_cli.instance import Instance, Record
from heartbeat_cli.private_files import replace
from heartbeat_cli.scrub import scrubbed

SYSTEMD = "--systemd"  # the option by which its unit calls it
TOLD = {
    "started": "it did not run, and was started",
    "restarted": "systemd had not started it, and has started it again",
}


def main(environ: Mapping[str, str], *, systemd: bool) -> int:
    """The command, before anything heavy is imported: its exit code."""
    try:
        run(environ, lambda: time.time_ns() // 1_000_000, systemd=systemd)
    except HeartbeatError as error:
        output.say_error(error)
        return error.exit_code
    return 0


def run(environ: Mapping[str, str], now_ms: Callable[[], int], *, systemd: bool) -> local.BroughtUp | None:
    """Have it run; None where there was nothing to do. Raises as `local.up` does."""
    instance = Instance(config.data_dir(environ))
    try:
        with instance.usable():
            brought = keep(instance, config.inherited(environ), now_ms, systemd=systemd)
    except HeartbeatError as error:
        _log(instance, now_ms(), f"it does not run, and was not started: {error}")
        raise
    if brought is not None:
        _log(instance, now_ms(), TOLD[brought.outcome])
    return brought


def _log(instance: Instance, now_ms: int, line: str) -> None:
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    instance.log.add(scrubbed(f"{at:%Y-%m-%dT%H:%M:%SZ} heartbeat: {line}"))


def keep(
    instance: Instance, inherited: Mapping[str, str], now_ms: Callable[[], int], *, systemd: bool
) -> local.BroughtUp | None:
    """As `run`, for one instance."""
    if not _wanted(instance) or (instance.alive() and not systemd):
        return None
    with instance.alone():
        if not _wanted(instance):
            return None
        record = instance.record()
        wish = (_handed_over(instance) if systemd else None) or last_wish(record)
        found = local.look(instance, wish)
        if found.pid is not None and not systemd:
            return None
        plan = local.planned(found, wish, inherited)
        brought = local.bring(instance, found, plan, inherited, now_ms())
        if systemd:
            replace(instance.service_pid, f"{brought.record.pid}\n".encode())
        return brought


def hand_over(instance: Instance, wish: local.Wish) -> None:
    """Keep a wish for the `keep` that systemd calls next; within `instance.alone()`."""
    told = {"port": wish.port, "functions": str(wish.functions.absolute()) if wish.functions else None}
    replace(instance.wish, json.dumps(told).encode())


def _wanted(instance: Instance) -> bool:
    return instance.database.exists() and not instance.stay_down.exists()


def _handed_over(instance: Instance) -> local.Wish | None:
    try:
        told = json.loads(instance.wish.read_bytes())
        return local.Wish(told["port"], Path(told["functions"]) if told["functions"] else None)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def last_wish(record: Record | None) -> local.Wish:
    """What has a backend start as `record` says that it ran."""
    return local.Wish(functions=Path(record.functions) if record and record.functions else None)
