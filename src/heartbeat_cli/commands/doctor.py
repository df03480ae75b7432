"""`heartbeat doctor`."""

from __future__ import annotations

import typer

from heartbeat_cli import doctor
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.output import Answer

app = typer.Typer(**PLAIN)


@register(app, "doctor", warns=False)
def examine(edge: Edge) -> Answer:
    """Say what is wrong, on this host and with the deployment, and what to type. Changes nothing."""
    settings = edge.settings
    edge.invocation.deployment = settings.url
    deadline = Deadline(settings.deadline_s)
    report = doctor.examine(doctor.all_checks(settings, deadline, edge.now_ms), deadline)
    code = 1 if report.count("problem") else 0
    return Answer(report.data(), doctor.lines(report), exit_code=code)
