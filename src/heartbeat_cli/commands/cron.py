"""`heartbeat cron print`."""

from __future__ import annotations

from pathlib import Path

import typer

from heartbeat_cli import crontab, output, schedule
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.config import Settings
from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.output import Answer

app = typer.Typer(**PLAIN)


@app.callback()
def group() -> None:
    """A group although it has one command yet: without a callback Typer would fold the two."""


@register(app, "cron print")
def print_lines(edge: Edge) -> Answer:
    """The crontab lines of the schedule, to paste into crontab -e."""
    settings = edge.settings
    parsed = schedule.parse(schedule.read(settings.schedule_path))
    host = _host(settings)
    found = crontab.entries(parsed.rows, host)
    try:
        # Cron's shell opens the log before it runs anything: without the folder no line would ever run
        host.log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsProblem(f"the log folder {host.log_dir} cannot be made: {error.strerror}") from None
    for entry in found:
        if entry.warning:
            output.say(
                f"heartbeat: {entry.row.agent} (line {entry.row.line}) is {output.shown(entry.warning)}"
            )
    if settings.token_source == "HEARTBEAT_TOKEN":  # noqa: S105 - a variable's name
        output.say(
            "heartbeat: the token is from HEARTBEAT_TOKEN, which cron will not have: heartbeat token save"
        )
    lines = crontab.block(found, host)
    rows = [
        {
            "agent": entry.row.agent,
            "line": entry.row.line,
            "crontab": list(entry.lines),
            "inactive": entry.warning,
        }
        for entry in found
    ]
    return Answer({"entries": rows, "block": lines}, [output.shown(line) for line in lines])


def _host(settings: Settings) -> crontab.Host:
    return crontab.Host(
        name=settings.host,
        program=crontab.program(),
        home=settings.home,
        log_dir=settings.log_path.parent,
        zone=crontab.system_zone(),
        variables=_variables(settings),
    )


def _variables(settings: Settings) -> list[tuple[str, str]]:
    """What the settings of this shell owe to its environment, and cron's environment would not give."""
    variables = []
    for name, folder, default in (
        ("XDG_CONFIG_HOME", settings.config_dir, ".config"),
        ("XDG_DATA_HOME", settings.data_dir, ".local/share"),
    ):
        if folder.parent != Path.home() / default:
            variables.append((name, str(folder.parent)))
    if settings.url and settings.url_source.partition(" ")[0] in {"--url", "HEARTBEAT_URL", "CONVEX_URL"}:
        variables.append(("HEARTBEAT_URL", "local" if settings.is_local else settings.url))
    return variables
