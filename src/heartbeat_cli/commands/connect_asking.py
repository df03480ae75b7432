"""How the steps of `heartbeat connect` look, show, and ask; what they are stands in connect_steps.py."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from heartbeat_cli import config, connect_config
from heartbeat_cli.command import Edge
from heartbeat_cli.config import TOKEN_VARIABLE
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import Declined
from heartbeat_cli.output import Answer

ANSWER_HINT = "add --yes, or --dry-run to look"


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for."""

    yes: bool
    dry_run: bool
    no_apply: bool
    no_spool: bool
    no_import: bool
    keep_local: bool


@dataclass(slots=True)
class Asking:
    """The deployment that is connected to, as the settings will have it, and whoever is asked about it."""

    edge: Edge
    url: str
    wish: Wish
    site: str | None
    there: Edge = field(init=False)

    def _look(self) -> None:
        """The settings as they are once config.toml names the address, with the token that is kept for it:
        that of the environment is another's, and cron has none.
        """
        environ = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
        flags = replace(self.edge.flags, url=self.url, site_url=self.site)
        settings = config.load(flags, environ, config.working_directory())
        sources = {**settings.sources, "url": str(settings.config_dir / connect_config.FILE)}
        self.there = replace(self.edge, settings=replace(settings, sources=sources), flags=flags)

    def _deadline(self) -> Deadline:
        return Deadline(self.there.settings.deadline_s)

    def _show(self, lines: list[str]) -> None:
        if not self.edge.json:
            self.edge.show(Answer({}, lines))

    @property
    def _not_done(self) -> str:
        return "planned" if self.wish.dry_run else "declined"

    def _agreed(self, lines: list[str], question: str) -> bool:
        """Whether it is to be done, which is shown first."""
        if self.wish.yes or self.wish.dry_run:
            self._show(lines)
            return not self.wish.dry_run
        try:
            self.there.ask(lines, question, hint=ANSWER_HINT)
        except Declined:
            return False
        return True
