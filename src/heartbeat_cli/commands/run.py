"""`heartbeat run`, declared for the help: a line that can be meant is run before this is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from heartbeat_cli import run
from heartbeat_cli.command import (
    PLAIN,
    DeadlineOption,
    DelayOption,
    Home,
    Invocation,
    OnlyAtOption,
    TransportOption,
    Url,
    ZoneOption,
)
from heartbeat_cli.errors import UsageProblem
from heartbeat_cli.run_options import Misuse, parse

app = typer.Typer(**PLAIN)

Text = str | None


@app.command("run")
def run_command(  # noqa: PLR0913 - its options
    ctx: typer.Context,
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    command: Annotated[list[str], typer.Argument(help="What to run, after --.")],
    *,
    timeout: Annotated[
        Text, typer.Option(metavar="DURATION", help="End it after so long, as in 30m, and report that.")
    ] = None,
    kill_after: Annotated[
        Text, typer.Option(metavar="DURATION", help="Kill what has not ended by then (default 10s).")
    ] = None,
    max_output: Annotated[
        Text, typer.Option(metavar="SIZE", help="How much of the end of its output to send (default 10kB).")
    ] = None,
    no_output: Annotated[
        bool, typer.Option("--no-output", help="Send none, and leave the terminal to it as it is.")
    ] = False,
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="Do not run beside another run of AGENT here: exit 75.")
    ] = False,
    status_from_output: Annotated[
        bool,
        typer.Option(
            "--status-from-output",
            help="Its last line is JSON that says how it went: status, summary, error, result.",
        ),
    ] = False,
    summary: Annotated[Text, typer.Option(metavar="TEXT", help="What to say of the run.")] = None,
    delay: DelayOption = None,
    only_at: OnlyAtOption = None,
    tz: ZoneOption = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Say nothing of our own unless a report is refused or lost.")
    ] = False,
    url: Url = None,
    home: Home = None,
    deadline: DeadlineOption = None,
    transport: TransportOption = None,
) -> int:
    """Run COMMAND, and report when it starts and how it ends.

    Its exit code is the command's, or 128 and the number of the signal that ended it.
    """
    invocation: Invocation = ctx.obj
    words = invocation.words[1:]
    try:
        parse(words)
    except Misuse as misuse:
        raise UsageProblem(str(misuse), hint=misuse.hint) from None
    return run.main(words) or 0
