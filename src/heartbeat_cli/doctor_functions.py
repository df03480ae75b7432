"""What `heartbeat doctor` looks at behind the deployment's address: its functions, our token, its sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from heartbeat_cli import contract
from heartbeat_cli.client import UNAUTHORIZED
from heartbeat_cli.config import TOKEN_VARIABLE, Settings
from heartbeat_cli.crontab_lines import concerned
from heartbeat_cli.deliver import MAY_SEND
from heartbeat_cli.doctor_finding import Checks, Finding, NotLooked, ok, problem, warning, word
from heartbeat_cli.doctor_there import There
from heartbeat_cli.errors import HeartbeatError, Refused, SettingsProblem, Unreachable
from heartbeat_cli.tokens import fingerprint

NEWER_PROGRAM = "update this program: in its clone git pull && make setup, else pip install a newer wheel"


def checks(there: There) -> Checks:
    """Every check of this group."""
    yield "functions", partial(functions, there)
    yield "token", partial(token, there)
    yield "sweep", partial(sweep, there)


def functions(there: There) -> Iterator[Finding]:
    """Are our functions there, and of which version of the contract?"""
    try:
        known = there.monitor.own().get("contractVersion")
    except Unreachable as error:
        fix = there.deploy if error.cause in {"function_missing", "server_error"} else error.hint
        yield problem(str(error), fix)
        return
    except (Refused, SettingsProblem) as error:
        raise NotLooked(str(error)) from None
    url, ours = there.settings.deployment(), contract.VERSION
    if known == ours:
        yield ok(f"contract version {known}, as this program")
        return
    if not isinstance(known, int):
        yield problem(f"the functions at {url} do not tell the version of their contract", there.deploy)
        return
    behind = "functions" if known < ours else "program"
    say = f"the functions have contract version {known}, this program {ours}"
    fix = there.deploy if behind == "functions" else NEWER_PROGRAM
    if abs(known - ours) == 1:
        yield warning(f"{say}: they work together, the {behind} should follow", fix)
    else:
        yield problem(f"{say}: more than one apart is not promised to work", fix)


def token(there: There) -> Iterator[Finding]:
    """Is our token valid there, and may it do what this host needs?"""
    settings = there.settings
    try:
        there.monitor.own()
    except (Refused, SettingsProblem) as error:
        yield problem(_no_token(there, error), _valid_token(settings))
        return
    except Unreachable as error:
        raise NotLooked(str(error)) from None
    found = there.token.own()
    scope = found.get("scope")
    name = f"{found['name']} " if "name" in found else ""
    which = f"{name}({fingerprint(settings.needed_token())}, from {settings.token_source})"
    if scope is not None and scope not in MAY_SEND:
        # of a host that runs no agent, which only looks, this is as it should be
        tell = problem if _agents_here(there) else warning
        yield tell(f"{which} may only {scope}: send is refused", _other_token(settings))
        return
    meant_for = found.get("hostName")
    elsewhere = bool(meant_for) and meant_for != settings.host
    agents: list[str] = list(found.get("agents") or ())
    only = f", for {', '.join(agents)}" if agents else ""
    others = sorted(_agents_here(there) - set(agents)) if agents else []
    if elsewhere:
        fix = f"if this is that one, write host = its name into config.toml; else {_other_token(settings)}"
        yield warning(f"{which} was made for the host {meant_for}, this is {settings.host}", fix)
    if others:
        say = f"{which} may send{only} only, not for {', '.join(others)}"
        fix = _other_token(settings, agents + others)
        yield problem(say, f"write their host into the schedule's column host; or {fix}")
    if not elsewhere and not others:
        yield ok(f"{which} is valid, scope {scope or 'not told'}{only}")


def _agents_here(there: There) -> set[str]:
    """The agents of this host, as far as its schedule tells."""
    try:
        return {row.agent for row in concerned(there.page.needed().rows, there.settings.host)}
    except NotLooked:
        return set()


def _no_token(there: There, error: HeartbeatError) -> str:
    settings = there.settings
    if error.code != UNAUTHORIZED or settings.token is None:
        return str(error)
    return (
        f"the token from {settings.token_source} (fingerprint {fingerprint(settings.token)}) is not valid"
        f" at {settings.url}"
    )


def _valid_token(settings: Settings) -> str:
    """What to type where the token is not valid there, or there is none."""
    if settings.token_source == TOKEN_VARIABLE:
        return f"unset {TOKEN_VARIABLE}"
    return "heartbeat local up" if settings.is_local else _other_token(settings)


def _other_token(settings: Settings, agents: Sequence[str] = ()) -> str:
    save = f"heartbeat token save --url {settings.url} < FILE"
    only = f" --agents {word(','.join(agents))}" if agents else ""
    create = f"heartbeat token create {word(settings.host)}{only}"
    return f"where an admin token is kept: {create}; then here: {save}"


def sweep(there: There) -> Iterator[Finding]:
    """Does the deployment look for silence? Without its sweep nobody becomes degraded."""
    from heartbeat_cli import dashboard  # noqa: PLC0415 - rich takes 60 ms

    monitor, now = there.monitor.needed(), there.now_there()
    line = dashboard.sweep_line(monitor, now).plain
    if dashboard.sweep_is_late(monitor, now):
        yield problem(line, there.deploy if monitor.get("stoppedAt") is None else dashboard.STARTS_SWEEP)
    else:
        yield ok(line)
