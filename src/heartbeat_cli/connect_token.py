"""The token that a host keeps for a deployment: which one, and how it comes by its first.

One token is kept for an address, and every command uses it. On the lead's host that is an admin token: a
second one beside it, for cron to send with, would lie in the same file, which the same user's cron reads
anyway, and would protect nothing. What a token may do matters between hosts: each other host is given one
that sends for its own agents only (`heartbeat token create --agents …`), and keeps that.

    nothing is given     kept, and accepted there ──▶ it stays              else: what to give is told
    a token is given     accepted there ──▶ kept in place of what was       (but for an admin token's)
    a way to store one   kept, accepted, admin ──▶ it stays
      (a deploy key,     kept, accepted, less ──▶ a new one: stored there, then kept
      npx convex run)    kept, unknown there ──▶ the same one is stored     (an attempt that was cut off)
                         none, or revoked ──▶ a new one: kept, then stored
      stored, and still unknown there: another deployment has it ──▶ kept no more

A new one is kept first where nothing that works is kept: killed before it is stored, or before anybody heard
that it was, the next attempt stores the same one, and there is never a second. Where one works that is not
put at risk: killed in between, a token is left there that nobody has, which harms nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from heartbeat_cli import tokens
from heartbeat_cli.address import cloud_name
from heartbeat_cli.errors import Refused, SettingsProblem, UsageProblem
from heartbeat_cli.scrub import remember, remember_key

INPUT_LIMIT = 4096  # characters read from standard input; a deploy key has about 120
KEY_MARK = "|"  # in every deploy and admin key, and in no token
ONE_DEPLOYMENT = frozenset({"prod", "dev"})  # kinds of keys that are for one; those of a project are not
NAME_CHARS = 100  # what the functions take as a token's name
WHAT_TO_GIVE = (
    "pipe in a deploy key (printenv CONVEX_DEPLOY_KEY | heartbeat connect …), or a token that was made for"
    " this host; or give --app APP_DIR, to make one through npx convex run there"
)

Ask = Callable[[str], Mapping[str, Any] | None]
"""What the deployment says of a token: queries/getToken's answer, None where it does not accept it."""


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody handed over: a token, or a deploy or admin key; neither is in a repr."""

    token: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """The token that is kept now; or is to be kept, where that is only `planned` (then without a text if it
    is still to be made). `replaced`: the fingerprint of a valid one that it took the place of. `agents`:
    those that it may send for, None for all; `host_name`: the host that it was made for.
    """

    outcome: Literal["unchanged", "kept", "made", "planned"]
    text: str | None = field(repr=False)
    scope: str | None
    agents: tuple[str, ...] | None = None
    replaced: str | None = None
    host_name: str | None = None

    @property
    def fingerprint(self) -> str | None:
        """Its name; None while there is none."""
        return None if self.text is None else tokens.fingerprint(self.text)

    @property
    def is_admin(self) -> bool:
        """Whether it may do everything."""
        return self.scope == tokens.ADMIN


def judged(text: str, url: str) -> Given:
    """What stands in `text`, which is for the deployment at `url`; from here on it is in no output.

    Raises `UsageProblem` for what is neither token nor key, and for a key that is another deployment's: it is
    sent nowhere.
    """
    given = text.strip()
    (remember_key if KEY_MARK in given else remember)(given)
    if not given:
        return Given()
    if len(given.split()) != 1 or not given.isprintable() or not given.isascii():
        raise UsageProblem(
            "standard input holds neither an access token nor a deploy key", hint="pipe in one of them, alone"
        )
    if KEY_MARK not in given:
        return Given(token=given)
    kind, colon, name = given.partition(KEY_MARK)[0].rpartition(":")
    if colon and kind not in ONE_DEPLOYMENT:
        raise UsageProblem(
            f"that is a key of the kind '{kind.partition(':')[0]}', not of one deployment",
            hint="a deploy key is made in the deployment's settings on the Convex dashboard",
        )
    expected = cloud_name(url)
    if expected is not None and name != expected:
        raise UsageProblem(
            f"that is the deploy key of {name}, and {url} is another deployment",
            hint="it was sent to nobody; check which of the two is meant",
        )
    return Given(key=given)


@dataclass(frozen=True, slots=True)
class Settling:
    """What `settle` works with: where tokens are kept, the deployment's address, what asks it about a token,
    the name of this host. `planning`: nothing is stored, neither here nor there.
    """

    config_dir: Path
    url: str
    ask: Ask
    host: str
    planning: bool = False

    def settle(self, given: str | None, store: tokens.RunAdmin | None) -> Held:
        """See to it that a token is kept for the address which the deployment accepts.

        `given`: a token that somebody handed over. `store`: a way to its internal functions, if there is one.
        Raises `SettingsProblem` with what to give where neither is there and none is kept, and what `ask` and
        `store` raise.
        """
        kept = tokens.stored(self.config_dir, self.url, [])
        if kept is not None:
            remember(kept.text)
        own = None if kept is None else self.ask(kept.text)
        if given is not None and (kept is None or own is None or given != kept.text):
            return self._taken(given, own)
        if kept is not None and own is not None and (store is None or _scope(own) == tokens.ADMIN):
            held = _held("unchanged", kept.text, own)
            if not self.planning and (kept.scope, kept.agents) != (held.scope, held.agents):
                tokens.save(self.config_dir, self.url, kept.text, held.scope, held.agents)
            return held
        if store is None:
            raise self._nothing(known=kept is not None)
        if self.planning:
            return Held("planned", None, tokens.ADMIN)
        before = None if kept is None or own is None else tokens.fingerprint(kept.text)
        again = kept if own is None and kept is not None and kept.scope in {None, tokens.ADMIN} else None
        if again is not None:
            try:
                return self._made(again.text, store, before)
            except Refused as refused:
                if refused.code != "conflict":
                    raise
        # what was kept is of no use to anybody any more: it was revoked
        return self._made(tokens.mint(), store, before)

    def _taken(self, given: str, own: Mapping[str, Any] | None) -> Held:
        found = self.ask(given)
        if found is None:
            raise Refused(
                f"{self.url} does not accept that token",
                code="unauthorized",
                hint="it is another deployment's, or was revoked: heartbeat token list, where an admin token"
                " is kept, shows those that are valid",
            )
        scope = _scope(found)
        if own is not None and _scope(own) == tokens.ADMIN and scope != tokens.ADMIN:
            raise UsageProblem(
                f"{tokens.path(self.config_dir)} keeps an admin token for {self.url}, which that one (scope"
                f" {scope}) would replace",
                hint="what is kept may do all that and more: type the command without a token",
            )
        kept = tokens.stored(self.config_dir, self.url, [])
        before = None if kept is None or own is None else tokens.fingerprint(kept.text)
        held = _held("planned" if self.planning else "kept", given, found, before)
        if not self.planning:
            tokens.save(self.config_dir, self.url, given, scope, held.agents)
        return held

    def _made(self, text: str, store: tokens.RunAdmin, before: str | None) -> Held:
        remember(text)
        if before is None:
            tokens.save(self.config_dir, self.url, text, tokens.ADMIN)
        name = f"connect from {self.host}"[:NAME_CHARS]
        tokens.store_first(store, tokens.first_token_args(text, name))
        found = self.ask(text)
        if found is None:
            # valid at two deployments it would be if it were tried here again
            if before is None:
                tokens.drop(self.config_dir, self.url)
            name = tokens.fingerprint(text)
            raise SettingsProblem(
                f"the token {name} was stored, but by another deployment than that at {self.url};"
                " it is kept nowhere",
                hint=f"end it there: heartbeat token revoke {name}. The app deploys elsewhere: look at its"
                " .env.local, or give --prod; or pipe in the deploy key of this one",
            )
        if before is not None:
            tokens.save(self.config_dir, self.url, text, tokens.ADMIN)
        return _held("made", text, found, before)

    def _nothing(self, *, known: bool) -> SettingsProblem:
        problem = f"no token is kept for {self.url}"
        if known:
            problem = f"{self.url} does not accept the token that is kept for it"
        return SettingsProblem(problem, hint=WHAT_TO_GIVE)


def _held(
    outcome: Literal["unchanged", "kept", "made", "planned"],
    text: str,
    found: Mapping[str, Any],
    before: str | None = None,
) -> Held:
    agents = tuple(found.get("agents") or ()) or None
    return Held(outcome, text, _scope(found), agents, before, found.get("hostName"))


def _scope(found: Mapping[str, Any]) -> str | None:
    scope = found.get("scope")
    return scope if scope in tokens.SCOPES else None
