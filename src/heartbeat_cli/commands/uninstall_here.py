"""This host in `heartbeat uninstall`: looked at, shown, then done; leave.py says in which order."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from heartbeat_cli import connect, crontab, crontab_agents, crontab_plan, crontab_text, service_cron, tokens
from heartbeat_cli.command import Edge
from heartbeat_cli.commands import local_service
from heartbeat_cli.commands.spool import deliver_to
from heartbeat_cli.errors import CrontabProblem, SpoolProblem
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Which, count

TO_DO = 1  # exit code: something is left for a person


@dataclass(slots=True)
class Result:
    """What became of a part: for JSON, for people, and what it leaves to be done, with its exit code."""

    data: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    exit_code: int = 0


class Jobs:
    """This user's crontab: the lines as they were before they were wrapped. `left`: what else to tell.
    `elsewhere`: they, and whatever else of this host reports, report to this deployment and not to the one
    that is to be left; then they stay.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._plan: crontab_plan.Plan | None = None
        self.left: list[str] = []
        self.elsewhere: str | None = None
        self._code = 0
        told = None
        if crontab.available(edge.settings.inherited):
            try:
                self._plan = crontab_plan.remove(edge.settings)
                told = crontab_agents.address(self._plan.was or b"", self._plan.host.block)
            except CrontabProblem as problem:
                # what stands there runs on as it does, and can be mended at any time
                self.left.append(f"the crontab is left as it is: {problem}")
                self._code = TO_DO
        self.elsewhere = _elsewhere(edge, told)
        if self.elsewhere is not None:
            self.left = [f"what reports from here to {self.elsewhere} stays as it is"]
            self._plan, self._code = None, 0
        if self._plan is None:
            return
        # they may report to another deployment
        homes = set(crontab_text.block_names(self._plan.text)) - {service_cron.NAME}
        self.left += [
            f"the jobs of {home} stay as they are: heartbeat uninstall --home {shlex.quote(home)}"
            for home in sorted(homes)
        ]

    def plan(self) -> list[str]:
        """What would be done, a headline first; nothing where nothing is to be done."""
        if self._plan is None or not self._plan.changes:
            return []
        where, *diff = self._plan.diff
        return [f"jobs run unwrapped, as before, in {where}", *diff, *self._plan.notes]

    def do(self) -> Result:
        """Raises `CrontabProblem`, with the crontab as it was."""
        if self._plan is None or not self._plan.changes:
            return Result({"outcome": "unchanged"}, [], self.left, self._code)
        told = self._plan.carry_out(self._edge.now_ms())
        return Result({"outcome": "restored", "diff": self._plan.diff[1:]}, told, self.left, self._code)


def _elsewhere(edge: Edge, told: str | None) -> str | None:
    """Where this host reports to, if that is not the deployment that is to be left. `told`: what its jobs are
    told.
    """
    if told is None and edge.flags.url is None:
        return None
    usual = edge.told(told)
    return usual.shown_deployment() if usual.url not in {None, edge.settings.url} else None


class Waiting:
    """What waits in the spool of this host for the deployment. `left`: what waits for others."""

    def __init__(self, edge: Edge, *, goes: bool) -> None:
        """`goes`: the deployment takes it."""
        self._edge = edge
        self._spool = Spool(edge.settings.data_dir)
        self._url = None if edge.settings.url is None else edge.settings.spooled_as()
        self._number = self._spool.number(self._url) if self._url is not None else 0
        self._goes = goes
        others = self._spool.counts().all - self._number
        where = f"{count(others)} for other addresses, in {self._spool.path}: heartbeat spool list"
        self.left = [f"left as they are: {where}"] if others else []

    def plan(self) -> list[str]:
        if not self._number or not self._goes:
            return []
        return [f"{count(self._number)} in the spool: delivered; what cannot be stays in {self._spool.path}"]

    def do(self) -> Result:
        """Nothing of it is ever deleted."""
        if self._url is None or not self._number:
            return Result({"outcome": "unchanged", "delivered": 0, "stays": 0}, [], self.left)
        data = {"delivered": 0, "duplicates": 0, "refused": 0}
        notes: list[str] = []
        if self._goes:
            self._spool.retry(Which(deployment=self._url, state="waiting"))
            try:
                with connect.delivering(self._spool):
                    notes = deliver_to(self._edge, self._spool, self._url, data)
            except SpoolProblem as problem:
                notes = [str(problem)]
        stays = self._spool.number(self._url)
        lines = [f"delivered {count(data['delivered'])} from the spool"] if data["delivered"] else []
        if stays:
            lines += [*notes, f"{count(stays)} not delivered: kept in {self._spool.path}"]
        outcome = "kept" if stays else "delivered"
        found = {"outcome": outcome, **data, "stays": stays, "path": str(self._spool.path)}
        return Result(found, lines, self.left)


class Local:
    """The local backend of this user, where it runs or something starts it. `forget`: it is what is left."""

    def __init__(self, edge: Edge, *, forget: bool) -> None:
        self._edge = edge
        self._mine = local_service.service_of(edge)
        self._form = self._mine.standing().form
        self._runs = self._mine.instance.alive()
        url = edge.settings.url
        self._token_of = url if forget and url and tokens.stored(edge.settings.config_dir, url, []) else None

    def plan(self) -> list[str]:
        folder = self._mine.instance.folder
        lines = []
        if self._runs or self._form is not None:
            lines.append(f"the local backend is stopped; its data stays in {folder}")
        if self._form is not None:
            lines += [f"  {self._form} starts it no more:", *self._mine.plan_removal().lines()]
        if self._token_of:
            verb = "  its token" if lines else f"the token of {self._token_of}"
            lines.append(f"{verb} is taken out of {tokens.path(self._edge.settings.config_dir)}")
        return lines

    def do(self) -> Result:
        """Raises `HeartbeatError` where it does not stop, or what starts it cannot be taken away."""
        lines, kept = [], None
        if self._runs or self._form is not None:
            done, _, kept = local_service.stop_for_good(self._edge, self._mine)
            stopped = "has stopped" if done.pid is not None else "does not run"
            lines.append(f"the local backend {stopped}; its data: {self._mine.instance.folder}")
        outcome = "stopped" if lines else "unchanged"
        if self._token_of:
            tokens.drop(self._edge.settings.config_dir, self._token_of)
        data = {"outcome": outcome, "service": self._form, "keptIn": kept and str(kept)}
        return Result(data | {"folder": str(self._mine.instance.folder)}, lines)
