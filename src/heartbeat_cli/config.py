"""Settings: flag > environment > file > default, in one frozen `Settings`. Nobody else reads the environment.

Where a value comes from stands beside it (`Settings.sources`), because "which deployment, and why that one?"
is the first question when a heartbeat does not arrive. Files:

    <config dir>/config.toml    settings, by hand
    <config dir>/tokens.toml    one token per address; read and written by tokens.py alone
    <home>/cron-schedule.md     the agents' schedule
    <home>/.env.local           an address that `convex dev` wrote there
    <home>/logs/                the log
    <data dir>/                 the local backend; the home of last resort

    config dir    $XDG_CONFIG_HOME/convex-heartbeat, else ~/.config/convex-heartbeat
    data dir      $XDG_DATA_HOME/convex-heartbeat, else ~/.local/share/convex-heartbeat
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from heartbeat_cli import tokens
from heartbeat_cli.config_address import LOCAL_MARK, LOCAL_WORD, functions_address, site_address
from heartbeat_cli.config_files import ConfigFile, env_local
from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.local_address import local_site_url, local_url
from heartbeat_cli.proxies import proxy_applies
from heartbeat_cli.scrub import remember, remember_environment

APP_DIR = "convex-heartbeat"
SCHEDULE_FILE = "cron-schedule.md"
LOG_FILE = "logs/agent-heartbeat.log"
COLUMNS = re.compile(r"[1-9]\d{0,3}")  # a terminal of more is none
TRANSPORTS = ("auto", "ws", "http")

TOKEN_VARIABLE = "HEARTBEAT_TOKEN"  # noqa: S105 - a variable's name
# What a process that outlives this shell inherits of its environment: no NODE_OPTIONS, and no secret. Through
# XDG_RUNTIME_DIR systemctl finds the user's own systemd
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "XDG_RUNTIME_DIR", "NODE_COMPILE_CACHE")

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
    site_url: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, judged. `sources` names for each where its value came from.

    `url` is None when no address is known or the one given is wrong; `deployment()` then raises what is the
    matter, so that commands which need no deployment work without one; likewise `token`, which never shows in
    a repr, and `needed_token()`. `site_url`: where the HTTP actions of the deployment at `url` are, if known.
    `proxied`: the environment names a proxy for `url`. `inherited`: what a process that outlives this shell
    gets of its environment.
    """

    home: Path
    schedule_path: Path
    log_path: Path
    config_dir: Path
    data_dir: Path
    url: str | None
    url_problem: SettingsProblem | None
    site_url: str | None
    is_local: bool
    proxied: bool
    token: str | None = field(repr=False)
    token_problem: SettingsProblem | None
    token_scope: str | None
    deadline_s: float
    transport: Transport
    host: str
    colour: bool
    columns: int | None
    inherited: Mapping[str, str]
    sources: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def url_source(self) -> str:
        """Where the address came from, as people are told it; `not usable` if it did not."""
        return self.sources["url"]

    @property
    def token_source(self) -> str:
        """Where the token came from: a variable or a file; `not set` if it did not."""
        return self.sources["token"]

    def deployment(self) -> str:
        """The address to speak to. Raises `SettingsProblem` with what to set."""
        if self.url is None:
            raise self.url_problem or AssertionError("a missing address has a problem that says so")
        return self.url

    def spooled_as(self) -> str:
        """What the spool calls the deployment: its address, or `local`, as the local backend may get another
        port. Raises as `deployment`.
        """
        return LOCAL_WORD if self.is_local else self.deployment()

    def needed_token(self) -> str:
        """The token for the deployment. Raises `SettingsProblem` with how to get one."""
        if self.token is not None:
            return self.token
        if self.token_problem is not None:
            raise self.token_problem
        made = "heartbeat local up makes one" if self.is_local else f"heartbeat connect {self.url}"
        raise SettingsProblem(
            f"there is no access token for {self.deployment()}",
            hint=f"set {TOKEN_VARIABLE}, or keep one: {made}",
        )

    def variables(self) -> list[tuple[str, str]]:
        """The variables that give these settings to a shell with another environment; never the token.

        Only what came from a variable or a flag is in it: files and defaults are found there as well.
        """
        values = {
            "XDG_CONFIG_HOME": ("config dir", str(self.config_dir.parent)),
            "XDG_DATA_HOME": ("data dir", str(self.data_dir.parent)),
            "HEARTBEAT_URL": ("url", LOCAL_WORD if self.is_local else str(self.url)),
            "HEARTBEAT_DEADLINE": ("deadline", f"{self.deadline_s:g}"),
            "HEARTBEAT_TRANSPORT": ("transport", self.transport),
            "HEARTBEAT_LOG": ("log", str(self.log_path)),
            "HEARTBEAT_HOST": ("host", self.host),
        }
        return [(name, value) for name, (key, value) in values.items() if _of_shell(self.sources[key])]

    def shown_deployment(self) -> str | None:
        """The address as people are told it: the local backend is marked."""
        return f"{self.url} (local)" if self.url and self.is_local else self.url


def working_directory() -> Path:
    """Where we were started; the root if that is gone, or may not be known."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def data_dir(environ: Mapping[str, str]) -> Path:
    """Where this user's local backend and spool are; for whoever needs to know nothing else."""
    env = {name: value for name, value in environ.items() if value.strip()}
    return _xdg(env, "XDG_DATA_HOME", _user_home(env) / ".local/share")[0] / APP_DIR


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What a process that outlives this shell gets of its environment."""
    return {name: environ[name] for name in INHERITED if environ.get(name, "").strip()}


def load(flags: Flags, environ: Mapping[str, str], cwd: Path) -> Settings:
    """Resolve every setting. `cwd` is only where the search for the home folder starts.

    Raises `SettingsProblem` for a value that cannot be used, naming the flag, variable or file and line it
    came from. An empty variable counts as not set.
    """
    env = {name: value for name, value in environ.items() if value.strip()}
    remember(env.get(TOKEN_VARIABLE, ""))
    remember_environment(env)
    sources: dict[str, str] = {}
    user_home = _user_home(env)
    config_home, sources["config dir"] = _xdg(env, "XDG_CONFIG_HOME", user_home / ".config")
    data_home, sources["data dir"] = _xdg(env, "XDG_DATA_HOME", user_home / ".local/share")
    config_dir, data_dir = config_home / APP_DIR, data_home / APP_DIR
    warnings: list[str] = []
    file = ConfigFile(config_dir / "config.toml", warnings)

    home, sources["home"] = _home(flags, env, cwd, user_home) or (data_dir, "default")
    deadline, sources["deadline"] = _deadline(_pick("deadline", flags.deadline, env, file))
    transport, sources["transport"] = _transport(_pick("transport", flags.transport, env, file))
    log_path, sources["log"] = _log_path(_pick("log", None, env, file), home, user_home, warnings)
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
            env_local(home / ".env.local", warnings),
        )
        url, sources["url"] = functions_address(candidates, local, file.path)
    except SettingsProblem as raised:
        problem, sources["url"] = raised, "not usable"
    given = _pick("site_url", flags.site_url, env, file)
    site, sources["site_url"] = site_address(given, file, url, sources["url"], warnings)
    if site is None and url is not None and url == local:
        site, sources["site_url"] = local_site_url(data_dir), "local backend"
    token, scope, token_problem = None, None, None
    try:
        token, scope, sources["token"] = _token(env, config_dir, url, warnings)
    except SettingsProblem as raised:
        token_problem, sources["token"] = raised, "not usable"

    return Settings(
        home=home,
        schedule_path=home / SCHEDULE_FILE,
        log_path=log_path,
        config_dir=config_dir,
        data_dir=data_dir,
        url=url,
        url_problem=problem,
        site_url=site,
        is_local=url is not None and url == local,
        proxied=url is not None and proxy_applies(url, env),
        token=token,
        token_problem=token_problem,
        token_scope=scope,
        deadline_s=deadline,
        transport=transport,
        host=host,
        colour="NO_COLOR" not in env and env.get("TERM") != "dumb",
        columns=int(env["COLUMNS"]) if COLUMNS.fullmatch(env.get("COLUMNS", "")) else None,
        inherited=inherited(env),
        sources=sources,
        warnings=tuple(warnings),
    )


def _user_home(env: Mapping[str, str]) -> Path:
    """What `~` means: HOME, or where that is none (empty, not absolute) what the system says of the user."""
    given = Path(env.get("HOME", ""))
    if given.is_absolute():
        return given
    try:
        import pwd  # noqa: PLC0415 - not on Windows
    except ImportError:
        return Path.home()
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def _path(text: str, base: Path, user_home: Path) -> Path | None:
    """`text` as a path: from `base` if it is relative, `~` resolved. None for what can be no path."""
    if "\0" in text:
        return None
    first, _, rest = text.partition("/")
    try:
        return base / (user_home / rest if first == "~" else Path(text).expanduser())
    except RuntimeError:  # ~ and the name of nobody
        return None


def _log_path(
    given: tuple[str, str] | None, home: Path, user_home: Path, warnings: list[str]
) -> tuple[Path, str]:
    """Where the log is. One that cannot be is a warning: no problem of the log stops a heartbeat."""
    if given is not None:
        text, source = given
        path = _path(text, home, user_home)
        if path is not None:
            return path, source
        warnings.append(f"the log {text!r} ({source}) cannot be the path of a file; the default is used")
    return home / LOG_FILE, "default"


def _xdg(env: Mapping[str, str], name: str, usual: Path) -> tuple[Path, str]:
    given = Path(env.get(name, usual))
    if given == usual or not given.is_absolute():  # the XDG specification: a relative one is to be ignored
        return usual, "default"
    return given, name


def _of_shell(source: str) -> bool:
    """Whether what came from there is known to this shell alone: from a flag or a variable."""
    name = source.removesuffix(LOCAL_MARK)
    return name == "CONVEX_URL" or name.startswith(("--", "XDG_", "HEARTBEAT_"))


def _pick(key: str, flag: str | None, env: Mapping[str, str], file: ConfigFile) -> tuple[str, str] | None:
    if flag is not None:
        return flag, f"--{key.replace('_', '-')}"
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


def _home(flags: Flags, env: Mapping[str, str], cwd: Path, user_home: Path) -> tuple[Path, str] | None:
    for given, source in ((flags.home, "--home"), (env.get("HEARTBEAT_HOME"), "HEARTBEAT_HOME")):
        if given:
            home = _path(given, cwd, user_home)
            # os.path: it answers no where pathlib raises (folders that may not be searched, names too long)
            if home is None or not os.path.isdir(home):  # noqa: PTH112
                raise SettingsProblem(f"the home folder {str(home or given)!r} ({source}) is not a folder")
            return home.resolve(), source
    for folder in (cwd, *cwd.parents):
        if os.path.isfile(folder / SCHEDULE_FILE):  # noqa: PTH113 - as above
            return folder, f"nearest folder with {SCHEDULE_FILE}"
    return None


def _token(
    env: Mapping[str, str], config_dir: Path, url: str | None, warnings: list[str]
) -> tuple[str | None, str | None, str]:
    if TOKEN_VARIABLE in env:
        if not env[TOKEN_VARIABLE].isprintable():
            raise SettingsProblem(f"{TOKEN_VARIABLE} is no text that could be a token")
        return env[TOKEN_VARIABLE].strip(), None, TOKEN_VARIABLE
    stored = tokens.stored(config_dir, url, warnings) if url else None
    if stored is None:
        return None, None, "not set"
    remember(stored.text)
    return stored.text, stored.scope, str(tokens.path(config_dir))
