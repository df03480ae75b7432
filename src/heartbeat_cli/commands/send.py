"""`heartbeat send`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from heartbeat_cli import output, send
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.errors import UsageProblem
from heartbeat_cli.output import Answer

STDIN_LIMIT = 65_536  # bytes of standard input read for a text of at most 4,000 characters

app = typer.Typer(**PLAIN)


@register(app, "send")
def send_heartbeat(  # noqa: PLR0913 - its options
    edge: Edge,
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    *,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="WORD",
            help="ok, idle, working, blocked, waiting or error (default: the schedule's).",
        ),
    ] = None,
    summary: Annotated[
        str | None,
        typer.Option(
            "--summary", metavar="TEXT", help="What it did, in its own words; - reads standard input."
        ),
    ] = None,
    error: Annotated[
        str | None,
        typer.Option(
            "--error", metavar="TEXT", help="What went wrong; - reads standard input. Means --status error."
        ),
    ] = None,
    result: Annotated[
        str | None,
        typer.Option("--result", metavar="WORD", help="What the run achieved: acted, noop or error."),
    ] = None,
    open_tasks: Annotated[
        int | None, typer.Option("--open-tasks", metavar="N", min=0, help="Open tasks, if not to be counted.")
    ] = None,
    stale_tasks: Annotated[
        int | None, typer.Option("--stale-tasks", metavar="N", min=0, help="Stale ones among them.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing when all is well.")] = False,
) -> Answer:
    """Report that AGENT ran."""
    if summary == "-" and error == "-":
        raise UsageProblem("standard input can be the summary or the error, not both")
    report = send.Report(
        agent, status, _text(summary), _text(error), result, open_tasks=open_tasks, stale_tasks=stale_tasks
    )
    sent = send.send(report, edge.settings, edge.connect, edge.now_ms)
    for note in sent.notes:
        output.say(f"heartbeat: {output.shown(note)}")
    deployment = edge.settings.shown_deployment() or ""
    return Answer(
        {
            "heartbeatId": sent.heartbeat.heartbeat_id,
            **sent.answer,
            "elapsedMs": sent.elapsed_ms,
            "notes": list(sent.notes),
        },
        lines=[] if quiet else [send.line(sent, deployment, edge.now_ms())],
        says_deployment=True,
    )


def _text(given: str | None) -> str | None:
    if given != "-":
        return given
    return sys.stdin.buffer.read(STDIN_LIMIT).decode("utf-8", errors="replace")
