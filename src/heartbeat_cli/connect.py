"""From the local backend, or from nothing, to a deployment: what `heartbeat connect` does, in which order.

    probed ──▶ token kept ──▶ asked what to do ──▶ schedule applied ──▶ url in config.toml
                                  │                                         │
                                  └─with a history to copy─┐                └──▶ local backend stopped
                                                           ▼                         │
           history copied ──▶ url in config.toml ──▶ local backend stopped           ▼
                                                           └──▶ spool readdressed ──▶ (applied) ──▶ delivered

Each step can be left out, but where the next one needs it; each looks first at how things stand, and does
nothing where it was done: so all of it is safe to repeat, whenever and however it ended.

Why in this order:

- From the copy to the readdressing nobody on this host delivers anything: it is all done under the spool's
  lock of who delivers. So the local backend's history does not grow behind the copy, and what is sent
  meanwhile waits in the spool. Everything is asked for before, since somebody who thinks holds up the others.
- Copied before the address is switched: a copy that fails has changed nothing for anybody.
- Switched before the spool is readdressed: what is kept from then on is for the new deployment. The other way
  round heartbeats would go on coming in for the old one.
- Applied before the switch where nothing is copied: what is sent right after it would be refused, as of
  agents that nobody has heard of. Where a history is copied its agents come with it, as they were (paused,
  say), and what is applied after that leaves them so; the other way round they would be active.

Exactly once, at the new deployment: a heartbeat that waits in the spool was delivered to the local backend
or was not; nobody can tell when the answer was lost. It goes to the new deployment in any case, under its id;
if the copy brings it there as well, the second of the two is a `duplicate`, or known already. One that is
recorded at the local backend and is no more in the spool comes with the copy. One whose sender waits for its
turn, while its entry is readdressed, is left alone by that sender (send.py). So each is there once, whichever
of the steps a kill has cut off and however often they are repeated; only where the copy is declined, what
was delivered to the local backend stays there alone.

A command that runs for hours (`heartbeat run`) has its settings from when it began, and reports to the
local backend: what it keeps in the spool goes over when `connect` is typed again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from heartbeat_cli import private_files
from heartbeat_cli.client import UNAUTHORIZED, Connection, greeting
from heartbeat_cli.contact import ADD_FUNCTIONS
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import Refused, SpoolProblem, Unreachable, UsageProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.spool import Spool

PROBED = "queries/getMonitorStatus"  # in every version of the functions, and it reads one row
SITE_ANSWERS = frozenset({"wrong_address"})  # how an address of HTTP actions takes a call of a function
TURN_WAITS_S = 60.0  # for another process that delivers: each of its calls may take as long as a deadline
TURN_POLL_S = 0.05
COPIED = "copied.json"  # in the local backend's folder: where its whole history was copied to


def probe(url: str, deadline: Deadline, *, proxied: bool) -> str:
    """The version that the deployment at `url` states, if our functions are there: they refuse a call without
    a token. Raises `Unreachable` with the cause and what to do.
    """
    version = greeting(url, deadline, proxied=proxied).version
    try:
        with Connection(url, None, deadline=deadline, transport="http", proxied=proxied) as nobody:
            nobody.query(PROBED, "request", {})
    except Refused as refused:
        if refused.code == UNAUTHORIZED:
            return version
    except Unreachable as problem:
        if problem.cause in {"function_missing", "server_error"}:
            # a production deployment does not tell that a function is missing
            problem.hint = (
                ADD_FUNCTIONS if problem.cause == "function_missing" else f"{problem.hint}; {ADD_FUNCTIONS}"
            )
        raise
    raise Unreachable(
        f"{url} has another function {PROBED} than ours",
        cause="function_missing",
        hint=ADD_FUNCTIONS,
    )


def probe_site(site_url: str, deadline: Deadline, *, proxied: bool) -> None:
    """Is this the address of a deployment's HTTP actions? Raises `UsageProblem` for that of its functions,
    `Unreachable` where neither of them answers.
    """
    try:
        with Connection(site_url, None, deadline=deadline, transport="http", proxied=proxied) as nobody:
            nobody.query(PROBED, "request", {})
    except Unreachable as problem:
        if problem.cause in SITE_ANSWERS:
            return
        if problem.cause not in {"function_missing", "server_error"}:
            raise
    except Refused:
        pass
    raise UsageProblem(
        f"{site_url} is the address of a deployment's functions, not of its HTTP actions",
        hint="self-hosted, that is another port or name: 3211, say, where the functions have 3210",
    )


def own_token(url: str, text: str, deadline: Deadline, *, proxied: bool) -> Mapping[str, Any] | None:
    """What the deployment says of a token; None where it does not accept it."""
    try:
        with Connection(url, text, deadline=deadline, transport="http", proxied=proxied) as connection:
            return connection.query("queries/getToken", "request", {})
    except Refused as refused:
        if refused.code != UNAUTHORIZED:
            raise
        return None


@contextmanager
def delivering(spool: Spool) -> Iterator[None]:
    """While nobody else on this host delivers anything. Raises `SpoolProblem` where somebody does not end."""
    spool.begin()
    give_up = time.monotonic() + TURN_WAITS_S
    while not spool.alone():
        if time.monotonic() > give_up:
            raise SpoolProblem(
                f"another process is still delivering after {TURN_WAITS_S:.0f} s", hint="try again later"
            )
        time.sleep(TURN_POLL_S)
    try:
        yield
    finally:
        spool.done()


def is_copied(instance: Instance, url: str) -> bool:
    """Whether all that the local backend holds is at `url` already: copied, and stopped right after, and not
    started since.
    """
    try:
        return bool(json.loads((instance.folder / COPIED).read_bytes()) == _copied(instance, url))
    except (OSError, ValueError):
        return False


def note_copied(instance: Instance, url: str) -> None:
    """Remember that. Raises OSError."""
    private_files.replace(instance.folder / COPIED, json.dumps(_copied(instance, url)).encode())


def _copied(instance: Instance, url: str) -> dict[str, Any]:
    record = instance.record()
    return {"url": url, "startedAt": record and record.startedAt}
