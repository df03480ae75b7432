"""Access tokens: made here, kept here per deployment address, and never sent to another.

A token is 32 random bytes; a deployment only ever learns its SHA-256. States of a token on this host:

    minted ──store on the deployment (hash)──▶ valid ──revoke──▶ refused as `unauthorized`
       └── save ──▶ tokens.toml (0600, one per address): what `send` and the other commands use

tokens.toml:   ["https://happy-animal-123.convex.cloud"]
               token = "…"
               scope = "send"
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heartbeat_cli.config import read_toml
from heartbeat_cli.errors import SettingsProblem

FILE = "tokens.toml"
TOKEN_BYTES = 32  # 256 bits: guessing is hopeless, so a fast hash (SHA-256) is enough to store it
FINGERPRINT_CHARS = 12  # of the hash, hex: names a token without revealing it, as the deployment does
OTHERS_MAY_READ = stat.S_IRWXG | stat.S_IRWXO
PRIVATE = 0o600
ADMIN = "admin"
SCOPES = ("send", "read", ADMIN)
FIRST_TOKEN_FUNCTION = "setup:storeFirstToken"  # noqa: S105 - the name of a function

RunAdmin = Callable[[str, Mapping[str, Any]], Any]
"""Calls an internal function with the admin key: (path, args) -> its answer."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token's text (never in a repr) and its scope, None when the file does not say."""

    text: str = field(repr=False)
    scope: str | None


def path(config_dir: Path) -> Path:
    return config_dir / FILE


def mint() -> str:
    """A new token's text; nobody knows it yet."""
    import secrets  # noqa: PLC0415 - every command reads tokens, one makes them

    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(text: str) -> str:
    """What a deployment stores: the SHA-256 of the token's text, 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def fingerprint(text: str) -> str:
    return token_hash(text)[:FINGERPRINT_CHARS]


def stored(config_dir: Path, url: str, warnings: list[str]) -> Token | None:
    """The token kept for exactly this address, or None.

    A file that others can read is used all the same (a heartbeat must not stop over it) and leaves a warning
    that names the command to mend it. Raises `SettingsProblem` when the file is not readable as what it
    should be.
    """
    file = path(config_dir)
    tables = read_toml(file)
    if tables and stat.S_IMODE(file.stat().st_mode) & OTHERS_MAY_READ and os.name == "posix":
        warnings.append(f"other users can read the tokens in {file}; mend it: chmod 600 {file}")
    entry = tables.get(url)
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str) or not entry["token"]:
        raise SettingsProblem(f'{file}: ["{url}"] has no token = "…"')
    scope = entry.get("scope")
    return Token(entry["token"], scope if isinstance(scope, str) else None)


def save(config_dir: Path, url: str, text: str, scope: str | None) -> Path:
    """Keep `text` as the token for `url`, in place of an older one; the others stay. Returns the file.

    The file is 0600 from its first byte and replaced in one step: a crash leaves the old one or the
    new one. Raises `SettingsProblem` when it cannot be written.
    """
    file = path(config_dir)
    tables = {name: entry for name, entry in read_toml(file).items() if isinstance(entry, dict)}
    tables[url] = {"token": text} | ({"scope": scope} if scope else {})
    lines = ["# Access tokens, one per deployment address. Keep this file to yourself (0600)."]
    for name, entry in sorted(tables.items()):
        lines.append(f"\n[{_toml_text(name)}]")
        lines += [f"{key} = {_toml_text(str(value))}" for key, value in entry.items()]
    try:
        config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, ("\n".join(lines) + "\n").encode("utf-8"))
    except OSError as error:
        raise SettingsProblem(f"the token cannot be kept in {file}: {error.strerror}") from None
    return file


def write_private(file: Path, data: bytes) -> None:
    """Replace `file` by `data` in one step, readable by its owner only. Raises OSError."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _toml_text(text: str) -> str:
    # A TOML basic string and a JSON string agree for all but DEL, which TOML wants escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def first_token_args(text: str, name: str, scope: str = ADMIN) -> dict[str, Any]:
    """Arguments of the internal function that stores a first token. They hold the hash, not the token."""
    return {"request": {"tokenHash": token_hash(text), "name": name, "scope": scope}}


def first_token_line(text: str, name: str) -> str:
    """The line to paste where the Convex project is, for somebody with its deploy key or login."""
    return f"npx convex run {FIRST_TOKEN_FUNCTION} '{json.dumps(first_token_args(text, name))}'"


def ensure_local_tokens(config_dir: Path, url: str, host: str, run_admin: RunAdmin) -> str:
    """See to it that this user's token for the local backend exists on both sides; returns its fingerprint.

    Safe to call at every start: a token that is stored here is registered there again (the function is
    idempotent), which also heals a local backend whose data was deleted. A new one is saved only after the
    backend has stored it.
    """
    warnings: list[str] = []
    kept = stored(config_dir, url, warnings)
    text = kept.text if kept else mint()
    scope = (kept.scope if kept else None) or "admin"
    run_admin(FIRST_TOKEN_FUNCTION, first_token_args(text, first_token_name(host), scope))
    if kept is None:
        save(config_dir, url, text, "admin")
    return fingerprint(text)


def first_token_name(host: str) -> str:
    return f"first, {host}"[:100]


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
