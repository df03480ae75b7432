"""`heartbeat token create|list|rotate|revoke|save`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from heartbeat_cli import output, times, tokens
from heartbeat_cli.client import UNAUTHORIZED
from heartbeat_cli.command import PLAIN, WHICH_DEPLOYMENT, Edge, register
from heartbeat_cli.config import TOKEN_VARIABLE
from heartbeat_cli.errors import Refused, SettingsProblem, UsageProblem
from heartbeat_cli.heartbeat import agent_name
from heartbeat_cli.output import Answer, Table
from heartbeat_cli.scrub import remember

TOKEN_INPUT_LIMIT = 4096  # characters read from standard input; a token has 43

Fingerprint = Annotated[str, typer.Argument(help="The token's fingerprint, from token list.")]

app = typer.Typer(**PLAIN)


@register(app, "token create")
def create(  # noqa: PLR0913 - its options
    edge: Edge,
    name: Annotated[str, typer.Argument(help="What it is for, as token list shows it.")],
    *,
    scope: Annotated[str, typer.Option("--scope", metavar="SCOPE", help="send, read or admin.")] = "send",
    agents: Annotated[
        str | None,
        typer.Option("--agents", metavar="NAMES", help="Only these, as in hint,torv (scope send)."),
    ] = None,
    host_name: Annotated[
        str | None, typer.Option("--host-name", metavar="NAME", help="The host it is meant for.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep it for this user and address instead of showing it.")
    ] = False,
) -> Answer:
    """Make an access token. It is shown once; the deployment stores only its hash."""
    if scope not in tokens.SCOPES:
        raise UsageProblem(f"unknown scope '{scope}'", hint=f"use one of: {', '.join(tokens.SCOPES)}")
    only = [agent_name(part) for part in (agents or "").split(",") if part.strip()]
    settings = edge.settings
    url = settings.deployment()
    if settings.token is None:
        if settings.token_problem is not None:
            raise settings.token_problem
        if scope == "admin" and not only:
            return _first(edge, url, name)
        raise SettingsProblem(
            f"no admin token is kept for {url}, so it cannot make others",
            hint=f"make its first one: heartbeat connect {url}",
        )
    if save and settings.token_scope == tokens.ADMIN and scope != tokens.ADMIN:
        raise UsageProblem(
            f"{tokens.path(settings.config_dir)} keeps an admin token for {url}, which --save would replace",
            hint="leave --save out and hand the token to whoever is to use it",
        )
    text = tokens.mint()
    body = tokens.create_args(text, name, scope, only, host_name)
    try:
        made = edge.connect().mutation("mutations/createToken", "request", body)
    except Refused as refused:
        if refused.code == UNAUTHORIZED and settings.token_scope == tokens.ADMIN:
            line = tokens.first_token_line(settings.token, name)
            refused.hint = f"if the kept token is the first and was not stored there yet: {line}"
        raise
    return _handed_over(edge, made, text, body, save=save)


def _handed_over(
    edge: Edge, made: Mapping[str, Any], text: str, body: Mapping[str, Any], *, save: bool
) -> Answer:
    """The new token, which the deployment has stored as `body` says: kept here, or shown this once."""
    name, scope = made["fingerprint"], body["scope"]
    if save:
        settings = edge.settings
        try:
            file = tokens.save(settings.config_dir, settings.deployment(), text, scope, body.get("agents"))
        except SettingsProblem as problem:
            problem.hint = f"nobody has that token now; end it: heartbeat token revoke {name}"
            raise
        return Answer({**made, "savedIn": str(file)}, [f"{scope} token {name} is kept in {file}"])
    output.say(f"{scope} token {name}, shown only now; keep it where it is used:")
    url = edge.settings.deployment()
    output.say(
        f"  heartbeat connect {url}   on its host, or heartbeat token save, takes it from standard input"
    )
    return Answer({**made, "token": text}, [text])


def _first(edge: Edge, url: str, name: str) -> Answer:
    """A deployment's first token: nobody may call createToken yet, so its owner stores the hash by hand."""
    settings = edge.settings
    if settings.is_local:
        raise SettingsProblem(
            f"the local backend at {url} has no token here", hint="heartbeat local up makes one and keeps it"
        )
    text = tokens.mint()
    file = tokens.save(settings.config_dir, url, text, "admin")
    edge.speaks_to(url, settings.shown_deployment())
    line = tokens.first_token_line(text, name)
    output.say(f"an admin token for {url} is kept in {file}; it is not valid yet.")
    output.say("Where the Convex project is, with its deploy key or login, run (it holds only the hash):")
    data = {"fingerprint": tokens.fingerprint(text), "name": name, "scope": "admin"}
    return Answer({**data, "savedIn": str(file), "run": line}, [line])


@register(app, "token list")
def list_tokens(edge: Edge) -> Answer:
    """Every token the deployment knows, by fingerprint; their texts are known to nobody but their users."""
    now = edge.now_ms()
    found = edge.connect().query("queries/listTokens", "request", {})["tokens"]
    table = Table(("token", "scope", "created", "last used", "state", "agents", "name"))
    for token in found:
        revoked = token.get("revokedAt")
        table.rows.append(
            (
                str(token["fingerprint"]),
                str(token["scope"]),
                times.ago(token["createdAt"], now),
                _last_used(token, now),
                "valid" if revoked is None else f"revoked {times.ago(revoked, now)}",
                ",".join(token.get("agents") or []) or "all",
                " · ".join(str(part) for part in (token["name"], token.get("hostName")) if part),
            )
        )
    return Answer({"tokens": found}, [table])


def _last_used(token: Mapping[str, Any], now: int) -> str:
    """To the day, in UTC, which is how exactly the deployment keeps it; - where it does not tell."""
    at = token.get("lastUsedAt")
    if at is None:
        return "-"
    days = now // times.DAY_MS - int(at) // times.DAY_MS
    return f"{days} d ago" if days > 0 else "today"


@register(app, "token rotate")
def rotate(edge: Edge, fingerprint: Fingerprint) -> Answer:
    """Make a second token that may do what this one may; both are valid until you revoke the first.

    Where the first one is kept here, the second takes its place; else it is shown, once.
    """
    old = tokens.as_fingerprint(fingerprint)
    settings, connection = edge.settings, edge.connect()
    known = connection.query("queries/listTokens", "request", {})["tokens"]
    found = next((token for token in known if token["fingerprint"] == old), None)
    if found is None or found.get("revokedAt") is not None:
        state = "there is no token" if found is None else "it is revoked already:"
        raise UsageProblem(f"{state} {old}", hint="heartbeat token list shows those that are valid")
    kept = tokens.stored(settings.config_dir, settings.deployment(), [])
    text = tokens.mint()
    body = tokens.create_args(
        text, found["name"], found["scope"], found.get("agents") or (), found.get("hostName")
    )
    made = connection.mutation("mutations/createToken", "request", body)
    is_kept_here = kept is not None and tokens.fingerprint(kept.text) == old
    answer = _handed_over(edge, made, text, body, save=is_kept_here)
    then = f"heartbeat token revoke {old}"
    output.say(f"heartbeat: {old} stays valid; once every host that has it has the new one: {then}")
    if settings.token_source == TOKEN_VARIABLE and tokens.fingerprint(settings.needed_token()) == old:
        output.say(f"  it is the one in {TOKEN_VARIABLE}: put the new one there")
    return dataclasses.replace(answer, data={**answer.data, "old": old, "then": then})


@register(app, "token revoke")
def revoke(edge: Edge, fingerprint: Fingerprint) -> Answer:
    """End a token at once."""
    ended = tokens.as_fingerprint(fingerprint)
    settings = edge.settings
    if settings.token and ended == tokens.fingerprint(settings.token):
        output.say("heartbeat: this is the token that this command itself uses; the next one needs another")
    done = edge.connect().mutation("mutations/revokeToken", "request", {"fingerprint": ended})
    return Answer(done, [f"token {done['fingerprint']} is revoked"])


@register(app, "token save", WHICH_DEPLOYMENT)
def save_token(
    edge: Edge,
    scope: Annotated[
        str | None, typer.Option("--scope", metavar="SCOPE", help="Its scope, if known.")
    ] = None,
) -> Answer:
    """Keep a token, read from standard input, for this user and the deployment's address."""
    settings = edge.settings
    url = settings.deployment()
    if scope is not None and scope not in tokens.SCOPES:
        raise UsageProblem(f"unknown scope '{scope}'", hint=f"use one of: {', '.join(tokens.SCOPES)}")
    text = sys.stdin.read(TOKEN_INPUT_LIMIT).strip()
    if not text or len(text.split()) != 1:
        raise UsageProblem("standard input holds no token", hint="pipe it in: heartbeat token save < FILE")
    remember(text)
    file = tokens.save(settings.config_dir, url, text, scope)
    edge.speaks_to(url, settings.shown_deployment())
    data = {"fingerprint": tokens.fingerprint(text), "savedIn": str(file)}
    return Answer(data, [f"token {data['fingerprint']} is kept in {file}"])
