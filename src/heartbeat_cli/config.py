"""Settings: flag > environment > file > default, in one frozen `Settings`. The only reader of our variables.

Where a value comes from stands beside it (`Settings.sources`), because "which deployment, and why that one?"
is the first question when a heartbeat does not arrive. Files:

    <config dir>/config.toml    settings, by hand
    <config dir>/tokens.toml    one token per address; read and written by tokens.py alone
    <home>/cron-schedule.md     the agents' schedule
    <home>/.env.local           an address that `convex dev` wrote there
    <home>/logs/                the log
    <data dir>/                 the local backend; the home of last resort

config dir: $XDG_CONFIG_HOME/convex-heartbeat, else ~/.config/convex-heartbeat; data dir: likewise, with
$XDG_DATA_HOME and ~/.local/share.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from heartbeat_cli.address import normalise_url
from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.local_address import local_url

APP_DIR = "convex-heartbeat"
SCHEDULE_FILE = "cron-schedule.md"
CONFIG_KEYS = ("url", "deadline", "transport", "log", "host")
TRANSPORTS = ("auto", "ws", "http")
LOCAL_WORD = "local"  # as an address: this user's local backend, whatever else is set

# The names under which `convex dev` writes the address, in the order in which we look (its plain form first).
ENV_LOCAL_NAMES = (
    "CONVEX_URL",
    "PUBLIC_CONVEX_URL",
    "NEXT_PUBLIC_CONVEX_URL",
    "VITE_CONVEX_URL",
    "REACT_APP_CONVEX_URL",
    "EXPO_PUBLIC_CONVEX_URL",
)

DEADLINE_DEFAULT_S = 10.0  # long enough for a cold cloud deployment, short enough for a job each minute
DEADLINE_LEAST_S = 1.0  # below it a TLS handshake over a bad line already fails
DEADLINE_MOST_S = 600.0  # a cron job that waits longer overlaps its successors

Transport = Literal["auto", "ws", "http"]


@dataclass(frozen=True, slots=True)
class Flags:
    """What was typed, unjudged: each is the text after its flag, or None."""

    url: str | None = None
    home: str | None = None
    deadline: str | None = None
    transport: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, judged. `sources` names for each where its value came from.

    `url` is None when no address is known or the one given is wrong; `deployment()` then raises what is the
    matter, so that commands which need no deployment work without one. `token` never shows in a repr.
    """

    home: Path
    schedule_path: Path
    log_path: Path
    config_dir: Path
    data_dir: Path
    url: str | None
    url_problem: SettingsProblem | None
    is_local: bool
    token: str | None = field(repr=False)
    token_scope: str | None
    deadline_s: float
    transport: Transport
    host: str
    colour: bool
    columns: int | None
    sources: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def url_source(self) -> str:
        return self.sources["url"]

    @property
    def token_source(self) -> str:
        return self.sources["token"]

    def deployment(self) -> str:
        """The address to speak to. Raises `SettingsProblem` with what to set."""
        if self.url is None:
            raise self.url_problem or AssertionError("a missing address has a problem that says so")
        return self.url

    def shown_deployment(self) -> str | None:
        """The address as people are told it: the local backend is marked."""
        return f"{self.url} (local)" if self.url and self.is_local else self.url


def load(flags: Flags, environ: Mapping[str, str], cwd: Path) -> Settings:
    """Resolve every setting. `cwd` is only where the search for the home folder starts.

    Raises `SettingsProblem` for a value that cannot be used, naming the flag, variable or file and line it
    came from. An empty variable counts as not set.
    """
    env = {name: value for name, value in environ.items() if value.strip()}
    config_dir = _xdg(env, "XDG_CONFIG_HOME", ".config") / APP_DIR
    data_dir = _xdg(env, "XDG_DATA_HOME", ".local/share") / APP_DIR
    warnings: list[str] = []
    file = _ConfigFile(config_dir / "config.toml", warnings)
    sources: dict[str, str] = {}

    home, sources["home"] = _home(flags, env, cwd, data_dir)
    deadline, sources["deadline"] = _deadline(_pick("deadline", flags.deadline, env, file))
    transport, sources["transport"] = _transport(_pick("transport", flags.transport, env, file))
    log_text, sources["log"] = _pick("log", None, env, file) or ("logs/agent-heartbeat.log", "default")
    host, sources["host"] = _pick("host", None, env, file) or (socket.gethostname(), "default")

    url: str | None = None
    problem: SettingsProblem | None = None
    local = local_url(data_dir)
    try:
        candidates = (
            (flags.url, "--url"),
            (env.get("HEARTBEAT_URL"), "HEARTBEAT_URL"),
            (env.get("CONVEX_URL"), "CONVEX_URL"),
            file.get("url") or (None, ""),
            _env_local(home / ".env.local", warnings),
        )
        url, sources["url"] = _address(candidates, local, file.path)
    except SettingsProblem as raised:
        problem, sources["url"] = raised, "not usable"
    token, scope, sources["token"] = _token(env, config_dir, url, warnings)

    return Settings(
        home=home,
        schedule_path=home / SCHEDULE_FILE,
        log_path=home / Path(log_text).expanduser(),
        config_dir=config_dir,
        data_dir=data_dir,
        url=url,
        url_problem=problem,
        is_local=url is not None and url == local,
        token=token,
        token_scope=scope,
        deadline_s=deadline,
        transport=transport,
        host=host,
        colour="NO_COLOR" not in env and env.get("TERM") != "dumb",
        columns=int(env["COLUMNS"]) if env.get("COLUMNS", "").isdecimal() else None,
        sources=sources,
        warnings=tuple(warnings),
    )


class _ConfigFile:
    """config.toml, read once; an unknown key is a warning, since a newer version may have written it."""

    def __init__(self, path: Path, warnings: list[str]) -> None:
        self.path = path
        self.values: dict[str, Any] = read_toml(path)
        for key in self.values:
            if key not in CONFIG_KEYS:
                warnings.append(f"{path}: unknown setting '{key}' (known: {', '.join(CONFIG_KEYS)})")

    def get(self, key: str) -> tuple[str, str] | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise SettingsProblem(f"{self.path}: '{key}' must be a text or a number, not {value!r}")
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


def _xdg(env: Mapping[str, str], name: str, default: str) -> Path:
    given = env.get(name)
    if given and Path(given).is_absolute():  # the XDG specification: a relative one is to be ignored
        return Path(given)
    return (Path(env["HOME"]) if "HOME" in env else Path.home()) / default


def _pick(key: str, flag: str | None, env: Mapping[str, str], file: _ConfigFile) -> tuple[str, str] | None:
    if flag is not None:
        return flag, f"--{key}"
    variable = f"HEARTBEAT_{key.upper()}"
    if variable in env:
        return env[variable].strip(), variable
    return file.get(key)


def _deadline(given: tuple[str, str] | None) -> tuple[float, str]:
    if given is None:
        return DEADLINE_DEFAULT_S, "default"
    text, source = given
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not DEADLINE_LEAST_S <= seconds <= DEADLINE_MOST_S:
        raise SettingsProblem(
            f"the deadline {text!r} ({source}) is not a number of seconds"
            f" from {DEADLINE_LEAST_S:g} to {DEADLINE_MOST_S:g}"
        )
    return seconds, source


def _transport(given: tuple[str, str] | None) -> tuple[Transport, str]:
    if given is None:
        return "auto", "default"
    if given[0] not in TRANSPORTS:
        raise SettingsProblem(
            f"the transport {given[0]!r} ({given[1]}) is not one of {', '.join(TRANSPORTS)}"
        )
    return cast(Transport, given[0]), given[1]


def _home(flags: Flags, env: Mapping[str, str], cwd: Path, data_dir: Path) -> tuple[Path, str]:
    for given, source in ((flags.home, "--home"), (env.get("HEARTBEAT_HOME"), "HEARTBEAT_HOME")):
        if given:
            home = cwd / Path(given).expanduser()
            if not home.is_dir():
                raise SettingsProblem(f"the home folder {str(home)!r} ({source}) is not a folder")
            return home.resolve(), source
    for folder in (cwd, *cwd.parents):
        if (folder / SCHEDULE_FILE).is_file():
            return folder, f"nearest folder with {SCHEDULE_FILE}"
    return data_dir, "default"


def _address(
    candidates: Iterable[tuple[str | None, str]], local: str | None, config_file: Path
) -> tuple[str, str]:
    for given, source in candidates:
        if given is None:
            continue
        if given.strip() == LOCAL_WORD:
            if local is None:
                raise SettingsProblem(
                    f"there is no local backend yet ({source} asks for it)",
                    hint="start it: heartbeat local up",
                )
            return local, f"{source} (local backend)"
        try:
            return normalise_url(given), source
        except SettingsProblem as problem:
            raise SettingsProblem(f"{problem} ({source})", hint=problem.hint) from None
    if local is not None:
        return local, "local backend"
    raise SettingsProblem(
        "no deployment address is set",
        hint="give --url, set HEARTBEAT_URL or CONVEX_URL, write url into "
        f"{config_file}, or start a local backend: heartbeat local up",
    )


def _env_local(path: Path, warnings: list[str]) -> tuple[str | None, str]:
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


def _token(
    env: Mapping[str, str], config_dir: Path, url: str | None, warnings: list[str]
) -> tuple[str | None, str | None, str]:
    if "HEARTBEAT_TOKEN" in env:
        return env["HEARTBEAT_TOKEN"].strip(), None, "HEARTBEAT_TOKEN"
    from heartbeat_cli import tokens  # noqa: PLC0415 - tokens.py reads its file with read_toml from here

    stored = tokens.stored(config_dir, url, warnings) if url else None
    if stored is None:
        return None, None, "not set"
    return stored.text, stored.scope, str(tokens.path(config_dir))
