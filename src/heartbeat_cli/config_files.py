"""The files that settings come from: config.toml and our other TOML, and the `.env.local` of `convex dev`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.private_files import strangers

CONFIG_KEYS = ("url", "site_url", "deadline", "transport", "log", "host")

# The names under which `convex dev` writes the address, in the order in which we look (its plain form first).
ENV_LOCAL_NAMES = (
    "CONVEX_URL",
    "PUBLIC_CONVEX_URL",
    "NEXT_PUBLIC_CONVEX_URL",
    "VITE_CONVEX_URL",
    "REACT_APP_CONVEX_URL",
    "EXPO_PUBLIC_CONVEX_URL",
)


class ConfigFile:
    """config.toml, read once; an unknown key is a warning, since a newer version may have written it."""

    def __init__(self, path: Path, warnings: list[str]) -> None:
        self.path = path
        self.values: dict[str, Any] = read_toml(path)
        for key in self.values:
            if key not in CONFIG_KEYS:
                warnings.append(f"{path}: unknown setting '{key}' (known: {', '.join(CONFIG_KEYS)})")

    def get(self, key: str) -> tuple[str, str] | None:
        """The text of a setting and where it stands. Raises `SettingsProblem` for other kinds of values."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            # Not the value: somebody may have written a secret there
            raise SettingsProblem(f"{self.path}: '{key}' must be a text or a number")
        return str(value), str(self.path)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; empty when there is none. Raises `SettingsProblem` with file and line."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsProblem(f"{path} cannot be read: {error.strerror}") from None
    import tomllib  # noqa: PLC0415 - only hosts that have such a file pay for it

    try:
        return tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # A bad line of tokens.toml may be the secret: the reason is shown, the line never.
        reason, line = _toml_reason(error, text)
        raise SettingsProblem(
            f"{path}, line {line}: not TOML ({reason})", hint='write it as  name = "value"'
        ) from None


def _toml_reason(error: ValueError, text: bytes) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8", text[: error.start].count(b"\n") + 1
    found = re.fullmatch(r"(?s)(.*?) \(at line (\d+), column \d+\)", str(error))
    if found:
        # tomllib quotes the offending key for some mistakes; a key is no secret, but what follows it may be
        return found[1].split(":")[0], int(found[2])
    return "unexpected end", text.count(b"\n") + 1


def env_local(path: Path, warnings: list[str]) -> tuple[str | None, str]:
    """The address that `convex dev` wrote there, if any, and where it stands.

    A file that another user may have written is not obeyed: what stands there is where our token goes.
    """
    stranger = strangers(path)
    if stranger is not None:
        warnings.append(f"{stranger}; until then it is not read")
        return None, ""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, ""
    found = {
        name: value for name, value in map(_env_line, text.splitlines()) if value and name in ENV_LOCAL_NAMES
    }
    chosen = next((name for name in ENV_LOCAL_NAMES if name in found), None)
    if chosen is None:
        return None, ""
    if len(set(found.values())) > 1:
        warnings.append(f"{path} names several addresses ({', '.join(found)}); using {chosen}")
    return found[chosen], f"{chosen} in {path}"


def env_value(folder: Path, name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """What `npx convex`, run in that folder with that environment, takes a variable to be, and where it
    stands: the environment goes before .env.local, and that before .env.
    """
    if name in environ:
        return (environ[name], name) if environ[name] else None
    for file in (folder / ".env.local", folder / ".env"):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found = dict(map(_env_line, lines)).get(name)
        if found is not None:
            return (found, f"{name} in {file}") if found else None
    return None


def _env_line(line: str) -> tuple[str, str]:
    """`NAME=value` as dotenv files have it: optional `export`, quotes, a comment after a blank."""
    name, equals, value = line.strip().removeprefix("export ").partition("=")
    value = value.strip()
    if not equals or name.lstrip().startswith("#"):
        return "", ""
    if value[:1] in {'"', "'"}:
        value = value[1:].partition(value[0])[0]
    else:
        value = re.split(r"\s#", value, maxsplit=1)[0].strip()
    return name.strip(), value
