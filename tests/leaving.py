"""A team with an app, which came and may leave: for the tests of `heartbeat uninstall`."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends import Backend
from conftest import BACKEND, HEARTBEAT, NODE, REPOSITORY, Cli, Inside, wait_for
from deployment import Deployment, PlainError, Refusal
from heartbeat_cli import adopt_app, tokens
from heartbeat_cli.client import Connection
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import Refused

FIXTURE = REPOSITORY / "tests" / "adopted"
CRONTAB = "# mine\nMAILTO=me\n*/5 * * * *  /opt/hint --fast\n15 8 * * * /opt/other\n"
SCHEDULE = """| agent | schedule    | command          |
|-------|-------------|------------------|
| hint  | `*/5 * * * *` | /opt/hint --fast |
| torv  | every 6h    |                  |
| ghost | every 6h    |                  |
"""
NO_CALL_OF_ITS_OWN = {"heartbeatReconcile", "heartbeatTokens", "heartbeatMonitor"}  # with stop; with the last
CALLED = ("queries/getToken", "queries/listTokens", "mutations/leave")


@dataclass(frozen=True)
class Bundles:
    """The functions of the app, before it takes ours in and after."""

    before: Path
    adopted: Path


@dataclass
class Team:
    """An app with ours in its folder and in its deployment, and a host of it whose jobs are wrapped."""

    inside: Inside
    folder: Path
    backend: Backend
    bundles: Bundles
    clock: Path
    documents: dict[str, list[str]]
    files: dict[str, tuple[int, bytes]]

    @property
    def cli(self) -> Cli:
        return self.inside.cli

    @property
    def crontab(self) -> str:
        return (self.cli.folder / "crontab-of-this-home").read_text()

    def tables(self) -> dict[str, list[str]]:
        """Every document, by table; tables without any are left out."""
        return documents(self.backend.database)

    def assert_as_before(self, *, emptied: bool = True) -> None:
        tables = self.tables()
        assert {name: tables[name] for name in self.documents} == self.documents
        if emptied:
            assert tables.keys() == self.documents.keys()
        assert contents(self.folder) == self.files
        assert self.crontab == CRONTAB

    def starts_with(self, bundle: Path) -> bool:
        """Whether the deployment takes these functions, and the schema of them, over its data."""
        self.backend.stop()
        other = Backend(self.backend.folder, bundle, self.clock)
        other.spawn()
        ready = other.wait_until_ready()
        other.kill()
        self.backend.start(int(self.backend.url.rpartition(":")[2]))
        return ready


def documents(database: Path) -> dict[str, list[str]]:
    """Every document as it is stored, by table; tables without any, and Convex's own, are left out."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        names = connection.execute("SELECT number, name FROM tables WHERE name NOT LIKE '\\_%' ESCAPE '\\'")
        found = {
            name: sorted(doc for (doc,) in connection.execute(f"SELECT doc FROM d{number}"))  # noqa: S608
            for number, name in names.fetchall()
        }
    return {name: documents for name, documents in found.items() if documents}


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        file.relative_to(folder).as_posix(): (
            file.stat().st_mode,
            b"" if file.is_dir() else file.read_bytes(),
        )
        for file in folder.rglob("*")
        if "node_modules" not in file.parts
    }


def copied(folder: Path) -> Path:
    shutil.copytree(FIXTURE / "app", folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(REPOSITORY / "node_modules")
    return folder


def bundled(app: Path, file: Path) -> Path:
    subprocess.run([NODE, str(BACKEND / "bundle.ts"), str(app / "convex"), str(file)], check=True)
    return file


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    from heartbeat_cli import adopt, adopt_sources  # noqa: PLC0415 - for this fixture only

    folder = tmp_path_factory.mktemp("app")
    app = copied(folder / "app")
    before = bundled(app, folder / "before.mjs")
    adopt.add(adopt_app.find(app), adopt_sources.ours(), write_lines=True).carry_out()
    shutil.copy(FIXTURE / "fleet.ts", app / "convex" / "fleet.ts")
    return Bundles(before, bundled(app, folder / "adopted.mjs"))


@pytest.fixture
def team(inside: Inside, bundles: Bundles) -> Iterator[Team]:
    cli = inside.cli
    app, clock = copied(cli.folder / "app"), cli.folder / "clock"
    files = contents(app)
    clock.write_text(str(time.time_ns() // 1_000_000))
    first = Backend(cli.folder / "backend", bundles.before, clock)
    url = first.start()
    first.admin("seed", {"at": int(clock.read_text())})
    first.stop()
    backend = Backend(cli.folder / "backend", bundles.adopted, clock)
    try:
        backend.start(int(url.rpartition(":")[2]))
        team = Team(inside, app, backend, bundles, clock, {}, files)
        team.documents |= team.tables()
        assert sum(map(len, team.documents.values())) == 200
        tokens.ensure_local_token(cli.config_dir, url, lambda _: False, backend.admin)
        tokens.save(cli.config_dir, "https://other.example", "another", "send")
        cli.env |= {"HEARTBEAT_URL": url, "HEARTBEAT_DEADLINE": "30"}
        cli.write_schedule(SCHEDULE)
        (cli.folder / "crontab-of-this-home").write_text(CRONTAB)
        yield team
    finally:
        backend.kill()


def come(team: Team) -> None:
    """Adopt, apply, report."""
    here = team.inside
    assert here("functions", "add", str(team.folder), "--write", "--yes").code == 0
    shutil.copy(FIXTURE / "fleet.ts", team.folder / "convex" / "fleet.ts")
    assert here("apply", "--yes").code == 0
    assert "heartbeat" in team.crontab
    made = here("token", "create", "box2", "--agents", "hint").out.split()
    assert made
    assert here("send", "hint", "--summary", "fine").code == 0
    assert here("send", "ghost").code == 0
    wait_for(lambda: any("wholeAt" in row for row in team.tables().get("heartbeatReconcile", ())))


class Gate:
    """Stands in front of a deployment. Takes so many calls, then says nothing any more; the last of them it
    passes on or not.
    """

    def __init__(self, team: Team) -> None:
        kept = tokens.stored(team.cli.config_dir, team.backend.url, [])
        assert kept is not None
        self._team, self._token = team, kept.text
        self.left = float("inf")
        self.before: dict[str, Callable[[], Any]] = {}  # what happens first, once, where a function is called
        self.gone: Callable[[], bool] = lambda: False  # our functions
        self.passes = True
        self.stuck = False

    def __call__(self, path: str, args: Mapping[str, Any]) -> Any:
        self.left -= 1
        self.before.pop(path, lambda: None)()
        if self.gone():
            raise PlainError(f"Could not find public function for '{path}'.")
        answer = self._asked(path, args["request"]) if self.left >= 0 or self.passes else {}
        if self.left < 0:
            self.stuck = True
            time.sleep(60)  # who asks has been killed long before
        return answer

    def _asked(self, path: str, request: Mapping[str, Any]) -> Any:
        try:
            deadline = Deadline(60)
            with Connection(
                self._team.backend.url, self._token, deadline=deadline, transport="http"
            ) as there:
                call = there.mutation if path.startswith("mutations") else there.query
                return call(path, "request", request)
        except Refused as refused:
            raise Refusal(refused.data) from None

    @contextlib.contextmanager
    def listens(self) -> Iterator[str]:
        """The team's host, cron's jobs included, reports through it. Yields the address."""
        cli, before = self._team.cli, self._team.backend.url
        functions = {path: lambda args, path=path: self(path, args) for path in CALLED}
        with Deployment(functions) as deployment:
            cli.env["HEARTBEAT_URL"] = deployment.url
            crontab = self._team.crontab.replace(before, deployment.url)
            (cli.folder / "crontab-of-this-home").write_text(crontab)
            tokens.save(cli.config_dir, deployment.url, self._token, "admin")
            yield deployment.url


def begun(cli: Cli, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [HEARTBEAT, *words], cwd=cli.home, env=cli.environment(), stdout=pipe, stderr=pipe, text=True
    )


def killed_where(gate: Gate, process: subprocess.Popen[str]) -> None:
    """Kill it once it stands before the gate."""
    wait_for(lambda: gate.stuck or process.poll() is not None)
    assert gate.stuck, process.communicate()
    process.kill()
    process.communicate()
