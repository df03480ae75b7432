"""The deployment and the app in `heartbeat uninstall`: looked at, shown, then done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heartbeat_cli import (
    adopt,
    adopt_disk,
    adopt_lines,
    adopt_manifest,
    adopt_sources,
    leave,
    move,
    private_files,
    tokens,
)
from heartbeat_cli.adopt_app import App
from heartbeat_cli.client import UNAUTHORIZED
from heartbeat_cli.command import Edge
from heartbeat_cli.commands.functions import as_json, by_hand
from heartbeat_cli.commands.uninstall_here import TO_DO, Result
from heartbeat_cli.errors import FunctionsProblem, HeartbeatError, Refused, Unreachable

AGAIN = 75  # exit code: the deployment is away, so something is left for later
NAMED = 5  # tokens in one line
COPIES = "left-files"  # in the data folder: what the team had changed in our files, as it was
PUSH = "npx convex deploy"


class There:
    """The deployment: its sweep, tokens, cards, our tables; and the token that is kept for it here."""

    def __init__(self, edge: Edge, progress: move.Progress, *, empty: bool, app: Folder | None) -> None:
        """Asks the deployment how it stands. `app`: what is to leave after it."""
        settings = edge.settings
        self._edge, self._empty, self._progress, self._app = edge, empty, progress, app
        self.url = settings.deployment()
        self._end = move.end_of(edge) if settings.token is not None else None
        self._standing = self._look()
        self._kept = tokens.stored(settings.config_dir, self.url, []) is not None

    def _look(self) -> leave.Standing:
        settings = self._edge.settings
        if self._end is None:
            return leave.before(self.url, settings.data_dir)
        return leave.look(self._end, settings.needed_token(), settings.data_dir, self._progress)

    @property
    def takes(self) -> bool:
        """Whether it takes heartbeats from here."""
        return self._standing.state in {"ready", "lesser"}

    @property
    def goes(self) -> bool:
        """Whether nothing of ours is at work there, once it is done."""
        return self._standing.state in {"ready", "left", "gone"}

    @property
    def _drops(self) -> bool:
        """Whether the token that is kept here is of no use after this."""
        return self._kept and self._standing.state not in {"no token", "away"}

    def plan(self) -> list[str]:
        standing, drops = self._standing, "our own token ends, and is taken out of tokens.toml"
        if standing.state != "ready":
            return [f"the token of {self.url} is taken out of tokens.toml"] if self._drops else []
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
            f"  {drops if self._kept else 'our own token ends'}",
        ]

    def why_not(self) -> Result | None:
        """Why the deployment's half cannot be done now, and what helps; None where it can, or is done.

        It is no failure where no more than this host's half was asked for.
        """
        standing = self._standing
        state = standing.state
        if state == "ready" or (state == "left" and (standing.emptied or not self._empty)):
            return None
        data = {"outcome": state, "scope": standing.scope}
        if state == "away":
            return self._failed(data, standing.problem)
        full = self._empty and not standing.emptied
        code = TO_DO if full or (self._app is not None and self._app.has_ours and not self.goes) else 0
        return Result(data, [], [self._said(), *(f"  {line}" for line in self._helps())], code)

    def _said(self) -> str:
        url = self.url
        return {
            "left": f"{url} has been left before, and what is in our tables there is kept",
            "gone": f"our functions are not at {url} (any more), so nothing was done there",
            "lesser": f"at {url} the sweep and the cards go on: ending them takes an admin token, and ours"
            f" may only {self._standing.scope}",
            "refused": f"nothing was done at {url}, which does not accept the token that we have: it was"
            " revoked, or the deployment has been left from another host",
            "no token": f"nothing was done at {url}: that takes an admin token, and none is kept here"
            + (" since it was left" if self._standing.left_before else ""),
        }[self._standing.state]

    def _helps(self) -> list[str]:
        state, again = self._standing.state, "heartbeat uninstall"
        connect_first = f"heartbeat connect {self.url}, then {again} again"
        if state == "left":
            return [f"to have it deleted: {connect_first}"]
        if state == "gone":
            return ["what is in our tables there stays, for Convex's own dashboard to delete"]
        if state == "lesser":
            own = tokens.fingerprint(self._edge.settings.needed_token())
            return [
                f"where one is kept: {again}; or, to end this host's token alone:",
                f"heartbeat token revoke {own}",
            ]
        helps = [f"to leave it from here: {connect_first}"]
        if self._app is not None and self._app.has_ours:
            folder = shlex.quote(str(self._app.project))
            helps.append(f"if it has been left: heartbeat functions remove --changed {folder}")
        return helps

    def do(self) -> Result:
        """What became of it; `goes` says whether nothing of ours is at work there any more."""
        if self._end is not None and self._standing.state == "ready":
            settings = self._edge.settings
            leaving = leave.Leaving(self._end, settings.needed_token(), settings.data_dir, self._progress)
            try:
                leaving.run(empty=self._empty)
            except (Unreachable, Refused) as error:
                if not isinstance(error, Refused) or error.code != UNAUTHORIZED:
                    self._standing = leave.Standing("away", problem=error)
                    return self._failed({"outcome": "cut off", "changed": leaving.steps}, error)
                # somebody else leaves it at the same time
                self._standing = self._look()
            else:
                said = f"at {self.url} the sweep is stopped, {leaving.steps['cards']:,} cards are unset"
                said += f", {leaving.steps['empty']:,} rows of ours deleted" if self._empty else ""
                data = {"outcome": "left", "emptied": self._empty, "changed": leaving.steps}
                return Result(data, [said])
            finally:
                self._progress.clear()
        return self.why_not() or Result({"outcome": "unchanged", "emptied": self._standing.emptied})

    def forget(self, undelivered: int) -> Result:
        """Take the token out of tokens.toml, where it is of no use any more. Last: see leave.py."""
        config_dir = self._edge.settings.config_dir
        file = tokens.path(config_dir)
        if undelivered and self._drops and self.takes and not self.goes:
            said = f"the token of {self.url} stays in {file}, for what waits: heartbeat spool deliver"
            return Result({"outcome": "kept"}, [said])
        if not self._drops or not tokens.drop(config_dir, self.url):
            return Result({"outcome": "unchanged"})
        return Result({"outcome": "forgotten"}, [f"the token of {self.url} was taken out of {file}"])

    @staticmethod
    def _failed(data: dict[str, Any], error: HeartbeatError | None) -> Result:
        told = [str(error), *([f"  {error.hint}"] if error and error.hint else [])]
        told.append("  nothing is lost by that; when it answers, type the same again")
        if isinstance(error, Unreachable) and error.cause == "server_error":
            told.append("  (or our functions are not there any more: then nothing is left to do there)")
        later = isinstance(error, Unreachable)
        return Result(data, [], told, AGAIN if later else TO_DO)


class Folder:
    """The functions folder of the app: our files and lines out of it."""

    def __init__(self, app: App, data_dir: Path) -> None:
        """Raises `FunctionsProblem` where what we put there cannot be told."""
        self._app, self._copies = app, data_dir / COPIES
        self._plan: adopt.Plan | None = None
        self._changed: Sequence[str] = ()
        sources = adopt_sources.ours()
        # once it is gone, nothing is to be done
        if adopt_manifest.read(app.folder) is not None:
            self._plan = adopt.remove(app, sources, changed=True)
            self._changed = adopt.remove(app, sources, changed=False).kept
            self._hands = [*by_hand(self._plan.by_hand)]
        else:
            missing = {path for path in sources.files if not (app.folder / path).exists()}
            self._hands = [*by_hand(adopt_lines.uses(app, missing))]

    @property
    def project(self) -> Path:
        """The app's folder."""
        return self._app.project

    @property
    def has_ours(self) -> bool:
        """Whether anything of ours is in it."""
        return self._plan is not None

    def plan(self) -> list[str]:
        if self._plan is None:
            return []
        changed = f", with what you changed in {', '.join(self._changed)}" if self._changed else ""
        copy = [f"  (a copy of these is kept in {self._copies})"] if self._changed else []
        said = f"our {len(self._plan.deleted)} files leave {self._app.folder}{changed}"
        return [said, *copy, *self._plan.diff, *self._hands, f"  then, yours to do: {PUSH}"]

    def nothing(self) -> list[str]:
        """What to tell of a folder that has nothing of ours."""
        return [] if self.has_ours else [f"nothing of ours is in {self._app.folder}", *self._hands]

    def do(self, now_ms: int) -> Result:
        """Raises `FunctionsProblem`, which says what has been written."""
        folder = str(self._app.folder)
        code = TO_DO if self._hands else 0
        if self._plan is None:
            return Result({"outcome": "unchanged", "folder": folder}, [], self.nothing(), code)
        kept = self._keep(now_ms)
        self._plan.carry_out()
        data = {"outcome": "removed", **as_json(self._plan), "keptIn": kept}
        lines = [f"our files and lines are out of {folder}"]
        lines += [f"what you had changed of them is kept in {kept}"] if kept else []
        return Result(data, lines, [*self._hands, f"push it: {PUSH}"], code)

    def keep(self) -> Result:
        """Not to be done as long as something of ours is at work in the deployment."""
        if not self.has_ours:
            return Result({"outcome": "unchanged"}, [], self.nothing(), TO_DO if self._hands else 0)
        told = f"{self._app.folder} keeps our functions until then: without them nothing could be done there"
        return Result({"outcome": "kept"}, [], [told])

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
