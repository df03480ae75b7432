"""The deployment as `heartbeat doctor` asks it, and the checks of the way to it and of the clocks.

Every question is asked once, over plain HTTP (checks run side by side, the official client does not), and
only reads. Where one has no answer, one check says why and those that need it are not looked at.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from heartbeat_cli import connect, contract, local, send_told, times
from heartbeat_cli.client import Connection, greeting
from heartbeat_cli.config import Settings
from heartbeat_cli.contact import ANSWER_MARGIN_S, host_and_port
from heartbeat_cli.deadline import Deadline, Late
from heartbeat_cli.deliver import TOKENS_ASKED_FOR
from heartbeat_cli.doctor_finding import Checks, Finding, NotLooked, Shared, ok, problem, warning
from heartbeat_cli.errors import Unreachable, UsageProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.schedule import Schedule
from heartbeat_cli.spool_entry import Entry

SKEW_HARMS_MS = 5 * times.MINUTE_MS  # the least grace: cron on this host then fires too late, or too early
DATE_STEP_MS = times.SECOND_MS  # of the clock that an HTTP answer shows
SITE_IS_THERE = frozenset({"wrong_address", "not_convex"})  # what an address of HTTP actions does with ours
SET_CLOCK = "sudo timedatectl set-ntp true"


@dataclass(frozen=True, slots=True)
class Contact:
    """The deployment answered: its version, and how far its clock is ahead of ours; None if it hides it."""

    version: str
    ahead_ms: int | None


class There:
    """The deployment, as all checks see it. Asks nothing before a check does, then within the deadline.

    `waiting`: what waits in the spool of this host; `page`: its schedule.
    """

    def __init__(
        self,
        settings: Settings,
        deadline: Deadline,
        now_ms: Callable[[], int],
        waiting: Shared[list[Entry]],
        page: Shared[Schedule],
    ) -> None:
        self.settings = settings
        self.deadline = deadline
        self.now_ms = now_ms
        self.waiting = waiting
        self.page = page
        # whether it answers is asked by `address`, in the way that `send` asks
        self.local = Shared(lambda: local.status(Instance(settings.data_dir), ask=False))
        self.contact = Shared(self._contact)
        self.monitor = Shared(lambda: self._ask("queries/getMonitorStatus", {}))
        self.token = Shared(self._token)

    @property
    def deploy(self) -> str:
        """The command that brings the functions up to date."""
        return "heartbeat local up" if self.settings.is_local else "make deploy"

    def now_there(self) -> int:
        """The instant by the deployment's clock, which decides."""
        return self.now_ms() + (self.contact.needed().ahead_ms or 0)

    def connection(self) -> Connection:
        """A connection of its own for each check: one call at a time."""
        return Connection(
            self.settings.deployment(),
            self.settings.needed_token(),
            deadline=self.deadline,
            transport="http",
            proxied=self.settings.proxied,
        )

    def _contact(self) -> Contact:
        settings = self.settings
        url = settings.deployment()
        if settings.is_local and self.local.needed().state == "stopped":
            raise NotLooked("the local backend does not run")
        began = self.now_ms()
        said = greeting(url, self.deadline, proxied=settings.proxied)
        ours = (began + self.now_ms()) // 2
        return Contact(said.version, None if said.at is None else said.at + DATE_STEP_MS // 2 - ours)

    def _ask(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.contact.needed()
        with self.connection() as connection:
            return connection.query(path, "request", request)

    def _token(self) -> dict[str, Any]:
        known = self.monitor.needed().get("contractVersion")
        if not isinstance(known, int) or known < contract.BATCHES_SINCE:
            return {"scope": self.settings.token_scope, "older": []}
        here_as = self.settings.spooled_as()
        others = {entry.fingerprint for entry in self.waiting.needed() if entry.deployment == here_as}
        return self._ask("queries/getToken", {"fingerprints": sorted(others)[:TOKENS_ASKED_FOR]})


def checks(there: There) -> Checks:
    """Every check of this group."""
    yield "address", partial(address, there)
    yield "transport", partial(transport, there)
    yield "http actions", partial(http_actions, there)
    yield "clock", partial(clock, there)


def address(there: There) -> Iterator[Finding]:
    """The address of the functions: does a Convex deployment answer there?"""
    url, settings = there.settings.url, there.settings
    try:
        contact = there.contact.own()
    except Unreachable as error:
        fix = error.hint
        if settings.is_local:
            fix = "heartbeat local up"
        elif error.cause == "wrong_address":
            fix = _other_port(settings) or fix
        yield problem(str(error), fix)
    else:
        yield ok(f"{url} answers: version {contact.version} ({settings.url_source})")


def _other_port(settings: Settings) -> str | None:
    """Convex's own backends, and ours, serve the functions at the port below that of the HTTP actions."""
    host, port = host_and_port(settings.deployment())
    site = Instance(settings.data_dir).record()
    if site is not None and site.siteUrl == settings.url:
        return _set_url(settings, site.url)
    return _set_url(settings, f"http://{host}:{port - 1}") if port > 1024 else None  # noqa: PLR2004 - no web port


def _set_url(settings: Settings, url: str) -> str:
    source = settings.url_source
    if source.startswith("--"):
        return f"{source} {url}"
    name = source.partition(" ")[0]
    if name in {"HEARTBEAT_URL", "CONVEX_URL"} and source == name:
        return f"export {name}={url}"
    return f"in {source.rpartition(' ')[2]}: {'CONVEX_URL=' + url if ' in ' in source else f'url = {url!r}'}"


def transport(there: There) -> Iterator[Finding]:
    """Does the way that `send` takes get through?"""
    settings = there.settings
    there.contact.needed()
    plain = settings.transport == "http" or settings.proxied or not hasattr(signal, "setitimer")
    if plain and settings.transport != "ws":
        why = "a proxy is set" if settings.proxied else f"transport is from {settings.sources['transport']}"
        yield ok(f"plain HTTP ({why})")
        return
    from heartbeat_cli import diagnosis  # noqa: PLC0415 - as heavy as a call

    try:
        trouble = diagnosis.trouble(
            settings.deployment(), timeout_s=there.deadline.left() - 2 * ANSWER_MARGIN_S
        )
    except Late:
        seconds = there.deadline.seconds
        trouble = Unreachable(
            f"no WebSocket to {settings.url} within {seconds:g} s", cause="timeout", hint=None
        )
    if trouble is None:
        yield ok("WebSocket, with the official client")
    else:
        yield problem(str(trouble), "export HEARTBEAT_TRANSPORT=http")


def http_actions(there: There) -> Iterator[Finding]:
    """The deployment's other address, where it is known."""
    there.contact.needed()
    site = there.settings.site_url
    if site is None:
        return
    try:
        connect.probe_site(site, there.deadline, proxied=there.settings.proxied)
    except UsageProblem as error:
        yield warning(f"{error} ({there.settings.sources['site_url']})", error.hint)
        return
    except Unreachable as error:
        if error.cause not in SITE_IS_THERE:
            yield warning(f"HTTP actions do not answer: {error}", error.hint)
            return
    yield ok(f"{site} answers")


def clock(there: There) -> Iterator[Finding]:
    """How far are the clocks apart? Nothing is misjudged by it, but cron fires by ours."""
    ahead = there.contact.needed().ahead_ms
    if ahead is None:
        raise NotLooked("the deployment's answers show no time")
    side = "behind" if ahead > 0 else "ahead of"
    if abs(ahead) <= send_told.SKEW_WORTH_SAYING_MS:
        yield ok(f"this host's clock agrees with the deployment's within {times.span(abs(ahead) + 1000)}")
        return
    apart = f"this host's clock is {times.span(abs(ahead))} {side} the deployment's"
    if abs(ahead) < SKEW_HARMS_MS:
        yield warning(apart, SET_CLOCK)
    else:
        yield problem(f"{apart}, so cron fires at the wrong time", SET_CLOCK)
