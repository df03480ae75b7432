"""This host in `heartbeat uninstall`: looked at, shown, then done; leave.py says in which order."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heartbeat_cli import connect, crontab, crontab_agents, crontab_plan, crontab_text, service_cron, tokens
from heartbeat_cli.command import Edge
from heartbeat_cli.commands import local_service
from heartbeat_cli.commands.spool import deliver_to
from heartbeat_cli.config import Settings
from heartbeat_cli.errors import CrontabProblem, SettingsProblem, SpoolProblem
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Which, count

TO_DO = 1  # exit code: something is left for a person
AGAIN = 75  # exit code: something is left for later


@dataclass(slots=True)
class Result:
    """What became of a part: for JSON, for people, and what it leaves to be done, with its exit code."""

    data: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    exit_code: int = 0


class Jobs:
    """This user's crontab: the lines of every home that reports to the deployment that is left, as they were
    before they were wrapped. `left`: what else to tell.

    `elsewhere`: the other deployments that this host reports to. `blind`: there may be more of them.
    """

    def __init__(self, edge: Edge) -> None:
        """Raises `CrontabProblem` where nobody knows which lines are ours."""
        self._edge = edge
        self._plan: crontab_plan.Plan | None = None
        self._code = 0
        self.left: list[str] = []
        self.blind = False
        settings = edge.settings
        # a token that is kept says that a deployment was not left yet
        given = _profile(settings) | {"HEARTBEAT_HOME": str(settings.home)}
        usual = {edge.without_url().url, _under_cron(edge, given)[0]}
        self.elsewhere = {
            url
            for url in usual
            if url and not same(url, settings.url) and tokens.stored(settings.config_dir, url, [])
        }
        if not crontab.available(settings.inherited):
            return
        try:
            text = crontab.read(settings.inherited) or b""
        except CrontabProblem as problem:
            # what stands there runs on as it does, and can be mended at any time
            self.left.append(f"the crontab is left as it is: {problem}")
            self._code, self.blind = TO_DO, True
            return
        names = crontab_text.block_names(text)
        going = []
        for block in sorted(name for name in names if name != service_cron.NAME and _folder(name)):
            variables = crontab_agents.variables(text, block) | {"HEARTBEAT_HOME": _folder(block)}
            url, profile = _under_cron(edge, variables)
            if same(url, settings.url) and profile == _profile(settings):
                going.append(block)
            else:
                self._stays(block, url, profile)
        self._plan = crontab_plan.remove(settings, going)

    def _stays(self, block: str, url: str | None, profile: Mapping[str, str]) -> None:
        home = f" --home {block}" if _is_folder(_folder(block)) else ""
        if url is None:
            self.blind, self._code = True, TO_DO
            told = f"the jobs of {block} stay as they are, since nobody can tell where they report to:"
            helps = f"heartbeat cron remove{home}" if home else "take its lines out with crontab -e"
        else:
            self.elsewhere |= set() if same(url, self._edge.settings.url) else {url}
            ours = _profile(self._edge.settings)
            others = [f"{name}={shlex.quote(path)} " for name, path in profile.items() if profile != ours]
            told = f"the jobs of {block} stay as they are: to leave there too,"
            helps = f"{''.join(others)}heartbeat uninstall{home} --url {url}"
        self.left += [told, f"  {helps}"]

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
        data = {"outcome": "restored", "diff": self._plan.diff[1:], "notes": list(self._plan.notes)}
        return Result(data, told, self.left, self._code)


def same(one: str | None, other: str | None) -> bool:
    """Whether both are one address: this machine has two names."""
    return one == other or (None not in {one, other} and _named(one) == _named(other))


def _named(url: str | None) -> str:
    return (url or "").replace("//localhost", "//127.0.0.1")


def _profile(settings: Settings) -> dict[str, str]:
    """Where settings, tokens and spool are, as variables say it."""
    folders = {"XDG_CONFIG_HOME": settings.config_dir.parent, "XDG_DATA_HOME": settings.data_dir.parent}
    return {name: os.path.realpath(folder) for name, folder in folders.items()}


def _under_cron(edge: Edge, given: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """Where a job reports to that cron gives these variables, None where nobody knows; and its profile."""
    if not _is_folder(given["HEARTBEAT_HOME"]):
        given = {name: value for name, value in given.items() if name != "HEARTBEAT_HOME"}
    try:
        settings = edge.under_cron(given)
    except SettingsProblem:
        return None, {}
    return settings.url, _profile(settings)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - it answers no where pathlib raises


def _folder(block: str) -> str:
    """The home of which this is the block; empty where it is none of ours."""
    try:
        (home,) = shlex.split(block)
    except ValueError:
        return ""
    return home


class Waiting:
    """What waits in the spool of this host for the deployment. `left`: what else to tell.

    `undelivered`: so many could still be delivered, only later.
    """

    def __init__(self, edge: Edge, *, goes: bool) -> None:
        """`goes`: the deployment takes it."""
        self._edge = edge
        self._spool = Spool(edge.settings.data_dir)
        self._url = None if edge.settings.url is None else edge.settings.spooled_as()
        self._number = self._spool.number(self._url) if self._url is not None else 0
        self._goes = goes
        self._local = edge.settings.is_local
        self.undelivered = 0
        others = self._spool.counts().all - self._number
        kept = [f"{count(self._number)} for this deployment"] if self._number and not goes else []
        kept += [f"{count(others)} for others"] if others else []
        self.left = [f"kept in {self._spool.path}: {', '.join(kept)}"] if kept else []

    def plan(self) -> list[str]:
        """As `Jobs.plan`."""
        if not self._number or not self._goes:
            return []
        return [f"{count(self._number)} in the spool: delivered; what is refused stays in {self._spool.path}"]

    def do(self) -> Result:
        """Nothing of it is ever deleted."""
        data = {"delivered": 0, "duplicates": 0, "refused": 0}
        if self._url is None or not self._number or not self._goes:
            outcome = "kept" if self._number else "unchanged"
            return Result({"outcome": outcome, **data, "stays": self._number}, [], self.left)
        mine, notes = Which(deployment=self._url, state="waiting"), []
        self._spool.retry(mine)
        try:
            with connect.delivering(self._spool):
                notes = deliver_to(self._edge, self._spool, self._url, data)
        except SpoolProblem as problem:
            notes = [str(problem)]
        stays, self.undelivered = self._spool.number(self._url), len(self._spool.entries(mine))
        lines = [f"delivered {count(data['delivered'])} from the spool"] if data["delivered"] else []
        if self.undelivered and self._local and not data["delivered"]:
            notes = [*notes, "heartbeat local up, then type the same again"]
        if stays:
            lines += [*notes, f"{count(stays)} not delivered: kept in {self._spool.path}"]
        outcome = "kept" if stays else "delivered"
        found = {"outcome": outcome, **data, "stays": stays, "path": str(self._spool.path)}
        return Result(found, lines, self.left, AGAIN if self.undelivered else 0)


class Local:
    """The local backend of this user, where it runs or something starts it.

    `serves`: the functions of an app that it was started with, None for our own.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._mine = local_service.service_of(edge)
        self.serves = self._mine.last_functions()
        self._token_of: str | None = None
        self._form = self._mine.standing().form
        self._runs = self._mine.instance.alive()

    @property
    def there(self) -> bool:
        """Whether anything of it would go."""
        return self._runs or self._form is not None

    def forget(self) -> None:
        """Its token goes too: it is what is left."""
        url = self._edge.settings.url
        self._token_of = url if url and tokens.stored(self._edge.settings.config_dir, url, []) else None

    def plan(self) -> list[str]:
        """As `Jobs.plan`."""
        folder = self._mine.instance.folder
        lines = []
        if self.there:
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
        if self.there:
            done, _, kept = local_service.stop_for_good(self._edge, self._mine)
            stopped = "has stopped" if done.pid is not None else "does not run"
            lines.append(f"the local backend {stopped}; its data: {self._mine.instance.folder}")
        outcome = "stopped" if lines else "unchanged"
        if self._token_of:
            tokens.drop(self._edge.settings.config_dir, self._token_of)
        data = {"outcome": outcome, "service": self._form, "keptIn": kept and str(kept)}
        return Result(data | {"folder": str(self._mine.instance.folder)}, lines)
