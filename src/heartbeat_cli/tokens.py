"""Access tokens: made here, kept here per deployment address, and never sent to another.

A token is 32 random bytes; a deployment only ever learns its SHA-256. States of a token on this host:

    minted ──store on the deployment (hash)──▶ valid ──revoke──▶ refused as `unauthorized`
       └── save ──▶ tokens.toml (0600, one per address): what `send` and the other commands use

Rotating makes a second one that may do the same and leaves the first valid: no host is without one meanwhile.

    old valid ──rotate──▶ old and new valid, new one kept where the old one was ──revoke old──▶ new valid

Killed in between, the old one is valid and kept; a new one that nobody has harms nobody, and `token list`
shows that it is never used. A kept token that the local backend does not accept any more is replaced by
`heartbeat local up`. How a host comes by its first, and why an address has one only, says connect_token.py.

tokens.toml:   ["https://happy-animal-123.convex.cloud"]
               token = "…"
               scope = "send"
               agents = ["hint", "torv"]        those that it may send for; without this: all, or not known
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heartbeat_cli.config_files import read_toml
from heartbeat_cli.errors import Refused, SettingsProblem, Unreachable, UsageProblem
from heartbeat_cli.private_files import alone_in, exposed, replace

FILE = "tokens.toml"
TOKEN_BYTES = 32  # 256 bits: guessing is hopeless, so a fast hash (SHA-256) is enough to store it
FINGERPRINT_CHARS = 12  # of the hash, hex: names a token without revealing it, as the deployment does
FINGERPRINT = re.compile(rf"[0-9a-f]{{{FINGERPRINT_CHARS}}}")
SAVE_WAITS_S = 5.0  # for another that saves: milliseconds, on a slow disk more
ADMIN = "admin"
SCOPES = ("send", "read", ADMIN)
FIRST_TOKEN_FUNCTION = "heartbeat/setup:storeFirstToken"  # noqa: S105 - the name of a function
FIRST_TOKEN_BEFORE = "setup:storeFirstToken"  # noqa: S105 - its name up to version 2 of the contract
# Always the same: a token that is stored again under another name is a conflict, and hosts are renamed
FIRST_TOKEN_NAME = "first"  # noqa: S105 - the name of a token

RunAdmin = Callable[[str, Mapping[str, Any]], Any]
"""Calls an internal function with the admin key: (path, args) -> its answer."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token's text (never in a repr), its scope, and the agents that it may send for: None when the file
    does not say.
    """

    text: str = field(repr=False)
    scope: str | None
    agents: tuple[str, ...] | None = None


def path(config_dir: Path) -> Path:
    """The file that keeps this user's tokens, whether or not there is one."""
    return config_dir / FILE


def mint() -> str:
    """A new token's text; nobody knows it yet."""
    import secrets  # noqa: PLC0415 - every command reads tokens, one makes them

    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(text: str) -> str:
    """What a deployment stores: the SHA-256 of the token's text, 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def fingerprint(text: str) -> str:
    """The 12 hex digits that name a token, as `token list` shows them."""
    return token_hash(text)[:FINGERPRINT_CHARS]


def as_fingerprint(text: str) -> str:
    """The fingerprint that was typed. Raises `UsageProblem` for anything else, which may be the token itself
    and is not repeated.
    """
    typed = text.strip().lower()
    if not FINGERPRINT.fullmatch(typed):
        raise UsageProblem(
            f"that is no token's fingerprint: it has {FINGERPRINT_CHARS} digits from 0 to f",
            hint="heartbeat token list shows them; a token itself is never typed (it shows in ps)",
        )
    return typed


def stored(config_dir: Path, url: str, warnings: list[str]) -> Token | None:
    """The token kept for exactly this address, or None.

    A file that others can read, in a folder that they can change, is used all the same (a heartbeat must not
    stop over it) and leaves a warning that names the command to mend it. Raises `SettingsProblem` when the
    file is not readable as what it should be.
    """
    file = path(config_dir)
    tables = read_toml(file)
    if tables:
        warnings += [trouble for trouble in map(exposed, (file, config_dir)) if trouble]
    entry = tables.get(url)
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str) or not entry["token"]:
        raise SettingsProblem(f'{file}: ["{url}"] has no token = "…"')
    scope = entry.get("scope")
    if scope is not None and scope not in SCOPES:
        warnings.append(f"{file}: the scope {scope!r} of {url} is none of {', '.join(SCOPES)}")
        scope = None
    agents = entry.get("agents")
    if not isinstance(agents, list) or not all(isinstance(agent, str) for agent in agents):
        agents = None
    return Token(entry["token"], scope, tuple(agents) if agents else None)


def save(
    config_dir: Path, url: str, text: str, scope: str | None, agents: Sequence[str] | None = None
) -> Path:
    """Keep `text` as the token for `url`, in place of an older one; the others stay. Returns the file.

    The file is 0600 from its first byte and replaced in one step: a crash leaves the old one or the
    new one. Raises `SettingsProblem` when it cannot be written.
    """
    file = path(config_dir)
    said = {"scope": scope, "agents": list(agents or ())}
    entry: dict[str, Any] = {"token": text, **{name: value for name, value in said.items() if value}}
    try:
        config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone_in(config_dir, SAVE_WAITS_S):
            replace(file, _toml(_entries(file) | {url: entry}))
    except OSError as error:
        raise SettingsProblem(f"the token cannot be kept in {file}: {error.strerror}") from None
    return file


def drop(config_dir: Path, url: str) -> bool:
    """Keep no token for `url` any more; the others stay, and without any the file goes. Returns whether one
    was kept. Raises `SettingsProblem` when the file cannot be read or written.
    """
    file = path(config_dir)
    if url not in _entries(file):
        return False
    try:
        with alone_in(config_dir, SAVE_WAITS_S):
            others = {name: entry for name, entry in _entries(file).items() if name != url}
            if others:
                replace(file, _toml(others))
            else:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsProblem(f"the token cannot be taken out of {file}: {error.strerror}") from None
    return True


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in read_toml(file).items() if isinstance(entry, dict)}


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> bytes:
    lines = ["# Access tokens, one per deployment address. Keep this file to yourself (0600)."]
    for name, entry in sorted(tables.items()):
        lines.append(f"\n[{_toml_text(name)}]")
        lines += [f"{key} = {_toml_value(value)}" for key, value in entry.items()]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _toml_value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return _toml_text(str(value))


def _toml_text(text: str) -> str:
    # A TOML basic string and a JSON string agree for all but DEL, which TOML wants escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def first_token_args(text: str, name: str, scope: str = ADMIN) -> dict[str, Any]:
    """Arguments of the internal function that stores a first token. They hold the hash, not the token."""
    return {"request": {"tokenHash": token_hash(text), "name": name, "scope": scope}}


def store_first(run_admin: RunAdmin, args: Mapping[str, Any]) -> None:
    """Have the deployment store a first token; raises what `run_admin` does."""
    try:
        run_admin(FIRST_TOKEN_FUNCTION, args)
    except Unreachable as problem:
        if problem.cause != "function_missing":
            raise
        run_admin(FIRST_TOKEN_BEFORE, args)


def first_token_line(text: str, name: str) -> str:
    """The line to paste where the Convex project is, for somebody with its deploy key or login."""
    return f"npx convex run {FIRST_TOKEN_FUNCTION} {shlex.quote(json.dumps(first_token_args(text, name)))}"


@dataclass(frozen=True, slots=True)
class LocalToken:
    """The fingerprint of the token kept for the local backend, and of the one it replaced, if any."""

    fingerprint: str
    replaced: str | None = None


def ensure_local_token(
    config_dir: Path, url: str, works: Callable[[str], bool], run_admin: RunAdmin
) -> LocalToken:
    """See to it that this user keeps a token that the local backend accepts (`works` asks it about one).

    For every start. One that is kept and not known there (its data was deleted) is stored there again; one
    that was revoked is replaced, since its holder may make another anyway: the admin key lies in the data
    folder. A new one is kept only after the backend has stored it.
    """
    kept = stored(config_dir, url, [])
    if kept is not None:
        if works(kept.text):
            return LocalToken(fingerprint(kept.text))
        try:
            store_first(run_admin, first_token_args(kept.text, FIRST_TOKEN_NAME, kept.scope or ADMIN))
        except Refused as refused:
            if refused.code != "conflict":
                raise
        else:
            return LocalToken(fingerprint(kept.text))
    text = mint()
    store_first(run_admin, first_token_args(text, FIRST_TOKEN_NAME))
    save(config_dir, url, text, ADMIN)
    return LocalToken(fingerprint(text), replaced=fingerprint(kept.text) if kept else None)


def create_args(
    text: str, name: str, scope: str, agents: Sequence[str], host_name: str | None
) -> dict[str, Any]:
    """The body of mutations/createToken: the hash of `text` and what the token may do."""
    body: dict[str, Any] = {"tokenHash": token_hash(text), "name": name, "scope": scope}
    if agents:
        body["agents"] = list(agents)
    if host_name:
        body["hostName"] = host_name
    return body
