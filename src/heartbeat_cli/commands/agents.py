"""`heartbeat agents list|show|pause|resume|retire`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from heartbeat_cli import agents, fleet, output
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.errors import Unreachable
from heartbeat_cli.heartbeat import agent_name
from heartbeat_cli.output import Answer, Table

app = typer.Typer(**PLAIN)

PAGE = 100  # heartbeats, runs or tasks in one answer: every deployment gives as many
TASKS_MOST = 1000  # looked through for those that are open: as many as a deployment counts

Agent = Annotated[str, typer.Argument(help="The agent's name.")]
Agents = Annotated[list[str], typer.Argument(help="The agents' names.")]


@register(app, "agents list")
def list_agents(edge: Edge) -> Answer:
    """Every watched agent and what it is set to (retired ones are not watched)."""
    found = fleet.fetch(edge.connect(), edge.now_ms)
    if not found.agents:
        return Answer({"agents": []}, ["no agents yet; register those of a schedule: heartbeat apply"])
    return Answer({"agents": found.agents}, [agents.list_table(found.agents, found.as_of)])


@register(app, "agents show")
def show_agent(
    edge: Edge,
    agent: Agent,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, max=100, help="How many runs, heartbeats, flips, tasks."),
    ] = 5,
) -> Answer:
    """One agent looked at closely: health and why, errors, runs with their output, tasks, flips."""
    name, now = agent_name(agent), edge.now_ms()
    connection = edge.connect()
    found = connection.query("queries/getAgent", "request", {"agent": name, "at": now})

    def read(function: str, items: str, most: int, **more: Any) -> list[fleet.Row]:
        body = {"agent": name, "limit": min(most, PAGE), **more}
        return fleet.pages(connection, f"queries/{function}", items, body, most)

    past = _known("heartbeats", lambda: read("getAgentHistory", "heartbeats", limit))
    runs = _known("runs", lambda: _runs(read, found["row"], limit))
    tasks = agents.open_tasks(_known("tasks", lambda: read("listAgentTasks", "tasks", TASKS_MOST, at=now)))
    flips = list(found.get("flips") or [])[:limit]
    expected = agents.expected_table(found, now, None)
    lines: list[str | Table] = [agents.facts(found, now, None)]
    if runs:
        lines += ["", agents.runs_table(runs, now, None), *agents.outputs(runs, None)]
    if tasks:
        lines += ["", agents.tasks_table(tasks[:limit], now, ids=False)]
    if len(tasks) > limit:
        lines.append(f"{len(tasks) - limit} more: heartbeat tasks list {name}")
    if flips:
        lines += ["", agents.flips_table(flips, None)]
    if past:
        lines += ["", agents.history_table(past, now, None)]
    if expected:
        lines += ["", expected]
    more = {"flips": flips, "heartbeats": past, "runs": runs, "tasks": tasks[:limit]}
    return Answer({**found, **more}, lines)


def _runs(read: Callable[..., list[fleet.Row]], row: fleet.Row, limit: int) -> list[fleet.Row]:
    """The last runs. The functions of before cannot tell them, but in their history they are."""
    try:
        return read("getAgentRuns", "runs", limit)
    except Unreachable as problem:
        if problem.cause != "function_missing":
            raise
        return agents.runs_from(read("getAgentHistory", "heartbeats", PAGE), row)[:limit]


def _known(what: str, read: Callable[[], list[fleet.Row]]) -> list[fleet.Row]:
    """What `read` finds; nothing, and a line on stderr, where the deployment cannot tell. What it told before
    is worth showing all the same.
    """
    try:
        return read()
    except Unreachable as problem:
        output.say(f"heartbeat: the {what} could not be read: {problem}")
        return []


@register(app, "agents pause")
def pause(edge: Edge, names: Agents) -> Answer:
    """Stop watching for silence; heartbeats are still recorded."""
    return _control(edge, names, "paused", "paused")


@register(app, "agents resume")
def resume(edge: Edge, names: Agents) -> Answer:
    """Watch again, counting from now."""
    return _control(edge, names, "active", "active")


@register(app, "agents retire")
def retire(edge: Edge, names: Agents) -> Answer:
    """Take agents off the dashboard; their history stays, and resume brings them back."""
    return _control(edge, names, "retired", "retired")


def _control(edge: Edge, names: list[str], control: str, word: str) -> Answer:
    wanted = [agent_name(name) for name in names]
    connection, now = edge.connect(), edge.now_ms()
    for name in wanted:  # a name that is not there is told before anything is changed
        connection.query("queries/getAgent", "request", {"agent": name, "at": now})
    done = [
        connection.mutation("mutations/setAgentControl", "request", {"agent": name, "control": control})
        for name in wanted
    ]
    lines = [f"{entry['agent']} {'is now' if entry['changed'] else 'was already'} {word}" for entry in done]
    return Answer({"agents": done}, lines)
