"""`heartbeat connect`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from heartbeat_cli import connect_token, output
from heartbeat_cli.address import normalise_site_url, normalise_url
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.commands.connect_asking import ANSWER_HINT, Wish
from heartbeat_cli.commands.connect_steps import Connecting
from heartbeat_cli.config_address import LOCAL_WORD
from heartbeat_cli.connect_app import App
from heartbeat_cli.connect_token import Given
from heartbeat_cli.deadline import Late, within
from heartbeat_cli.errors import HeartbeatError, UsageProblem
from heartbeat_cli.output import Answer

INPUT_WAITS_S = 30.0  # for what is piped in: a password manager asks its user first
TERMINAL = "/dev/tty"

app = typer.Typer(**PLAIN)


@register(app, "connect", ("home", "deadline", "transport"))
def connect_to(  # noqa: PLR0913 - its options
    edge: Edge,
    url: Annotated[str, typer.Argument(metavar="URL", help="The deployment's address.")],
    *,
    app_dir: Annotated[
        str | None,
        typer.Option("--app", metavar="APP_DIR", help="Make the token through npx convex run in this app."),
    ] = None,
    prod: Annotated[
        bool,
        typer.Option("--prod", help="With --app: the app's production deployment, whatever its address."),
    ] = False,
    site_url: Annotated[
        str | None,
        typer.Option(
            "--site-url", metavar="ADDRESS", help="Its HTTP actions' address, if not in Convex's cloud."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, do all of it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    no_apply: Annotated[bool, typer.Option("--no-apply", help="Leave agents and crontab alone.")] = False,
    no_spool: Annotated[
        bool, typer.Option("--no-spool", help="What waits for the local backend goes on waiting for it.")
    ] = False,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Leave the local backend's history where it is.")
    ] = False,
    keep_local: Annotated[bool, typer.Option("--keep-local", help="Do not stop the local backend.")] = False,
) -> Answer:
    """Have this host report to a Convex deployment of yours, from now on.

    A deploy key, or a token made for this host, is read from standard input. Then, each shown and asked:
    write the address into config.toml, copy the local backend's history there, send what waits for it there,
    stop it, apply the schedule. Safe to repeat.
    """
    if url.strip() == LOCAL_WORD:
        raise UsageProblem(
            "the local backend needs no connecting", hint="heartbeat local up starts it, --url local means it"
        )
    if prod and app_dir is None:
        raise UsageProblem("--prod is for the app's npx convex run", hint="give --app APP_DIR too")
    wish = Wish(yes, dry_run, no_apply, no_spool, no_import, keep_local)
    address = normalise_url(url)
    site = None if site_url is None else normalise_site_url(site_url)
    found = None if app_dir is None else App.at(Path(app_dir))
    given = Given() if found is not None else _given(address)
    connecting = Connecting(edge, address, wish, site)
    if not (yes or dry_run or connecting.there.can_ask):
        raise UsageProblem("nobody can be asked here, so nothing was changed", hint=ANSWER_HINT)
    try:
        return connecting.run(given, found, prod=prod)
    except HeartbeatError as error:
        output.say_notes(error.notes)
        raise


def _given(url: str) -> Given:
    """What was piped in, if anything. From then on questions go to the terminal, if there is one."""
    if sys.stdin.isatty():
        return Given()
    try:
        text = within(INPUT_WAITS_S, lambda: sys.stdin.read(connect_token.INPUT_LIMIT))
    except Late:
        raise UsageProblem(
            f"standard input is open, and nothing came from it within {INPUT_WAITS_S:.0f} s",
            hint="pipe in a deploy key or a token, or nothing: < /dev/null",
        ) from None
    given = connect_token.judged(text, url)
    if sys.stderr.isatty():
        with suppress(OSError):  # no terminal: then nobody is asked
            terminal = os.open(TERMINAL, os.O_RDWR)
            os.dup2(terminal, 0)
            os.close(terminal)
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
    return given
