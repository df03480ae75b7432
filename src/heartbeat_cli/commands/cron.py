"""`heartbeat cron print`."""

from __future__ import annotations

import typer

from heartbeat_cli import crontab, output, schedule, tokens
from heartbeat_cli.command import PLAIN, WHICH_DEPLOYMENT, Edge, register
from heartbeat_cli.config import TOKEN_VARIABLE, Settings
from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.output import Answer

app = typer.Typer(**PLAIN)


@app.callback()
def group() -> None:
    """A group although it has one command yet: without a callback Typer would fold the two."""


@register(app, "cron print", WHICH_DEPLOYMENT)
def print_lines(edge: Edge) -> Answer:
    """The crontab lines of the schedule, to paste into crontab -e."""
    settings = edge.settings
    rows = schedule.load(settings.schedule_path).rows
    host = _host(settings)
    found = crontab.entries(rows, host)
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
    _warn_of_token(settings)
    lines = crontab.block(found, host)
    told = [
        {
            "agent": entry.row.agent,
            "line": entry.row.line,
            "crontab": list(entry.lines),
            "inactive": entry.warning,
        }
        for entry in found
    ]
    return Answer({"entries": told, "block": lines}, [output.shown(line) for line in lines])


def _warn_of_token(settings: Settings) -> None:
    """A secret goes into no crontab: say what cron is to use instead of this shell's."""
    if settings.token_source != TOKEN_VARIABLE or settings.url is None:
        return
    output.say(f"heartbeat: the token is from {TOKEN_VARIABLE}, which cron will not have;")
    if tokens.stored(settings.config_dir, settings.url, []) is not None:
        output.say(f"  cron uses the one kept in {tokens.path(settings.config_dir)}")
    else:
        output.say(f"  keep it: printenv {TOKEN_VARIABLE} | heartbeat token save --url {settings.url}")


def _host(settings: Settings) -> crontab.Host:
    return crontab.Host(
        name=settings.host,
        program=crontab.program(),
        home=settings.home,
        log_dir=settings.log_path.parent,
        zone=crontab.system_zone(),
        variables=settings.variables(),
    )
