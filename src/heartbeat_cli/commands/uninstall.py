"""`heartbeat uninstall`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from heartbeat_cli import adopt_app, move
from heartbeat_cli.command import CALLS, PLAIN, Edge, register
from heartbeat_cli.commands.uninstall_here import TO_DO, Jobs, Local, Result, Waiting, same
from heartbeat_cli.commands.uninstall_there import Folder, There
from heartbeat_cli.connect_config import FILE as CONFIG_FILE
from heartbeat_cli.errors import HeartbeatError
from heartbeat_cli.local_address import local_url
from heartbeat_cli.output import Answer

COMMON = tuple(name for name in CALLS if name != "transport")  # it is always done over HTTP
DONE = frozenset({"restored", "delivered", "left", "stopped", "removed", "forgotten"})  # of a part

app = typer.Typer(**PLAIN)


@register(app, "uninstall", COMMON)
def uninstall(
    edge: Edge,
    app_dir: Annotated[
        Path | None, typer.Argument(metavar="[APP_DIR]", help="The app that has our functions, if any.")
    ] = None,
    *,
    empty: Annotated[
        bool, typer.Option("--empty", help="Also delete all that is in our tables there: the history.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
) -> Answer:
    """Leave: this host's jobs as they were, and nothing of ours in the deployment and in APP_DIR.

    Shows all of it in its order, asks once, does it. Safe to repeat, whenever it was cut off. Data, settings,
    logs and cron-schedule.md of this host stay. With --url for another deployment than this host reports to,
    only that one is left.
    """
    settings = edge.settings
    folder = None if app_dir is None else Folder(adopt_app.find(app_dir), edge)
    if settings.url is not None or edge.flags.url is not None or folder is not None or empty:
        edge.speaks_to(settings.deployment(), settings.shown_deployment())
    parts = _looked_at(edge, folder, empty=empty)
    plan, lacks = parts.plan(), parts.lacks()
    if dry_run:
        told = "nothing was changed (dry run)" if plan else "nothing of ours is left to take away"
        outcome = "planned" if plan else "unchanged"
        return Answer({"outcome": outcome, "plan": plan, "left": lacks}, [*plan, *lacks, told])
    if plan and not yes:
        edge.ask([*plan, *lacks], "Leave?", hint="add --yes, or --dry-run to look")
        plan = []
    return _answer(edge, plan, parts.do())


def _looked_at(edge: Edge, folder: Folder | None, *, empty: bool) -> Parts:
    """What can refuse does so before anything is done."""
    settings = edge.settings
    jobs, local = Jobs(edge), Local(edge)
    if folder is not None:
        folder.refuse(jobs.elsewhere, empty=empty)
    # the local backend alone is stopped with all that is in it, but for what it has of an app
    with_app = folder is not None or local.serves is not None
    there_too = settings.url is not None and (not settings.is_local or with_app or empty)
    progress = move.Progress("uninstall", silent=edge.json)
    app = folder is not None and folder.has_ours
    there = There(edge, progress, local.serves, empty=empty, app=app) if there_too else None
    if there is None:
        local.forget()
    waiting = Waiting(edge, goes=settings.token is not None and (there is None or there.takes))
    return Parts(edge, jobs, waiting, there, folder, local)


@dataclass(slots=True)
class Parts:
    """All of it, in the order of leave.py."""

    edge: Edge
    jobs: Jobs
    waiting: Waiting
    there: There | None
    folder: Folder | None
    local: Local

    def plan(self) -> list[str]:
        """What would be done."""
        parts = [
            self.jobs.plan(),
            self.waiting.plan(),
            self.there.plan() if self.there else [],
            self.folder.plan() if self.folder is not None and not self._stays() else [],
            self.local.plan() if self._stops_local() else [],
        ]
        numbered = enumerate(filter(None, parts), start=1)
        return [line for nth, part in numbered for line in _numbered(nth, part)]

    def lacks(self) -> list[str]:
        """What would not be, and why."""
        settings = self.edge.settings
        hindered = self.there.why_not() if self.there is not None else None
        nowhere = [f"there is no deployment to leave: {settings.url_problem}"] if settings.url is None else []
        lacks = [*self.jobs.left, *self.waiting.left, *nowhere, *(hindered.left if hindered else [])]
        if self.local.there and self.local.serves and not settings.is_local:
            lacks += ["the local backend goes on, with an app's functions: heartbeat uninstall --url local"]
        if self.folder is not None:
            lacks += self.folder.stays().left if self._stays() else self.folder.notes()
        return lacks

    def do(self) -> dict[str, Result]:
        """What became of each part, by its name; where one fails, what comes after it is not done."""
        if self.folder is not None and not self._stays():
            self.folder.secure(self.edge.now_ms())
        results: dict[str, Result] = {}
        try:
            results["crontab"] = self.jobs.do()
            results["spool"] = self.waiting.do()
            late, there = self.waiting.undelivered, self.there
            if there is not None:
                results["deployment"] = there.later(late) if late and there.takes else there.clear()
            if self.folder is not None:
                results["app"] = self.folder.stays() if self._stays() else self.folder.do()
            ended = there.finish() if there is not None else None
            if ended is not None:
                results["ownToken"] = ended
            if there is not None:
                results["token"] = there.forget()
            if not late and self._stops_local():
                results["local"] = self.local.do()
        except HeartbeatError as error:
            if not results:
                raise
            why = [str(error), *([f"  {error.hint}"] if error.hint else [])]
            results["failed"] = Result({"outcome": "failed", "message": str(error)}, [], why, TO_DO)
        return results

    def _stays(self) -> bool:
        """Whether the app keeps our functions, as they are needed to leave its deployment."""
        has_ours = self.folder is not None and self.folder.has_ours
        return has_ours and self.there is not None and not self.there.goes

    def _stops_local(self) -> bool:
        """Whether nothing needs this user's local backend any more."""
        settings, there = self.edge.settings, self.there
        if settings.is_local:
            return there is None or there.goes or (there.answers and not there.insists)
        local = local_url(settings.data_dir)
        if self.jobs.blind or self.local.serves is not None:
            return False
        return not any(same(local, url) for url in self.jobs.elsewhere)


def _numbered(nth: int, part: Sequence[str]) -> list[str]:
    head, *rest = part
    return [f"{nth}. {head}", *(f"   {line}" for line in rest)]


def _answer(edge: Edge, plan: Sequence[str], results: dict[str, Result]) -> Answer:
    settings = edge.settings
    stays = [place for place in (settings.config_dir / CONFIG_FILE, settings.data_dir) if place.exists()]
    left = [line for result in results.values() for line in result.left]
    code = max(result.exit_code for result in results.values())
    changed = any(result.data["outcome"] in DONE for result in results.values())
    data: dict[str, Any] = {
        "outcome": "partly" if code else "left" if changed else "unchanged",
        **{name: result.data for name, result in results.items()},
        "left": left,
        "stays": [str(place) for place in stays],
    }
    told = [line for result in results.values() for line in result.lines]
    kept = [f"still here, yours to delete: {', '.join(map(str, stays))}"] if stays else []
    return Answer(data, [*plan, *told, *left, *kept], exit_code=code)
