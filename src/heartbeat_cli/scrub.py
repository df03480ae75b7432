"""The secrets of this process, taken out of every text that leaves it.

A deployment quotes refused arguments in its error texts, and a token is one; proxies and servers echo what
they were sent. So whatever reads a secret says so here (`remember`), and whatever writes (standard output,
standard error, the log, what a deployment said) goes through `scrubbed`. A secret is known in the forms in
which it comes back (as it is, as JSON and addresses write it, in capitals or not), and in parts.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Mapping
from urllib.parse import quote, unquote

HIDDEN = "•••"
# Below it what is called a secret is a word that stands in many texts; those made here have 43 characters
LEAST_CHARS = 8
# So many of a secret's characters in a row give it away; what is left of 256 bits after less, nobody guesses
PART_CHARS = 12
KEY_VARIABLES = ("CONVEX_DEPLOY_KEY", "CONVEX_SELF_HOSTED_ADMIN_KEY")
PROXY_SUFFIX = "_proxy"

# Every part holds a whole one of the blocks that a secret falls into: texts are searched for these few first
BLOCK_CHARS = PART_CHARS // 2


class _Known:
    """Replaced as a whole, one at a time: another thread may be looking through them."""

    parts: frozenset[str] = frozenset()  # of every form of every secret, in small letters
    blocks: frozenset[str] = frozenset()
    lock = threading.Lock()


def remember(secret: str) -> None:
    """From now on `secret` is in no text that this process lets out."""
    text = secret.strip()
    if len(text) < LEAST_CHARS:
        return
    escaped = {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    parts, blocks = set[str](), set[str]()
    for form in map(_lowered, {text, quote(text, safe="", errors="surrogateescape"), *escaped}):
        size = min(len(form), PART_CHARS)
        parts.update(form[start : start + size] for start in range(len(form) - size + 1))
        blocks.update(
            form[start : start + BLOCK_CHARS] for start in range(0, len(form) - BLOCK_CHARS + 1, BLOCK_CHARS)
        )
    with _Known.lock:
        _Known.parts |= parts
        _Known.blocks |= blocks


def forget() -> None:
    """Begin anew: each call of the program knows its own secrets only."""
    with _Known.lock:
        _Known.parts = _Known.blocks = frozenset()


def remember_key(key: str) -> None:
    """As `remember`, for an admin or deploy key, `name|secret`: its name stands in addresses, too."""
    remember(key.rpartition("|")[2])


def remember_environment(environ: Mapping[str, str]) -> None:
    """Remember the secrets of others that our environment holds: Convex's keys, the passwords of proxies."""
    for name, value in environ.items():
        if name in KEY_VARIABLES:
            remember_key(value)
        elif name.lower().endswith(PROXY_SUFFIX) and "@" in value:
            _remember_proxy(value)


def _remember_proxy(address: str) -> None:
    user, _, password = address.rpartition("@")[0].rpartition("://")[2].partition(":")
    for form in (password, unquote(password)):
        remember(form)
    # how a proxy is told, and may answer
    remember(base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode())


def scrubbed(text: str) -> str:
    """`text` without any part of a remembered secret; where there was one stands `•••`."""
    lowered = _lowered(text) if _Known.blocks else ""
    if not any(block in lowered for block in _Known.blocks):
        return text
    found = [part for part in _Known.parts if part in lowered]
    if not found:
        return text
    covered = bytearray(len(text))  # not a list of places: a hostile answer may be a secret a million times
    for part in found:
        start = lowered.find(part)
        while start >= 0:
            covered[start : start + len(part)] = b"\1" * len(part)
            start = lowered.find(part, start + 1)
    out: list[str] = []
    end = 0
    for run in re.finditer(b"\1+", covered):
        out += [text[end : run.start()], HIDDEN]
        end = run.end()
    return "".join([*out, text[end:]])


def _lowered(text: str) -> str:
    # The one letter whose small form is two: places in the text would shift
    return text.replace("İ", "i").lower()
