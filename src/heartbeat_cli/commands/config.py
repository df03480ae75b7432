"""`heartbeat config`."""

from __future__ import annotations

import typer

from heartbeat_cli import tokens
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.config_files import CONFIG_KEYS
from heartbeat_cli.output import Answer, Table

app = typer.Typer(**PLAIN)


@register(app, "config")
def show(edge: Edge) -> Answer:
    """Each setting, its value, and where it came from."""
    settings = edge.settings
    token = None
    if settings.token is not None:
        # The fingerprint names the token as `token list` does, and gives nothing away
        token = f"set (fingerprint {tokens.fingerprint(settings.token)})"
    values = {
        "home": str(settings.home),
        "url": settings.shown_deployment(),
        "site_url": settings.site_url,
        "token": token,
        "deadline": f"{settings.deadline_s:g}",
        "transport": settings.transport,
        "log": str(settings.log_path),
        "host": settings.host,
    }
    places = {
        "schedule": str(settings.schedule_path),
        "config file": str(settings.config_dir / "config.toml"),
        "tokens file": str(tokens.path(settings.config_dir)),
        "data folder": str(settings.data_dir),
    }
    table = Table(("setting", "value", "from"))
    table.rows += [(name, value or "-", settings.sources[name]) for name, value in values.items()]
    lines: list[str | Table] = [Table(("", ""), list(places.items()), last_lines=9)]
    for what, problem in (("deployment", settings.url_problem), ("token", settings.token_problem)):
        if problem is not None:
            lines += ["", f"no {what}: {problem}", *([f"  {problem.hint}"] if problem.hint else [])]
    told = values | {"url": settings.url}
    data = {
        "settings": {name: {"value": value, "from": settings.sources[name]} for name, value in told.items()},
        "files": places,
        "known": list(CONFIG_KEYS),
    }
    edge.invocation.deployment = settings.url
    return Answer(data, [table, "", *lines])
