"""`heartbeat functions foreign`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heartbeat_cli import functions, output
from heartbeat_cli.command import NONE, PLAIN, Edge, register
from heartbeat_cli.output import Answer

app = typer.Typer(**PLAIN)


@app.callback()
def group() -> None:
    """A group although it has one command: without a callback Typer would fold the two."""


@register(app, "functions foreign", NONE)
def foreign(
    edge: Edge, app_dir: Annotated[Path, typer.Argument(help="The convex/ folder that is to be pushed.")]
) -> Answer:
    """Read `convex function-spec` from standard input; name what a push of APP_DIR would delete."""
    names = functions.foreign_functions(sys.stdin.read(), app_dir)
    if not names:
        return Answer({"foreign": []}, ["every function of the deployment is in the folder"])
    if not edge.json:
        for name in names:
            output.say(f"  {name}")
        verb = "a function that is" if len(names) == 1 else f"{len(names)} functions that are"
        output.say(
            f"heartbeat: the deployment has {verb} not in {app_dir}; a push would delete what is listed above"
        )
    return Answer({"foreign": names}, exit_code=1)
