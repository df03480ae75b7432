"""`heartbeat send`."""

from __future__ import annotations

import sys
from io import BufferedReader
from typing import Annotated, Any, cast

import typer

from heartbeat_cli import clock, output, run_options, send, send_told
from heartbeat_cli.command import PLAIN, DelayOption, Edge, OnlyAtOption, ZoneOption, register
from heartbeat_cli.deadline import Deadline, Late, within
from heartbeat_cli.errors import HeartbeatError, Lost, Refused, Spooled, UsageProblem
from heartbeat_cli.output import Answer
from heartbeat_cli.spool import Spool, told
from heartbeat_cli.start_time import is_meant_now, wait_at_random

LATER = "it goes out with the next heartbeat to this deployment, or with: heartbeat spool deliver"
STDIN_SHARE = 1 / 2  # of the deadline, for a text that does not end
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
    delay: DelayOption = None,
    only_at: OnlyAtOption = None,
    tz: ZoneOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing when all is well.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 75 when it is spooled and not yet delivered.")
    ] = False,
) -> Answer:
    """Report that AGENT ran."""
    try:
        delay_s = run_options.delay("--delay", delay) if delay is not None else 0.0
        run_options.check_zone(tz, only_at)
    except run_options.Misuse as misuse:
        raise UsageProblem(str(misuse)) from None
    if only_at is not None and not is_meant_now(only_at, tz, output.say):
        raise typer.Exit(0)
    if delay_s:
        wait_at_random(delay_s)
    if summary == "-" and error == "-":
        raise UsageProblem("standard input can be the summary or the error, not both")
    deadline = Deadline(edge.settings.deadline_s)
    if "-" in (summary, error):
        text = _standard_input(edge.settings.deadline_s * STDIN_SHARE)
        summary, error = (text if given == "-" else given for given in (summary, error))
    report = send.Report(
        agent, status, summary, error, result, open_tasks=open_tasks, stale_tasks=stale_tasks
    )
    spool = Spool(edge.settings.data_dir)
    try:
        sent = send.send(report, edge.settings, deadline, edge.connect, clock.now)
    except (Refused, Lost) as error:
        output.say_notes([*error.notes, *told(spool, edge.now_ms())])
        raise
    notes = [*sent.notes, *told(spool, edge.now_ms(), but=int(sent.problem is not None))]
    data: dict[str, Any] = {"heartbeatId": sent.heartbeat.heartbeat_id}
    lines: list[str] = []
    if sent.problem is not None:
        data |= {"outcome": "spooled", "reason": _reason(sent.problem)}
        spooled = _spooled(sent, sent.problem)
        if strict:
            output.say_notes(notes)
            raise spooled
        output.say_error(spooled)
    else:
        data |= dict(sent.answer or {})
        lines = [] if quiet else [send_told.line(sent, edge.settings.deployment(), edge.now_ms())]
    output.say_notes(notes)
    data |= {"elapsedMs": sent.elapsed_ms, "notes": notes}
    return Answer(data, lines=lines, says_deployment=True)


def _reason(problem: HeartbeatError) -> dict[str, Any]:
    cause = getattr(problem, "cause", None)
    return {"code": problem.code, "cause": cause, "message": str(problem), "hint": problem.hint}


def _spooled(sent: send.Sent, problem: HeartbeatError) -> Spooled:
    spooled = Spooled(
        f"{sent.heartbeat.agent} is spooled, not delivered: {problem}",
        hint="; ".join(filter(None, [problem.hint, LATER])),
    )
    spooled.details |= {"heartbeatId": sent.heartbeat.heartbeat_id, "reason": _reason(problem)}
    return spooled


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
