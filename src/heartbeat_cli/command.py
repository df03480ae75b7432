"""What every command shares: common options, settings, one answer, one way to say which deployment it was.

A command is a function of (edge, its own options) that returns an `Answer`; `register` adds those of the
common options that mean something to it, and prints the answer. Errors pass through to `cli.main`, which
catches them in one place and finds in `Invocation` how to report them.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartbeat_cli import config, output, tokens
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import Declined, UsageProblem
from heartbeat_cli.output import Answer, Table, say

if TYPE_CHECKING:
    from heartbeat_cli.client import Connection

# Rich-styled help ignores NO_COLOR in part, and a traceback of ours is for bugs: the plain one says more
PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
}


@dataclass(slots=True)
class Invocation:
    """One call of the program: its words, and what reporting its failure needs, filled in as it becomes
    known.
    """

    command: str
    json: bool
    deployment: str | None = None
    said_deployment: str | None = None
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Edge:
    """What a command works with: its settings, whether JSON was asked for, and the way to the deployment.

    `flags`: what was typed of the common options.
    """

    settings: config.Settings
    json: bool
    invocation: Invocation
    flags: config.Flags

    def now_ms(self) -> int:
        """This host's clock, in epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def at(self, url: str) -> Edge:
        """The same for another deployment, with the token that is kept for that one."""
        if self.settings.url is not None and url in {self.settings.url, self.settings.spooled_as()}:
            return self
        env = {name: value for name, value in os.environ.items() if name != config.TOKEN_VARIABLE}
        flags = replace(self.flags, url=url)
        return replace(self, settings=config.load(flags, env, config.working_directory()), flags=flags)

    def without_url(self) -> config.Settings:
        """The settings as they would be without --url."""
        return config.load(replace(self.flags, url=None), os.environ, config.working_directory())

    def under_cron(self, variables: Mapping[str, str]) -> config.Settings:
        """The settings of a job of this user's cron with these variables. Raises `SettingsProblem`."""
        env = {**config.inherited(os.environ), **variables}
        return config.load(config.Flags(), env, config.working_directory())

    def connect(self, deadline: Deadline | None = None) -> Connection:
        """The deployment, reached by nothing yet; all calls through it share one deadline: the one given, or
        one that begins now.

        Raises `SettingsProblem` when there is no address, or no token for it.
        """
        from heartbeat_cli.client import Connection  # noqa: PLC0415 - only commands that need it

        settings = self.settings
        url, token = settings.deployment(), settings.needed_token()
        self.speaks_to(url, settings.shown_deployment())
        return Connection(
            url,
            token,
            deadline=deadline or Deadline(settings.deadline_s),
            transport=settings.transport,
            proxied=settings.proxied,
            unauthorized_hint=_other_token(settings, token),
        )

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there who reads a question and answers it."""
        return not self.json and sys.stdin.isatty() and sys.stderr.isatty()

    def ask(self, lines: Sequence[str | Table], question: str, hint: str) -> None:
        """Show what would be done and have it confirmed; raises `Declined` where it is not, `UsageProblem`
        where nobody is there who could.
        """
        if not self.json:
            self.show(Answer({}, lines))
        if not self.can_ask:
            raise UsageProblem("nobody can be asked here, so nothing was changed", hint=hint)
        if not typer.confirm(question, err=True):
            raise Declined("not confirmed, so nothing was changed")

    def show(self, answer: Answer) -> None:
        """Print an answer before the command fails all the same. Not with --json, which prints one object."""
        output.print_answer(answer, colour=self.settings.colour, columns=self.settings.columns)

    def speaks_to(self, url: str, said: str | None) -> None:
        """From here on every answer and every failure names this deployment."""
        self.invocation.deployment, self.invocation.said_deployment = url, said or url


def _other_token(settings: config.Settings, text: str) -> str:
    """Which token it was that did not do, and what to do: it is unknown, revoked, or of too small a scope."""
    scope = f", scope {settings.token_scope}" if settings.token_scope else ""
    fingerprint = f"fingerprint {tokens.fingerprint(text)}{scope}"
    which = f"it was called with the one of {settings.token_source} ({fingerprint})"
    if settings.token_source == config.TOKEN_VARIABLE:
        return f"{which}: set {config.TOKEN_VARIABLE} to another, or unset it to use a kept one"
    if settings.is_local:
        return f"{which}: if it was revoked, heartbeat local up makes another"
    return f"{which}: keep one that may do this with heartbeat token save < FILE"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="ADDRESS", help="The deployment's address; 'local': the local backend."),
]
Home = Annotated[
    str | None,
    typer.Option("--home", metavar="FOLDER", help="The folder of cron-schedule.md and logs/."),
]
DeadlineOption = Annotated[
    str | None,
    typer.Option("--deadline", metavar="SECONDS", help="How long all of it may take (default 10)."),
]
TransportOption = Annotated[
    str | None, typer.Option("--transport", metavar="auto|ws|http", help="How to speak to the deployment.")
]
DelayOption = Annotated[
    str | None,
    typer.Option("--delay", metavar="DURATION", help="Wait before it for a random time up to this."),
]
OnlyAtOption = Annotated[
    str | None,
    typer.Option("--only-at", metavar="CRON", help="Do nothing unless this minute is one of the schedule's."),
]
ZoneOption = Annotated[
    str | None, typer.Option("--tz", metavar="ZONE", help="The time zone of --only-at (default UTC).")
]

_COMMON = {"url": Url, "home": Home, "deadline": DeadlineOption, "transport": TransportOption}
# Which of them a command takes: all where it calls the deployment, else what it is to look up
CALLS = tuple(_COMMON)
WHICH_DEPLOYMENT = ("url", "home")
WHICH_HOME = ("home",)
NONE: tuple[str, ...] = ()


def register(
    app: typer.Typer, name: str, common: Sequence[str] = CALLS, *, warns: bool = True
) -> Callable[[Callable[..., Answer]], Callable[..., int]]:
    """Make a function (edge, its own options…) -> Answer the command `name` of `app`.

    `name` is the whole of it as JSON shows it (`agents list`); its last word is the command's name in `app`.
    The function's docstring is the command's help. Besides --json it takes the `common` options.
    `warns`: what is odd about the settings is said on stderr; else the command tells it itself.
    """

    def wrap(function: Callable[..., Answer]) -> Callable[..., int]:
        @functools.wraps(function)
        def run(ctx: typer.Context, **given: Any) -> int:
            invocation: Invocation = ctx.obj
            as_json = given.pop("as_json")
            invocation.command, invocation.json = name, as_json
            flags = config.Flags(**{key: given.pop(key) for key in common})
            settings = config.load(flags, os.environ, config.working_directory())
            if warns:
                output.say_notes(settings.warnings)
            edge = Edge(settings, as_json, invocation, flags)
            answer = function(edge, **given)
            _print(answer, edge)
            return answer.exit_code

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(parameter.replace(kind=keyword) for parameter in own),
            *(inspect.Parameter(key, keyword, annotation=_COMMON[key], default=None) for key in common),
            inspect.Parameter("as_json", keyword, annotation=Json, default=False),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name.rpartition(" ")[2])(run)
        return run

    return wrap


def _print(answer: Answer, edge: Edge) -> None:
    invocation = edge.invocation
    if invocation.json:
        output.print_json(output.envelope(invocation.command, invocation.deployment, answer.data))
        return
    edge.show(answer)
    if invocation.said_deployment and not answer.says_deployment:
        say(invocation.said_deployment)
