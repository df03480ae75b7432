"""config.toml as `connect` changes it: the addresses in it, and not one other byte.

It is the user's file. A line that names an address keeps what stands around the address, a comment behind it
too; all else stays as it is. Whether that came out right is not believed but read: the file as it is to be
says what it said, but for the addresses. Where it cannot be made to, nothing is written.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from heartbeat_cli import crontab_text, private_files
from heartbeat_cli.address import normalise_url
from heartbeat_cli.config_files import read_toml
from heartbeat_cli.errors import SettingsProblem

FILE = "config.toml"
ALONE_S = 5.0  # for another of ours that writes there: some milliseconds
ENCODING = ("utf-8", "surrogateescape")
# The key as it stands, then one text on one line: what most people, and this program, write
_TEXT = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_LINE = r"""(?m)^(?P<before>[ \t]*(?:{key}|"{key}"|'{key}')[ \t]*=[ \t]*)""" + _TEXT
_REST = r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)"


@dataclass(frozen=True, slots=True)
class Plan:
    """The file as it is (`was`, None where there is none) and as it is to be. `file` is no link."""

    file: Path
    was: bytes | None
    text: bytes

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return self.text != (self.was or b"")

    @property
    def diff(self) -> list[str]:
        """What changes, for people, under the name of the file."""
        return [f"{self.file}:", *crontab_text.diff(self.was or b"", self.text)] if self.changes else []

    def write(self, now_ms: int) -> Path | None:
        """Write it, if the file is still as it was shown; a crash leaves the old or the new. Returns where
        the old one is kept, None where there was none. Raises `SettingsProblem`.
        """
        folder = self.file.parent
        with private_files.writing(self.file):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with private_files.alone_in(folder, ALONE_S):
                if _read(self.file) != self.was:
                    raise SettingsProblem(
                        f"{self.file} was changed by somebody else meanwhile, so nothing was written",
                        hint="try again",
                    )
                kept = None if self.was is None else _keep(self.file, self.was, now_ms)
                mode = private_files.PRIVATE if self.was is None else self.file.stat().st_mode & 0o777
                private_files.replace(self.file, self.text, mode)
        return kept


def plan(config_dir: Path, url: str, site_url: str | None) -> Plan:
    """What is to be written so that the file names the deployment at `url`, and `site_url` for its HTTP
    actions. With None for that the file keeps what it says of them, if it is about this deployment.

    Raises `SettingsProblem` for a file that cannot be read, or not be changed with certainty.
    """
    file = (config_dir / FILE).resolve()
    was = _read(file)
    named = read_toml(file)
    text = (was or b"").decode(*ENCODING)
    wished: dict[str, str | None] = {} if _is(named.get("url"), url) else {"url": url, "site_url": None}
    if site_url is not None:
        wished["site_url"] = site_url
    for key, address in wished.items():
        if named.get(key) == address:
            continue
        wanted = {**named, key: address} if address is not None else _without(named, key)
        text = next((made for made in _ways(text, key, address) if _says(made, wanted)), "")
        if not _says(text, wanted):
            line = f"no {key}" if address is None else f"{key} = {json.dumps(address)}"
            raise SettingsProblem(
                f"{file} cannot be changed with certainty", hint=f"write into it yourself: {line}"
            )
        named = wanted
    return Plan(file, was, text.encode(*ENCODING))


def _is(named: object, url: str) -> bool:
    try:
        return isinstance(named, str) and normalise_url(named) == url
    except SettingsProblem:
        return False


def _ways(text: str, key: str, address: str | None) -> Iterator[str]:
    """The text with that address: where one stands, else at the end, else (the end is in a table) at the
    beginning.
    """
    line = re.compile(_LINE.format(key=key))
    if address is None:
        yield re.sub(line.pattern + _REST, "", text, count=1)
        return
    new = f"{key} = {json.dumps(address)}"
    if line.search(text):
        yield line.sub(lambda found: found["before"] + json.dumps(address), text, count=1)
    ending = "\r\n" if "\r\n" in text else "\n"
    open_line = ending if text and not text.endswith("\n") else ""
    yield f"{text}{open_line}{new}{ending}"
    yield f"{new}{ending}{text}"


def _says(text: str, wanted: Mapping[str, object]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _without(named: Mapping[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in named.items() if name != key}


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsProblem(f"{file} cannot be read: {error.strerror}") from None


def _keep(file: Path, text: bytes, now_ms: int) -> Path:
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    kept = file.with_name(f"{file.name}.before-{at:%Y%m%dT%H%M%S}.{now_ms % 1000:03}Z")
    private_files.replace(kept, text)
    return kept
