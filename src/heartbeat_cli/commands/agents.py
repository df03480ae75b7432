"""`heartbeat agents list|show|pause|resume|retire`."""

from __future__ import annotations

from typing import Annotated

import typer

from heartbeat_cli import agents, fleet
from heartbeat_cli.command import PLAIN, Edge, register
from heartbeat_cli.heartbeat import agent_name
from heartbeat_cli.output import Answer, Table

app = typer.Typer(**PLAIN)

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
def show_agent(edge: Edge, agent: Agent) -> Answer:
    """One agent: schedule, health, last heartbeats, flips."""
    name = agent_name(agent)
    connection, now = edge.connect(), edge.now_ms()
    found = connection.query("queries/getAgent", "request", {"agent": name, "at": now})
    past = fleet.pages(
        connection,
        "queries/getAgentHistory",
        "heartbeats",
        {"agent": name, "limit": agents.HISTORY},
        agents.HISTORY,
    )
    lines: list[str | Table] = [agents.facts(found, now, None)]
    if past:
        lines += ["", agents.history_table(past, now, None)]
    if found.get("flips"):
        lines += ["", agents.flips_table(found["flips"], None)]
    return Answer({**found, "heartbeats": past}, lines)


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
