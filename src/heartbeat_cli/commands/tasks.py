"""`heartbeat tasks list|add|done`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from heartbeat_cli import agents, fleet
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.errors import Unreachable
from heartbeat_cli.heartbeat import agent_name
from heartbeat_cli.output import Answer

app = typer.Typer(**PLAIN)


@register(app, "tasks list")
def list_tasks(edge: Edge, agent: Annotated[str, typer.Argument(help="The agent's name.")]) -> Answer:
    """Each task of AGENT: whether it counted as open or stale, and why."""
    name, now = agent_name(agent), edge.now_ms()
    found = fleet.pages(edge.connect(), "queries/listAgentTasks", "tasks", {"agent": name, "at": now})
    counted = [task["counted"] for task in found]
    stale = counted.count("stale")
    summary = f"{name}: {stale + counted.count('open')} open, {stale} stale, {len(found)} in all"
    table = agents.tasks_table(found, now, ids=True)
    return Answer({"agent": name, "tasks": found}, [table, summary] if found else [summary])


@register(app, "tasks add")
def add(
    edge: Edge,
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    title: Annotated[str, typer.Argument(help="What is to be done.")],
    status: Annotated[str | None, typer.Option("--status", metavar="WORD", help="Its status.")] = None,
) -> Answer:
    """Add a task (only where the tasks table is this project's own)."""
    body: dict[str, Any] = {"agent": agent_name(agent), "title": title} | (
        {"status": status} if status else {}
    )
    done = _changed(edge, "mutations/addTask", body)
    return Answer(done, [f"task {done['taskId']} added"])


@register(app, "tasks done")
def complete(
    edge: Edge, task: Annotated[str, typer.Argument(help="The task's id, from tasks list.")]
) -> Answer:
    """Mark a task as done (only where the tasks table is this project's own)."""
    done = _changed(edge, "mutations/completeTask", {"taskId": task})
    return Answer(done, [f"task {done['taskId']} is done"])


def _changed(edge: Edge, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for a change of our own minimal table. The functions for it are left out of an app with its own."""
    try:
        return edge.connect().mutation(path, "request", body)
    except Unreachable as problem:
        if problem.cause != "function_missing":
            raise
        hint = f"tasks that are an app's own are added and finished there; otherwise: {problem.hint}"
        raise Unreachable(str(problem), cause=problem.cause, hint=hint) from problem
