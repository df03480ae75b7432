"""The parts of `heartbeat uninstall`, each looked at, shown, then done; leave.py says why in this order."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heartbeat_cli import (
    adopt,
    adopt_disk,
    adopt_manifest,
    adopt_sources,
    connect,
    crontab,
    crontab_plan,
    crontab_text,
    leave,
    move,
    private_files,
    service_cron,
    tokens,
)
from heartbeat_cli.adopt_app import App
from heartbeat_cli.command import Edge
from heartbeat_cli.commands import local_service
from heartbeat_cli.commands.functions import as_json, by_hand
from heartbeat_cli.commands.spool import deliver_to
from heartbeat_cli.errors import (
    CrontabProblem,
    FunctionsProblem,
    HeartbeatError,
    Refused,
    SpoolProblem,
    Unreachable,
)
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Which, count

TO_DO = 1  # exit code: something is left for a person
AGAIN = 75  # exit code: the deployment is away, so something is left for later
NAMED = 5  # tokens in one line
COPIES = "left-files"  # in the data folder: what the team had changed in our files, as it was


@dataclass(slots=True)
class Result:
    """What became of a part: for JSON, for people, and what it leaves to be done, with its exit code."""

    data: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    exit_code: int = 0


class Jobs:
    """This user's crontab: the lines as they were before they were wrapped. `left`: what else to tell."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._plan: crontab_plan.Plan | None = None
        self.left: list[str] = []
        self._code = 0
        settings = edge.settings
        if not crontab.available(settings.inherited):
            return
        try:
            self._plan = crontab_plan.remove(settings)
        except CrontabProblem as problem:
            # what stands there runs on as it does, and can be mended at any time
            self.left.append(f"the crontab is left as it is: {problem}")
            self._code = TO_DO
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


class Waiting:
    """What waits in the spool of this host for the deployment."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._spool = Spool(edge.settings.data_dir)
        self._url = None if edge.settings.url is None else edge.settings.spooled_as()
        self._number = self._spool.number(self._url) if self._url is not None else 0

    def plan(self) -> list[str]:
        if not self._number:
            return []
        return [f"{count(self._number)} in the spool: delivered; what cannot be stays in {self._spool.path}"]

    def do(self, *, away: bool) -> Result:
        """Nothing of it is ever deleted. `away`: nobody is there to deliver it to."""
        if self._url is None or not self._number:
            return Result({"outcome": "unchanged", "delivered": 0, "stays": 0})
        data = {"delivered": 0, "duplicates": 0, "refused": 0}
        notes: list[str] = []
        if not away:
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
        return Result({"outcome": outcome, **data, "stays": stays, "path": str(self._spool.path)}, lines)


class There:
    """The deployment: its sweep, tokens, cards, our tables; and the token that is kept for it here."""

    def __init__(self, edge: Edge, progress: move.Progress, *, empty: bool) -> None:
        """Asks the deployment how it stands."""
        settings = edge.settings
        self._edge, self._empty, self._progress = edge, empty, progress
        self.url = settings.deployment()
        self._end = move.end_of(edge) if settings.token is not None else None
        self._standing = leave.look(
            self.url, settings.token, self._end, settings.data_dir, progress, now_ms=edge.now_ms()
        )
        self._kept = tokens.stored(settings.config_dir, self.url, []) is not None

    @property
    def away(self) -> bool:
        return self._standing.state == "away"

    @property
    def goes(self) -> bool:
        """Whether nothing of ours is at work there, once it is done."""
        return self._standing.state in {"ready", "left"}

    @property
    def _drops(self) -> bool:
        return self._standing.state == "left" and self._kept

    def plan(self) -> list[str]:
        standing = self._standing
        if self._drops:
            return [self._dropped("is taken")]
        if standing.state != "ready":
            return []
        others = ", ".join(standing.others[:NAMED]) + (", …" if len(standing.others) > NAMED else "")
        tables = "keep what is in them; --empty deletes it"
        if self._empty:
            tables = "are emptied: their history is gone (to keep it: heartbeat export FILE, before)"
        return [
            f"at {self.url}:",
            "  the sweep is stopped, and whatever else starts by itself",
            *([f"  tokens that are revoked: {len(standing.others)} ({others})"] if others else []),
            "  agents.heartbeat is unset in every row of agents",
            f"  our tables {tables}",
            "  our own token ends, and is taken out of tokens.toml",
        ]

    def why_not(self) -> Result | None:
        """Why the deployment's half cannot be done now, and what helps; None where it can, or is done."""
        standing, again = self._standing, "heartbeat uninstall again"
        if standing.state == "ready" or (standing.state == "left" and (standing.emptied or not self._empty)):
            return None
        data = {"outcome": standing.state, "scope": standing.scope}
        if standing.state == "left":
            told = f"{self.url} has been left before, and what is in our tables there is kept"
            helps = f"to have it deleted, connect once more (heartbeat connect {self.url}), then {again}"
            return Result({"outcome": "left", "emptied": False}, [], [told, f"  {helps}"], TO_DO)
        if standing.state == "away":
            return self._failed(data, standing.problem)
        ours = "and none is kept here"
        if standing.state == "lesser":
            ours = f"and ours may only {standing.scope}" if standing.scope else "and ours is not accepted"
        told = f"nothing was done at {self.url}: that takes an admin token, {ours}"
        helps = "where one is kept: heartbeat uninstall; the sweep and the cards there go on until then"
        return Result(data, [], [told, f"  {helps}"], TO_DO)

    def do(self) -> tuple[Result, bool]:
        """What became of it, and whether nothing of ours is at work there any more."""
        settings, state = self._edge.settings, self._standing.state
        if self._end is None or state != "ready":
            lines = [self._dropped("was taken")] if self._drops else []
            if self._drops:
                tokens.drop(settings.config_dir, self.url)
            data = {"outcome": "unchanged", "emptied": self._standing.emptied}
            return self.why_not() or Result(data, lines), self.goes
        leaving = leave.Leaving(self._end, settings.needed_token(), settings.data_dir, self._progress)
        try:
            leaving.run(self._edge.now_ms(), empty=self._empty)
        except (Unreachable, Refused) as error:
            return self._failed({"outcome": "cut off", "changed": leaving.steps}, error), False
        finally:
            self._progress.clear()
        dropped = tokens.drop(settings.config_dir, self.url)
        said = f"at {self.url} the sweep is stopped, {leaving.steps['cards']:,} cards are unset"
        said += f", {leaving.steps['empty']:,} rows of ours deleted" if self._empty else ""
        lines = [said, *([self._dropped("was taken")] if dropped else [])]
        return Result({"outcome": "left", "emptied": self._empty, "changed": leaving.steps}, lines), True

    def _dropped(self, verb: str) -> str:
        file = tokens.path(self._edge.settings.config_dir)
        return f"the token of {self.url}, which has ended, {verb} out of {file}"

    @staticmethod
    def _failed(data: dict[str, Any], error: HeartbeatError | None) -> Result:
        told = [str(error), *([f"  {error.hint}"] if error and error.hint else [])]
        told.append("  nothing is lost by that; when it answers, type the same again")
        later = isinstance(error, Unreachable)
        return Result(data, [], told, AGAIN if later else TO_DO)


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


class Folder:
    """The functions folder of the app: our files and lines out of it."""

    def __init__(self, app: App, data_dir: Path) -> None:
        """Raises `FunctionsProblem` where what we put there cannot be told."""
        self._app, self._copies = app, data_dir / COPIES
        self._plan: adopt.Plan | None = None
        self._changed: Sequence[str] = ()
        # once it is gone, nothing is to be done
        if adopt_manifest.read(app.folder) is not None:
            sources = adopt_sources.ours()
            self._plan = adopt.remove(app, sources, changed=True)
            self._changed = adopt.remove(app, sources, changed=False).kept

    @property
    def path(self) -> Path:
        """The functions folder."""
        return self._app.folder

    def plan(self) -> list[str]:
        if self._plan is None:
            return []
        changed = f", with what you changed in {', '.join(self._changed)}" if self._changed else ""
        copy = [f"  (a copy of these is kept in {self._copies})"] if self._changed else []
        said = f"our {len(self._plan.deleted)} files leave {self._app.folder}{changed}"
        return [said, *copy, *self._plan.diff, *by_hand(self._plan), f"  then, yours to do: {PUSH}"]

    def do(self, now_ms: int) -> Result:
        """Raises `FunctionsProblem`, which says what has been written."""
        folder = str(self._app.folder)
        if self._plan is None:
            return Result({"outcome": "unchanged", "folder": folder})
        kept = self._keep(now_ms)
        self._plan.carry_out()
        data = {"outcome": "removed", **as_json(self._plan), "keptIn": kept}
        lines = [f"our files and lines are out of {folder}"]
        lines += [f"what you had changed of them is kept in {kept}"] if kept else []
        hands = list(by_hand(self._plan))
        return Result(data, lines, [*hands, f"push it: {PUSH}"], TO_DO if hands else 0)

    def _keep(self, now_ms: int) -> str | None:
        """Copies of what the team wrote into files of ours: it may not be committed yet."""
        if not self._changed:
            return None
        kept = self._copies / str(now_ms)
        try:
            for path in self._changed:
                content = adopt_disk.read(self._app.folder, path)
                if content is not None:
                    (kept / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    private_files.replace(kept / path, content)
        except OSError as error:
            raise FunctionsProblem(f"{kept} cannot be written, so nothing was: {error.strerror}") from None
        return str(kept)


PUSH = "npx convex deploy"
