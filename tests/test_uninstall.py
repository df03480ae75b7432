"""`heartbeat uninstall`: a team leaves, and everything is as it was before it came."""

from __future__ import annotations

import contextlib
import json
import random
import shlex
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
from conftest import BACKEND, HEARTBEAT, NODE, REPOSITORY, Cli, Inside, Live, Local, wait_for
from deployment import Deployment, PlainError, Refusal
from heartbeat_cli import adopt_app, tokens
from heartbeat_cli.client import Connection
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import FunctionsProblem, Refused
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Trouble
from hostile import HOSTILE, harmless
from peers import free_port
from terminal import on_a_terminal

FIXTURE = REPOSITORY / "tests" / "adopted"
THEIRS = ("agents", "tasks", "digests")
CRONTAB = "# mine\nMAILTO=me\n*/5 * * * *  /opt/hint --fast\n15 8 * * * /opt/other\n"
SCHEDULE = """| agent | schedule    | command          |
|-------|-------------|------------------|
| hint  | `*/5 * * * *` | /opt/hint --fast |
| torv  | every 6h    |                  |
| ghost | every 6h    |                  |
"""
NO_CALL_OF_ITS_OWN = {"heartbeatReconcile", "heartbeatTokens", "heartbeatMonitor"}  # with stop; with the last
CALLED = ("queries/getToken", "queries/listTokens", "mutations/leave", "mutations/revokeToken")


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


def test_a_team_that_leaves_finds_documents_folder_and_crontab_as_they_were(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    shown = [json.loads(row) for row in team.tables()["agents"]]
    assert sum("heartbeat" in row for row in shown) == 2
    assert not team.starts_with(team.bundles.before), "a card is there, and no field for it"
    now = (team.tables(), contents(team.folder), team.crontab)

    # wherever it is typed
    elsewhere = here("uninstall", "--dry-run", "--home", str(cli.folder))
    assert "jobs run unwrapped" in elsewhere.out
    leave = ("uninstall", str(team.folder), "--empty")
    planned = here(*leave, "--dry-run")
    order = [
        *("jobs run unwrapped", "at http", "tokens that are revoked: 1 (box2)", "agents.heartbeat is unset"),
        *("our tables are emptied", "our own token ends", "files leave", "then, yours to do: npx convex"),
    ]
    places = [planned.out.index(words) for words in order]
    assert planned.code == 0 and places == sorted(places), planned.out
    assert "  - import { heartbeatField, heartbeatTables }" in planned.out
    unasked = here(*leave)
    assert unasked.code == 2 and "nobody can be asked here" in unasked.err
    assert unasked.out == planned.out.replace("nothing was changed (dry run)\n", "")
    declined = on_a_terminal(cli, *leave, typed="n\n", env={}, columns=500)
    assert declined.count("[y/N]") == 1 and "not confirmed" in declined
    assert (team.tables(), contents(team.folder), team.crontab) == now

    done = here(*leave, "--yes", "--json")
    assert done.code == 0, done
    assert done.data["outcome"] == "left" and done.data["deployment"]["changed"]["cards"] == 2
    assert done.data["left"] == ["push it: npx convex deploy"]
    team.assert_as_before()
    assert team.starts_with(team.bundles.before)
    team.backend.admin("heartbeat/maintenance:sweep", {})
    team.assert_as_before()
    # of this user's files the entry of that deployment went, and nothing else
    assert tokens.stored(cli.config_dir, team.backend.url, []) is None
    assert tokens.stored(cli.config_dir, "https://other.example", []) == tokens.Token("another", "send")
    assert cli.write_schedule(SCHEDULE).exists() and (cli.home / "logs" / "agent-heartbeat.log").exists()
    kept = Path(done.data["app"]["keptIn"])
    assert (kept / "fleet.ts").read_bytes() == (FIXTURE / "fleet.ts").read_bytes()

    again = here("uninstall", str(team.folder), "--yes", "--json")
    assert (again.code, again.data["outcome"]) == (0, "unchanged")
    assert "nothing of ours is left to take away" in here(*leave, "--dry-run").out
    emptied = here(*leave, "--yes")
    assert emptied.code == 0 and "our tables there were emptied " in emptied.out, emptied


def test_what_is_in_our_tables_stays_where_nobody_asked_for_it_to_go(team: Team) -> None:
    here = team.inside
    come(team)
    # what waits, and is put off, is delivered before the token ends
    team.backend.stop()
    assert "is spooled" in here("send", "torv", env={"HEARTBEAT_DEADLINE": "3"}).err
    an_hour, now = Trouble("slow_down", "later", least_ms=3_600_000), time.time_ns() // 1_000_000
    Spool(team.cli.data_dir).put_off({"deployment": team.backend.url}, an_hour, now)
    team.backend.start(int(team.backend.url.rpartition(":")[2]))
    planned = here("uninstall", str(team.folder), "--dry-run").out
    assert "2. 1 heartbeat in the spool: delivered; what is refused stays in" in planned
    assert "our tables keep what is in them; --empty deletes it" in planned
    done = here("uninstall", str(team.folder), "--yes")
    assert done.code == 0 and "delivered 1 heartbeat from the spool" in done.out
    team.assert_as_before(emptied=False)
    assert team.starts_with(team.bundles.before)
    assert len(team.tables()["agentHeartbeats"]) == 3
    assert all("revokedAt" in row for row in team.tables()["heartbeatTokens"])
    # it is told what it takes to have them emptied after all
    late = here("uninstall", "--empty", "--yes")
    assert late.code == 1 and f"heartbeat connect {team.backend.url}" in late.out


class Gate:
    """Stands in front of a deployment. Takes so many calls, then says nothing any more; the last of them it
    passes on or not.
    """

    def __init__(self, team: Team, token: str) -> None:
        self._team, self._token = team, token
        self.left: float = 0
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
        functions = {path: lambda args, path=path: self(path, args) for path in CALLED}
        with Deployment(functions) as deployment:
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


@pytest.mark.parametrize("empty", [True, pytest.param(False, marks=pytest.mark.long)])
def test_killed_at_any_call_and_typed_again_it_leaves_nothing_undone(team: Team, empty: bool) -> None:
    here, cli = team.inside, team.cli
    come(team)
    kept = tokens.stored(cli.config_dir, team.backend.url, [])
    assert kept is not None
    gate = Gate(team, kept.text)
    leave = ("uninstall", str(team.folder), "--yes", *(("--empty",) if empty else ()))
    # the calls of a run: two that look, one a step
    filled = team.tables().keys() - team.documents.keys() - NO_CALL_OF_ITS_OWN
    last = 5 + (len(filled) + 1 if empty else 0)
    with gate.listens() as url:
        cli.env["HEARTBEAT_URL"] = url
        (cli.folder / "crontab-of-this-home").write_text(team.crontab.replace(team.backend.url, url))
        tokens.save(cli.config_dir, url, kept.text, "admin")
        for call, passes in ((3, True), (4, False), (last, True)):
            gate.left, gate.passes, gate.stuck = call, passes, False
            killed_where(gate, begun(cli, *leave))
        # the last answer was never heard: the token is not accepted, and nothing else is left to be done
        gate.left, gate.stuck = float("inf"), False
        team.assert_as_before(emptied=empty)
        done = here("uninstall", str(team.folder), "--yes", "--json")
    assert done.code == 0 and done.data["deployment"]["outcome"] == "refused", done
    assert tokens.stored(cli.config_dir, url, []) is None


@pytest.mark.long
def test_killed_at_whatever_instant_and_typed_again_everything_is_as_it_was(team: Team) -> None:
    chance, kills = random.Random(7), 0  # noqa: S311 - which plan, not a secret
    for _ in range(10):
        come(team)
        while True:
            process = begun(team.cli, "uninstall", str(team.folder), "--empty", "--yes")
            try:
                code = process.wait(timeout=chance.uniform(0.2, 1.0) * (1 + kills / 50))
                assert code == 0, process.communicate()
                break
            except subprocess.TimeoutExpired:
                kills += 1
                process.kill()
            process.communicate()
        team.assert_as_before()
        assert tokens.stored(team.cli.config_dir, team.backend.url, []) is None
        tokens.ensure_local_token(team.cli.config_dir, team.backend.url, lambda _: False, team.backend.admin)
    assert kills >= 3  # of some seven


# --- where not all of it can be done


def test_what_is_stopped_is_told_by_everybody_and_applying_starts_it_again(live: Live) -> None:
    here = live.inside
    here("apply", "--yes")
    kept = tokens.stored(here.cli.config_dir, live.url, [])
    assert kept is not None
    live.admin("mutations/leave", {"token": kept.text, "request": {"step": "stop"}})
    live.move_clock(60_000)
    live.admin("heartbeat/maintenance:sweep", {})
    shown = here("dashboard").out
    assert "the sweep was stopped" in shown and "heartbeat apply starts it again" in shown
    board = here("dashboard", "--json").data["monitor"]
    planned = here("apply", "--dry-run")
    assert "! the sweep there was stopped" in planned.out and "nothing was written (dry run)" in planned.out
    assert "stoppedAt" in here("dashboard", "--json").data["monitor"]
    applied = here("apply", "--yes", "--json").data
    assert applied["outcome"] == "applied" and applied["stoppedAt"] == board["stoppedAt"]
    live.admin("heartbeat/maintenance:sweep", {})
    after = here("dashboard", "--json").data
    assert "stoppedAt" not in after["monitor"] and all(row["linked"] for row in after["agents"])
    assert here("apply").out.endswith("nothing to change\n")


def test_a_deployment_that_is_away_is_left_for_later_and_this_hosts_half_is_done(away: Inside) -> None:
    cli = away.cli
    app = copied(cli.folder / "app")
    away("functions", "add", str(app), "--write", "--yes")
    adopted = contents(app)
    (cli.folder / "crontab-of-this-home").write_text(CRONTAB)
    cli.write_schedule(SCHEDULE)
    assert away("cron", "install", "--yes").code == 0
    assert "is spooled" in away("send", "hint").err
    done = away("uninstall", str(app), "--yes")
    assert done.code == 75
    assert (cli.folder / "crontab-of-this-home").read_text() == CRONTAB
    spool = cli.data_dir / "spool" / "spool.db"
    assert f"kept in {spool}: 1 heartbeat for this deployment" in done.out
    assert "connection refused" in done.out.lower() and "type the same again" in done.out
    assert "keeps our functions" in done.out and contents(app) == adopted
    assert away("spool", "list", "--json").data["waiting"] == 1
    assert tokens.stored(cli.config_dir, cli.env["HEARTBEAT_URL"], []) is not None
    again = away("uninstall", str(app), "--yes", "--json")
    assert (again.code, again.data["outcome"]) == (75, "partly")


def test_a_token_that_may_only_send_leaves_with_its_host_and_says_what_the_rest_takes(host: Inside) -> None:
    cli = host.cli
    url = cli.env["HEARTBEAT_URL"]
    (cli.folder / "crontab-of-this-home").write_text(CRONTAB)
    cli.write_schedule(SCHEDULE)
    assert host("cron", "install", "--yes").code == 0
    before = host("dashboard", "--json").data["monitor"]
    admin = tokens.stored(cli.config_dir, url, [])
    made = host("token", "create", "box2").out.strip()
    host("token", "save", stdin=made)
    # what is more than this host's cannot be done
    refused = host("uninstall", "--empty", "--dry-run")
    assert "ending them takes an admin token, and ours may only send" in refused.out
    done = host("uninstall", "--yes")
    assert done.code == 0 and f"heartbeat token revoke {tokens.fingerprint(made)}" in done.out
    assert (cli.folder / "crontab-of-this-home").read_text() == CRONTAB
    assert tokens.stored(cli.config_dir, url, []) is None
    again = host("uninstall", "--yes")
    assert again.code == 0 and "that takes an admin token, and none is kept here" in again.out
    assert host("uninstall", "--yes", "--empty").code == 1
    assert admin is not None
    tokens.save(cli.config_dir, url, admin.text, "admin")
    assert "stoppedAt" not in before | host("dashboard", "--json").data["monitor"]


def test_a_token_that_has_ended_is_forgotten_and_what_still_waits_keeps_a_good_one(host: Inside) -> None:
    """The admin's host left first; or the other way round, and this one could not deliver all it had."""
    cli = host.cli
    url = cli.env["HEARTBEAT_URL"]
    made = [host("token", "create", name).out.strip() for name in ("box2", "box3")]
    host("token", "revoke", tokens.fingerprint(made[0]))
    tokens.save(cli.config_dir, url, made[0], "send")
    assert "is spooled" in host("send", "hint").err
    planned = host("uninstall", "--dry-run").out
    assert "it was revoked, or the deployment has been left" in planned and "kept in" in planned
    done = host("uninstall", "--yes")
    assert done.code == 0 and "it was revoked, or the deployment has been left" in done.out
    assert tokens.stored(cli.config_dir, url, []) is None
    # as long as another process is at it, what waits is not delivered yet
    tokens.save(cli.config_dir, url, made[1], "send")
    other = Spool(cli.data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heartbeat_cli.connect.TURN_WAITS_S", 0.1)
        assert other.alone()
        later = host("uninstall", "--yes", "--json")
        other.done()
    assert later.code == 75 and later.data["deployment"] == {"outcome": "later", "undelivered": 1}
    assert tokens.stored(cli.config_dir, url, []) == tokens.Token(made[1], "send")
    done = host("uninstall", "--yes")
    # set aside: nobody there knows of hint
    assert done.code == 0 and "1 heartbeat not delivered: kept in" in done.out
    assert tokens.stored(cli.config_dir, url, []) is None


def test_the_local_backend_alone_is_stopped_with_what_starts_it_and_keeps_its_data(
    local: Local, inside: Inside
) -> None:
    cli = local.cli
    (cli.folder / "crontab-of-this-home").write_text(CRONTAB)
    cli.write_schedule(SCHEDULE)
    url = local.up()["url"]
    assert inside("apply", "--yes").code == 0
    assert inside("local", "install", "--with", "cron", "--yes").code == 0
    assert inside("send", "hint").code == 0
    planned = inside("uninstall", "--dry-run").out
    assert (
        "the local backend is stopped; its data stays in" in planned and "cron starts it no more" in planned
    )
    assert "revoked" not in planned and local.instance.alive()
    done = inside("uninstall", "--yes")
    assert done.code == 0 and str(local.folder) in done.out, done
    assert not local.instance.alive() and (cli.folder / "crontab-of-this-home").read_text() == CRONTAB
    assert tokens.stored(cli.config_dir, url, []) is None and not tokens.path(cli.config_dir).exists()
    assert inside("uninstall", "--yes", "--json").data["outcome"] == "unchanged"
    # nothing was lost by it
    local.up()
    assert len(inside("dashboard", "--json").data["agents"]) == 3
    assert inside("agents", "show", "hint", "--json").data["heartbeats"]


def test_a_local_backend_that_has_an_apps_functions_is_left_first_and_then_stopped(
    inside: Inside, bundles: Bundles
) -> None:
    cli = inside.cli
    app, local = copied(cli.folder / "app"), Local(cli, bundles.adopted)
    files = contents(app)
    try:
        local.up()
        cli.write_schedule(SCHEDULE)
        assert inside("functions", "add", str(app), "--write", "--yes").code == 0
        assert inside("apply", "--yes").code == 0 and inside("send", "hint").code == 0
        done = inside("uninstall", str(app), "--empty", "--yes", "--json")
        assert done.code == 0 and done.data["deployment"]["outcome"] == "left", done
        assert done.data["local"]["outcome"] == "stopped" and not local.instance.alive()
        assert documents(local.folder / "db" / "data.sqlite3") == {} and contents(app) == files
        assert not (cli.folder / "crontab-of-this-home").exists()
    finally:
        local.clear()


def test_without_any_deployment_there_is_nothing_to_leave(inside: Inside) -> None:
    nothing = inside("uninstall", "--dry-run").out
    assert "there is no deployment to leave: no deployment address is set" in nothing
    assert "nothing of ours is left to take away" in nothing
    assert inside("uninstall", "--yes", "--url", "local").code == 2
    (inside.cli.folder / "crontab-refuses").touch()
    refused = inside("uninstall", "--yes")
    assert refused.code == 1 and "the crontab is left as it is: crontab refuses" in refused.out
    needed = inside("uninstall", "--empty", "--yes")
    assert needed.code == 2 and "no deployment address is set" in needed.err
    missing = inside("uninstall", "nowhere", "--yes")
    assert missing.code == 2 and "there is no folder nowhere" in missing.err


def test_a_deployment_that_never_gets_on_is_given_up(inside: Inside) -> None:
    answers = {
        "queries/getToken": lambda _: {"scope": "admin"},
        "queries/listTokens": lambda _: {"tokens": []},
        "mutations/leave": lambda _: {"done": False, "changed": 0},
    }
    with Deployment(answers) as deployment:
        inside.cli.env |= {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token"}
        done = inside("uninstall", "--yes")
    assert done.code == 75 and "does not get on with stop" in done.out
    # one whose functions are older than this program
    del answers["mutations/leave"]
    with Deployment(answers) as deployment:
        inside.cli.env["HEARTBEAT_URL"] = deployment.url
        done = inside("uninstall", "--yes")
    assert done.code == 1 and f"{deployment.url} has no function mutations/leave" in done.out
    assert "heartbeat functions update" in done.out and "make deploy" not in done.out


def test_the_names_of_tokens_that_end_are_shown_as_text(inside: Inside) -> None:
    listed = {"fingerprint": "0" * 12, "name": HOSTILE, "scope": "send", "createdAt": 1.0}
    answers = {
        "queries/getToken": lambda _: {"scope": "admin"},
        "queries/listTokens": lambda _: {"tokens": [listed] * 9},
    }
    with Deployment(answers) as deployment:
        inside.cli.env |= {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token"}
        done = inside("uninstall", "--dry-run")
    assert done.code == 0 and "tokens that are revoked: 9 (" in done.out and harmless(done.out)


def test_a_token_is_taken_out_alone_and_the_last_one_with_the_file(tmp_path: Path) -> None:
    url, other = f"http://127.0.0.1:{free_port()}", "https://other.example"
    for address in (url, other):
        file = tokens.save(tmp_path, address, f"token of {address}", "send")
    assert tokens.drop(tmp_path, url) and not tokens.drop(tmp_path, url)
    assert tokens.stored(tmp_path, other, []) == tokens.Token(f"token of {other}", "send")
    assert file.stat().st_mode & 0o777 == 0o600
    assert tokens.drop(tmp_path, other) and not file.exists()


# --- somebody came back, left before us, or reports elsewhere


def test_that_a_deployment_was_left_is_not_believed_once_the_token_is_gone(team: Team) -> None:
    """Somebody may have come back since, and our files be in use there again."""
    here, cli = team.inside, team.cli
    come(team)
    assert here("uninstall", "--yes").code == 0
    assert contents(team.folder) != team.files
    # another host comes back
    tokens.ensure_local_token(cli.folder / "h2", team.backend.url, lambda _: False, team.backend.admin)
    kept = contents(team.folder)
    late = here("uninstall", str(team.folder), "--yes")
    assert late.code == 1 and "an admin token, and none is kept here" in late.out
    assert f"if nothing is to be: heartbeat functions remove --changed {team.folder}" in late.out
    assert contents(team.folder) == kept


def test_what_cannot_be_done_to_the_app_is_told_before_anything_is_and_ends_no_token(team: Team) -> None:
    here = team.inside
    come(team)
    schema, wrapped = team.folder / "convex" / "schema.ts", team.crontab
    with pytest.MonkeyPatch.context() as patch:  # root may write everywhere
        patch.setattr("os.access", lambda path, _: Path(path) != schema)
        refused = here("uninstall", str(team.folder), "--yes")
    assert refused.code == 1 and f"{schema} cannot be written, so nothing was" in refused.err
    assert team.crontab == wrapped and "stoppedAt" not in here("dashboard", "--json").data["monitor"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heartbeat_cli.adopt.Plan.carry_out", no_space)
        stuck = here("uninstall", str(team.folder), "--empty", "--yes", "--json")
    assert (stuck.code, stuck.data["outcome"]) == (1, "partly"), stuck
    assert stuck.data["deployment"]["outcome"] == "left" and "no space is left" in stuck.data["left"]
    # meanwhile another host comes back: what it has there goes too, as the plan shows
    other = here("token", "create", "h2", "--scope", "admin").out.strip()
    assert here("apply", "--agents-only", "--yes", env={"HEARTBEAT_TOKEN": other}).code == 0
    assert here("send", "hint", env={"HEARTBEAT_TOKEN": other}).code == 0
    assert "tokens that are revoked: 1 (h2)" in here("uninstall", str(team.folder), "--dry-run").out
    assert here("uninstall", str(team.folder), "--empty", "--yes").code == 0
    team.assert_as_before()


def no_space(_: object) -> None:
    raise FunctionsProblem("no space is left")


def test_with_another_address_than_this_host_reports_to_only_that_one_is_left(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    wrapped, prod = team.crontab, cli.env.pop("HEARTBEAT_URL")
    with Deployment({}) as dev:
        tokens.save(cli.config_dir, dev.url, "a-token", "admin")
        # cron's lines say where they report to
        planned = here("uninstall", "--url", dev.url, "--dry-run")
        stays = f"the jobs of {cli.home} stay as they are: to leave there too,\n  heartbeat uninstall"
        assert f"{stays} --home {cli.home} --url {prod}" in planned.out
        assert "unwrapped" not in planned.out
        done = here("uninstall", "--url", dev.url, "--yes")
        assert done.code == 0 and team.crontab == wrapped
        assert tokens.stored(cli.config_dir, dev.url, []) is None
        # what this host reports to without --url goes on, and so does the app
        cli.env["HEARTBEAT_URL"] = prod
        kept = contents(team.folder)
        elsewhere = here("uninstall", str(team.folder), "--url", dev.url, "--yes")
        assert elsewhere.code == 1 and f"  heartbeat uninstall --url {prod}\n" in elsewhere.out
        # however the other address is given
        (cli.config_dir / "config.toml").write_text(f'url = "{prod}"\n')
        named = here("uninstall", str(team.folder), "--yes", env={"HEARTBEAT_URL": dev.url})
        assert named.code == 1 and "keeps our functions" in named.out
        assert contents(team.folder) == kept
        assert "stoppedAt" not in here("dashboard", "--json").data["monitor"]
    assert "unwrapped" in here("uninstall", "--url", prod, "--dry-run").out


def test_where_our_functions_are_not_nothing_is_to_be_done(inside: Inside) -> None:
    cli = inside.cli
    app = copied(cli.folder / "app")
    assert inside("functions", "add", str(app), "--write", "--yes").code == 0
    adopted = contents(app)
    with Deployment({}) as deployment:
        cli.env["HEARTBEAT_URL"] = deployment.url
        tokens.save(cli.config_dir, deployment.url, "a-token", "send")
        done = inside("uninstall", "--yes")
        assert done.code == 0 and f"our functions are not at {deployment.url}" in done.out, done
        assert "make deploy" not in done.out
        assert tokens.stored(cli.config_dir, deployment.url, []) is None
        tokens.save(cli.config_dir, deployment.url, "a-token", "send")
        # it may be the wrong one
        asked_for = inside("uninstall", str(app), "--yes")
    assert asked_for.code == 1 and "for Convex's own dashboard to delete" in asked_for.out
    assert f"heartbeat functions remove --changed {app}" in asked_for.out and contents(app) == adopted


def test_two_that_leave_at_once_both_end_well(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    other = here("token", "create", "admin2", "--scope", "admin").out.strip()
    kept = tokens.stored(cli.config_dir, team.backend.url, [])
    assert kept is not None
    gate = Gate(team, kept.text)
    gate.left = float("inf")
    with gate.listens() as url:
        cli.env["HEARTBEAT_URL"] = url
        tokens.save(cli.config_dir, url, kept.text, "admin")
        gate.before["mutations/leave"] = lambda: team.backend.admin(
            "mutations/leave", {"token": other, "request": {"step": "stop"}}
        )
        second = here("uninstall", "--yes")
    assert second.code == 0 and "it was revoked, or the deployment has been left" in second.out
    assert tokens.stored(cli.config_dir, url, []) is None


def test_of_a_folder_without_anything_of_ours_that_is_told_and_what_still_uses_it_each_time(
    team: Team,
) -> None:
    here = team.inside
    come(team)
    wrong = copied(team.cli.folder / "wrong")
    planned = here("uninstall", str(wrong), "--dry-run")
    assert f"nothing of ours is in {wrong / 'convex'}" in planned.out
    using = team.folder / "convex" / "uses.ts"
    using.write_text('import { mirrorTask } from "./heartbeat/mirror";\nexport const x = mirrorTask;\n')
    for _ in range(2):
        done = here("uninstall", str(team.folder), "--yes")
        assert done.code == 1 and "by hand, in uses.ts, line 1" in done.out, done.out
    using.unlink()
    assert here("uninstall", str(team.folder), "--yes").code == 0


def test_what_waits_for_other_deployments_is_told(away: Inside) -> None:
    assert "is spooled" in away("send", "hint").err
    with Deployment({}) as deployment:
        tokens.save(away.cli.config_dir, deployment.url, "a-token", "send")
        done = away("uninstall", "--url", deployment.url, "--yes")
    assert f"kept in {away.cli.data_dir / 'spool' / 'spool.db'}: 1 heartbeat for others" in done.out


def test_only_the_token_that_was_judged_is_taken_out(host: Inside) -> None:
    cli = host.cli
    url = cli.env["HEARTBEAT_URL"]
    kept = tokens.stored(cli.config_dir, url, [])
    for given in (host("token", "create", "box2").out.strip(), "one-that-is-none"):
        assert host("uninstall", "--yes", env={"HEARTBEAT_TOKEN": given}).code == 0
        assert tokens.stored(cli.config_dir, url, []) == kept


def test_every_home_that_reports_there_goes_and_any_other_stays_with_its_backend(
    local: Local, inside: Inside
) -> None:
    cli = local.cli
    local.up()
    homes = [cli.folder / name for name in ("a home", "another")]
    with Deployment({}) as deployment:
        tokens.save(cli.config_dir, deployment.url, "a-token", "send")
        for home, url in zip(homes, (deployment.url, "local"), strict=True):
            home.mkdir()
            (home / "cron-schedule.md").write_text(SCHEDULE)
            installed = inside("cron", "install", "--yes", "--home", str(home), "--url", url)
            assert installed.code == 0, installed
        both = (cli.folder / "crontab-of-this-home").read_text()
        # it reports to the local backend, which so goes on
        done = inside("uninstall", "--yes", env={"HEARTBEAT_URL": deployment.url})
        assert done.code == 0 and local.instance.alive(), done
        now = (cli.folder / "crontab-of-this-home").read_text()
        assert now != both and str(homes[0]) not in now and str(homes[1]) in now
        (command,) = [line for line in done.out.splitlines() if "--home" in line]
    typed = shlex.split(command.partition("heartbeat ")[2])
    assert inside(*typed, "--yes").code == 0 and not local.instance.alive()
    assert not (cli.folder / "crontab-of-this-home").exists()


def test_an_app_with_another_deployment_is_told_so(team: Team) -> None:
    come(team)
    (team.folder / ".env.local").write_text("CONVEX_URL=https://dev.example\n")
    planned = team.inside("uninstall", str(team.folder), "--dry-run").out
    assert "the app has another deployment (CONVEX_URL in" in planned
    assert "heartbeat uninstall --url https://dev.example" in planned


def test_what_the_jobs_of_a_home_report_to_is_what_cron_gives_them(inside: Inside) -> None:
    """By the line, by what is set above it, by the settings that they find."""
    cli = inside.cli
    others = {name: cli.folder / name for name in ("it's a home", "profile")}
    with Deployment({}) as here, Deployment({}) as there:
        # the same machine by another name
        ours = here.url.replace("127.0.0.1", "localhost")
        cli.write_schedule(SCHEDULE)
        assert inside("cron", "install", "--yes", "--url", ours).code == 0
        other = cli.folder / "config2" / "convex-heartbeat"
        other.mkdir(parents=True)
        (other / "config.toml").write_text(f'url = "{there.url}"\n')
        for home in others.values():
            home.mkdir()
            (home / "cron-schedule.md").write_text(SCHEDULE)
        quoted, profile = others.values()
        env = {"XDG_CONFIG_HOME": str(other.parent)}
        assert inside("cron", "install", "--yes", "--home", str(profile), env=env).code == 0
        assert inside("cron", "install", "--yes", "--home", str(quoted), "--url", there.url).code == 0
        crontab = cli.folder / "crontab-of-this-home"
        # a comment of somebody's where it says nothing, and a block of nobody's
        text = crontab.read_text().replace("delivered\n", "delivered\n# mine\n")
        crontab.write_text(text + "# heartbeat: begin it's\n# heartbeat: end it's\n")
        planned = inside("uninstall", "--dry-run", "--url", here.url)
        assert planned.code == 0, planned
        taken = [line for line in planned.out.splitlines() if line.strip().startswith("- ")]
        assert taken and all(str(home) not in line for home in others.values() for line in taken)
        assert f"  - # heartbeat: begin {cli.home}" in planned.out
        for home in others.values():
            assert f"heartbeat uninstall --home {shlex.quote(str(home))} --url {there.url}" in planned.out
        # what is set above a block counts for it
        crontab.write_text(
            f"CONVEX_URL={there.url}\n" + crontab.read_text().replace(f"HEARTBEAT_URL={ours} ", "")
        )
        assert "unwrapped" not in inside("uninstall", "--dry-run", "--url", here.url).out


def test_a_crontab_whose_markers_are_damaged_is_told_before_anything_is_done(
    local: Local, inside: Inside
) -> None:
    local.up()
    (inside.cli.folder / "crontab-of-this-home").write_text("# heartbeat: begin a\n")
    refused = inside("uninstall", "--yes")
    assert refused.code == 1 and "nobody knows which lines are ours" in refused.err
    assert local.instance.alive()


def test_the_backend_that_this_host_reports_to_by_itself_goes_on(local: Local, inside: Inside) -> None:
    url = local.up()["url"]
    with Deployment({}) as deployment:
        tokens.save(inside.cli.config_dir, deployment.url, "a-token", "send")
        done = inside("uninstall", "--yes", env={"HEARTBEAT_URL": deployment.url})
    assert done.code == 0 and local.instance.alive()
    assert tokens.stored(inside.cli.config_dir, url, []) is not None


def test_the_local_backend_keeps_its_token_for_what_still_waits(local: Local, inside: Inside) -> None:
    url = local.up()["url"]
    local.cli("local", "down")
    assert "is spooled" in inside("send", "hint", env={"HEARTBEAT_DEADLINE": "1"}).err
    done = inside("uninstall", "--yes")
    assert done.code == 75 and "heartbeat local up, then type the same again" in done.out
    assert tokens.stored(inside.cli.config_dir, url, []) is not None


def test_with_a_token_that_only_reads_nothing_is_delivered_or_waited_for(host: Inside) -> None:
    url = host.cli.env["HEARTBEAT_URL"]
    assert "is spooled" in host("send", "hint", "--url", url, env={"HEARTBEAT_TOKEN": "none"}).err
    reads = host("token", "create", "box2", "--scope", "read").out.strip()
    tokens.save(host.cli.config_dir, url, reads, "read")
    assert "delivered" not in host("uninstall", "--dry-run").out
    done = host("uninstall", "--yes")
    assert done.code == 0 and "1 heartbeat for this deployment" in done.out


def test_what_a_kill_left_of_our_folder_goes(team: Team) -> None:
    (team.folder / "convex" / "heartbeat").mkdir()
    assert team.inside("uninstall", str(team.folder), "--yes").code == 0
    assert contents(team.folder) == team.files


def test_copies_that_cannot_be_kept_are_told_before_anything_is_done(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    (cli.data_dir / "left-files").write_text("in the way")
    wrapped = team.crontab
    refused = here("uninstall", str(team.folder), "--empty", "--yes")
    assert refused.code == 1 and "cannot be written, so nothing was" in refused.err
    assert team.crontab == wrapped and len(team.tables()["agentHeartbeats"]) == 2


def test_functions_that_went_with_the_folder_are_told(team: Team) -> None:
    """Somebody pushes the folder on each change."""
    here, cli = team.inside, team.cli
    come(team)
    kept = tokens.stored(cli.config_dir, team.backend.url, [])
    assert kept is not None
    gate = Gate(team, kept.text)
    gate.left = float("inf")
    with gate.listens() as url:
        cli.env["HEARTBEAT_URL"] = url
        (cli.folder / "crontab-of-this-home").write_text(team.crontab.replace(team.backend.url, url))
        tokens.save(cli.config_dir, url, kept.text, "admin")
        gate.gone = lambda: not (team.folder / "convex" / "heartbeat").exists()
        done = here("uninstall", str(team.folder), "--empty", "--yes")
    assert done.code == 0 and "our own token, which only they accept," in done.out
    assert contents(team.folder) == team.files
