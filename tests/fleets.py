"""A backend and several hosts, each with a spool, a token and a clock of its own: the product, in small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends import Backend
from clocks import Clocks
from conftest import Cli
from heartbeat_cli import tokens
from heartbeat_cli.times import MINUTE_MS


def every(agent: str, minutes: int, grace_minutes: int, misses: int) -> dict[str, Any]:
    """An agent that is expected so often, as mutations/applySchedule takes it."""
    schedule = {"kind": "interval", "everyMs": minutes * MINUTE_MS}
    return {"agent": agent, "schedule": schedule, "graceMs": grace_minutes * MINUTE_MS, "misses": misses}


class Fleet:
    """Made of real processes in one folder. `hosts` are there after `open`."""

    def __init__(self, folder: Path, bundle: Path, names: tuple[str, ...]) -> None:
        self.clocks = Clocks(folder / "clocks", names)
        self.backend = Backend(folder / "backend", bundle, self.clocks.backend)
        self.owner = Cli(folder, dict(self.clocks.environment(names[0])))
        self.hosts = {name: Cli(folder / name) for name in names}

    def open(self, agents: Sequence[Mapping[str, Any]], address: Callable[[str], str]) -> None:
        """Start the backend, register agents (as mutations/applySchedule takes them), give each host a token.

        `address` is how a host reaches the backend, asked when that runs.
        """
        url, owner = self.backend.start(), self.owner
        owner.env["HEARTBEAT_URL"] = url
        tokens.ensure_local_token(owner.config_dir, url, lambda _: False, self.backend.admin)
        kept = tokens.stored(owner.config_dir, url, [])
        assert kept is not None
        schedule = {"source": "the test", "agents": agents, "dryRun": False}
        self.backend.admin("mutations/applySchedule", {"token": kept.text, "schedule": schedule})
        for name, cli in self.hosts.items():
            cli.folder.mkdir(exist_ok=True)
            text = tokens.mint()
            request = tokens.create_args(text, name, "send", [], None)
            self.backend.admin("mutations/createToken", {"token": kept.text, "request": request})
            cli.env |= {"HEARTBEAT_URL": address(name), "HEARTBEAT_TOKEN": text, "HEARTBEAT_HOST": name}
            cli.env |= self.clocks.environment(name)

    def sweep(self) -> None:
        """Have the backend look for silence, as it does each minute when time passes by itself."""
        self.backend.admin("heartbeat/maintenance:sweep", {})
