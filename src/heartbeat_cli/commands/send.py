"""`heartbeat send`."""

from __future__ import annotations

import sys
from io import BufferedReader
from typing import Annotated, cast

import typer

from heartbeat_cli import output, send
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.deadline import Late, within
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
    if "-" in (summary, error):
        text = _standard_input(edge.settings.deadline_s)
        summary, error = (text if given == "-" else given for given in (summary, error))
    report = send.Report(
        agent, status, summary, error, result, open_tasks=open_tasks, stale_tasks=stale_tasks
    )
    sent = send.send(report, edge.settings, edge.connect, edge.now_ms)
    for note in sent.notes:
        output.say(f"heartbeat: {output.shown(note)}")
    return Answer(
        {
            "heartbeatId": sent.heartbeat.heartbeat_id,
            **sent.answer,
            "elapsedMs": sent.elapsed_ms,
            "notes": list(sent.notes),
        },
        lines=[] if quiet else [send.line(sent, edge.settings.deployment(), edge.now_ms())],
        says_deployment=True,
    )


def _standard_input(seconds: float) -> str:
    """What is piped to us, at most what came within `seconds`: a heartbeat does not wait for a comment."""
    parts: list[bytes] = []
    stream = cast(BufferedReader, sys.stdin.buffer)

    def read() -> None:
        while sum(map(len, parts)) < STDIN_LIMIT and (part := stream.read1(STDIN_LIMIT)):
            parts.append(part)

    if sys.stdin.isatty():
        read()
    else:
        try:
            within(seconds, read)
        except Late:
            output.say(
                f"heartbeat: standard input had not ended after {seconds:g} s: what came until then was taken"
            )
    return b"".join(parts)[:STDIN_LIMIT].decode("utf-8", errors="replace")
