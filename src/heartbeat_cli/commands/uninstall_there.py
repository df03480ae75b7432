"""The deployment and the app in `heartbeat uninstall`: looked at, shown, then done."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from heartbeat_cli import (
    adopt,
    adopt_disk,
    adopt_lines,
    adopt_manifest,
    adopt_sources,
    leave,
    move,
    private_files,
    times,
    tokens,
)
from heartbeat_cli.address import normalise_url
from heartbeat_cli.adopt_app import App
from heartbeat_cli.client import UNAUTHORIZED
from heartbeat_cli.command import Edge
from heartbeat_cli.commands.functions import as_json, by_hand
from heartbeat_cli.commands.uninstall_here import AGAIN, TO_DO, Result, same
from heartbeat_cli.config_files import env_local
from heartbeat_cli.errors import (
    FunctionsProblem,
    HeartbeatError,
    Refused,
    SettingsProblem,
    Unreachable,
    UsageProblem,
)

NAMED = 5  # tokens in one line
COPIES = "left-files"  # in the data folder: what the team had changed in our files, as it was
PUSH = "npx convex deploy"


class There:
    """The deployment: its sweep, tokens, cards, our tables; and the token that is kept for it here.

    `goes`: nothing of ours is at work there, or will be once it is done. `takes`: heartbeats from here.
    `insists`: no less is asked for than leaving it, so that it is a failure if that cannot be.
    """

    def __init__(
        self, edge: Edge, progress: move.Progress, serves: Path | None, *, empty: bool, app: bool
    ) -> None:
        """Asks the deployment how it stands. `app`: our functions are to leave the app. `serves`: the app's
        functions that the local backend was started with.
        """
        settings = edge.settings
        self._edge, self._empty, self._progress = edge, empty, progress
        self._up = "heartbeat local up" + (f" --functions {shlex.quote(str(serves))}" if serves else "")
        self.url = settings.deployment()
        self._end = move.end_of(edge) if settings.token is not None else None
        self._standing = leave.Standing("no token")
        if self._end is not None:
            self._standing = leave.look(self._end, settings.needed_token(), progress)
        kept = tokens.stored(settings.config_dir, self.url, [])
        self._kept = kept is not None and kept.text == settings.token
        # of a token that was given here and is not the one that is kept, the note says nothing
        noted = leave.emptied(settings.data_dir) if kept is None or self._kept else {}
        self._emptied_at = noted.get(self.url)
        self.insists = app or (empty and self._emptied_at is None)
        self._steps: dict[str, int] = {}

    @property
    def takes(self) -> bool:
        return self._standing.state in {"ready", "lesser"} and self._standing.scope != "read"

    @property
    def goes(self) -> bool:
        return self._standing.state == "ready"

    @property
    def answers(self) -> bool:
        """Whether it is known how it stands."""
        return self._standing.state != "away"

    def plan(self) -> list[str]:
        """What would be done, a headline first; nothing where nothing is to be done."""
        standing, file = self._standing, tokens.path(self._edge.settings.config_dir)
        if standing.state != "ready":
            return [f"the token of {self.url} is taken out of {file}"] if self._drops() else []
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
            "  in the end our own token ends" + (f", and is taken out of {file}" if self._kept else ""),
        ]

    def why_not(self) -> Result | None:
        """Why the deployment's half cannot be done now, and what helps; None where it can.

        It is no failure where no more than this host's half was asked for.
        """
        standing = self._standing
        if standing.state == "ready":
            return None
        if standing.state == "away":
            return self._failed(standing.problem)
        data = {"outcome": standing.state, "scope": standing.scope}
        lines = [self._said(), *(f"  {line}" for line in self._helps())]
        if self._empty and self._emptied_at is not None:
            ago = times.ago(self._emptied_at, self._edge.now_ms())
            lines.append(f"  our tables there were emptied {ago} (whether somebody came back is not known)")
        return Result(data, [], lines, TO_DO if self.insists else 0)

    def _said(self) -> str:
        url, nothing = self.url, f"nothing was done at {self.url}"
        return {
            "gone": f"our functions are not at {url}, so nothing was done there",
            "lesser": f"at {url} the sweep and the cards go on: ending them takes an admin token, and ours"
            f" may only {self._standing.scope}",
            "refused": f"{nothing}, which does not accept the token that we have: it was revoked, or the"
            " deployment has been left",
            "no token": f"{nothing}: that takes an admin token, and none is kept here",
        }[self._standing.state]

    def _helps(self) -> list[str]:
        if self._standing.state == "gone":
            return ["what may be in our tables there stays, for Convex's own dashboard to delete"]
        if self._standing.state == "lesser":
            own = tokens.fingerprint(self._edge.settings.needed_token())
            return [
                "where one is kept: heartbeat uninstall; or, to end this host's token alone:",
                f"heartbeat token revoke {own}",
            ]
        again = self._up if self._edge.settings.is_local else f"heartbeat connect {self.url}"
        return [f"if it has not been left: {again}, then heartbeat uninstall again"]

    def clear(self) -> Result:
        """What became of it, all but the own token; `goes` then says whether it has been done."""
        if self._end is None or self._standing.state != "ready":
            return self.why_not() or Result({"outcome": "unchanged"})
        leaving = leave.Leaving(self._end, self._progress, self._steps)
        try:
            leaving.clear(empty=self._empty)
            if self._empty:
                leave.note_emptied(self._edge.settings.data_dir, self.url, self._edge.now_ms())
        except (Unreachable, Refused) as error:
            return self._broken(error)
        finally:
            self._progress.clear()
        said = f"at {self.url} the sweep is stopped, {self._steps['cards']:,} cards are unset"
        said += f", {self._steps['empty']:,} rows of ours deleted" if self._empty else ""
        return Result({"outcome": "left", "emptied": self._empty, "changed": self._steps}, [said])

    def later(self, undelivered: int) -> Result:
        """Not to be done as long as something waits that it would take."""
        told = [
            f"nothing was done at {self.url}, which does not take all that waits for it by now:",
            "  type the same again, or give up what waits (heartbeat spool list, heartbeat spool drop ID)",
        ]
        self._standing = leave.Standing("away")
        return Result({"outcome": "later", "undelivered": undelivered}, [], told, AGAIN)

    def finish(self) -> Result | None:
        """The own token ends. What is to be told of it, if anything; None where all is well."""
        if self._end is None or self._standing.state != "ready":
            return None
        try:
            ended = leave.Leaving(self._end, self._progress, self._steps).finish()
        except (Unreachable, Refused) as error:
            return self._broken(error)
        finally:
            self._progress.clear()
        told = (
            f"our functions went from {self.url} with the folder: our own token, which only they accept, and"
        )
        told += " the row about the monitor stay in its tables"
        return None if ended else Result({"outcome": "not ended"}, [told])

    def forget(self) -> Result:
        """The token that is of no use any more is taken out of tokens.toml."""
        if not self._drops():
            return Result({"outcome": "unchanged"})
        config_dir = self._edge.settings.config_dir
        try:
            tokens.drop(config_dir, self.url)
        except SettingsProblem as problem:
            return Result({"outcome": "failed"}, [], [f"{problem}: its entry is of no use any more"], TO_DO)
        told = f"the token of {self.url} was taken out of {tokens.path(config_dir)}"
        return Result({"outcome": "forgotten"}, [told])

    def _drops(self) -> bool:
        """Whether the token that is kept here is of no use after this."""
        return self._kept and self.answers

    def _broken(self, error: Unreachable | Refused) -> Result:
        """It was cut off amid its steps."""
        if isinstance(error, Refused) and error.code == UNAUTHORIZED:
            # somebody else leaves it at the same time
            self._standing = leave.Standing("refused")
            return self.why_not() or Result({"outcome": "unchanged"})
        self._standing = leave.Standing("away", problem=error)
        return self._failed(error)

    def _failed(self, error: HeartbeatError | None) -> Result:
        hint = self._up if self._edge.settings.is_local else error.hint if error else None
        told = [str(error), *([f"  {hint}"] if hint else [])]
        missing = isinstance(error, Unreachable) and error.cause == "function_missing"
        if missing:
            told[1:] = ["  its functions are older than this program: heartbeat functions update, push, then"]
        told.append("  type the same again" if missing else "  nothing is lost; type the same again later")
        later = isinstance(error, Unreachable) and not missing
        outcome = "cut off" if self._steps else "away"
        return Result({"outcome": outcome, "changed": self._steps}, [], told, AGAIN if later else TO_DO)


class Folder:
    """The functions folder of the app: our files and lines out of it. `has_ours`: there are some."""

    def __init__(self, app: App, edge: Edge) -> None:
        """Raises `FunctionsProblem` where what we put there cannot be told, or not be taken away."""
        self._app, self._copies = app, edge.settings.data_dir / COPIES
        self._url = edge.settings.url
        self._plan: adopt.Plan | None = None
        self._changed: Sequence[str] = ()
        self._kept: str | None = None
        sources = adopt_sources.ours()
        # once it is gone, nothing is to be done
        self.has_ours = adopt_manifest.read(app.folder) is not None
        if self.has_ours:
            plan = adopt.remove(app, sources, changed=True)
            self._plan = dataclasses.replace(plan, again="type the same again")
            adopt_disk.check(app.folder, plan.changes)
            self._changed = adopt.remove(app, sources, changed=False).kept
            self._hands = [*by_hand(plan.by_hand)]
        else:
            missing = {path for path in sources.files if not (app.folder / path).exists()}
            self._hands = [*by_hand(adopt_lines.uses(app, missing))]

    def plan(self) -> list[str]:
        """As `There.plan`."""
        if self._plan is None:
            return []
        changed = f", with what you changed in {', '.join(self._changed)}" if self._changed else ""
        copy = [f"  (a copy of these is kept in {self._copies})"] if self._changed else []
        said = f"our {len(self._plan.deleted)} files leave {self._app.folder}{changed}"
        return [said, *copy, *self._plan.diff, *self._hands, f"  then, yours to do: {PUSH}"]

    def notes(self) -> list[str]:
        """What else to tell of it."""
        if not self.has_ours:
            return [f"nothing of ours is in {self._app.folder}", *self._hands]
        named, source = env_local(self._app.project / ".env.local", [])
        try:
            other = normalise_url(named or "")
        except SettingsProblem:
            return []
        if same(other, self._url):
            return []
        told = f"the app has another deployment ({source}): leave that first, before its next push:"
        return [told, f"  heartbeat uninstall --url {other}"]

    def do(self) -> Result:
        """Raises `FunctionsProblem`, which says what has been written."""
        folder = str(self._app.folder)
        code = TO_DO if self._hands else 0
        if self._plan is None:
            adopt_disk.tidy(self._app.folder)
            return Result({"outcome": "unchanged", "folder": folder}, [], self.notes(), code)
        notes = self.notes()
        self._plan.carry_out()
        data = {"outcome": "removed", **as_json(self._plan), "keptIn": self._kept}
        lines = [f"our files and lines are out of {folder}"]
        lines += [f"what you had changed of them is kept in {self._kept}"] if self._kept else []
        return Result(data, lines, [*self._hands, *notes, f"push it: {PUSH}"], code)

    def refuse(self, elsewhere: Collection[str], *, empty: bool) -> None:
        """Raises `UsageProblem` where another deployment may have the app's functions."""
        if not self.has_ours or not elsewhere:
            return
        others = " and ".join(sorted(elsewhere))
        first = ", ".join(f"heartbeat uninstall --url {url}" for url in sorted(elsewhere))
        raise UsageProblem(
            f"this host reports to {others} too, and the app's functions may be at work there:"
            " nothing was done",
            hint=f"if they are, leave there first ({first}); if not: heartbeat uninstall --url {self._url}"
            f"{' --empty' if empty else ''}, then {self._removes()}",
        )

    def stays(self) -> Result:
        """It keeps our functions: something of ours is at work in the deployment."""
        told = [
            f"{self._app.folder} keeps our functions: once a push is without them, nothing can be done there;"
        ]
        told += [f"  if nothing is to be: {self._removes()}"]
        return Result({"outcome": "kept"}, [], told, TO_DO)

    def _removes(self) -> str:
        return f"heartbeat functions remove --changed {shlex.quote(str(self._app.project))}"

    def secure(self, now_ms: int) -> None:
        """Copies of what the team wrote into files of ours: it may not be committed yet. Raises
        `FunctionsProblem`.
        """
        if not self._changed:
            return
        kept = self._copies / str(now_ms)
        try:
            for path in self._changed:
                content = adopt_disk.read(self._app.folder, path)
                if content is not None:
                    (kept / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    private_files.replace(kept / path, content)
        except OSError as error:
            raise FunctionsProblem(f"{kept} cannot be written, so nothing was: {error.strerror}") from None
        self._kept = str(kept)
