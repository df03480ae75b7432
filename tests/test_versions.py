"""Rule 13: functions and programs that are one version apart, each as a real process; and the data of both.

`tests/previous/` keeps the contract before today's: the command, and its functions in one bundle.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from calls import REQUEST, fail
from conftest import REPOSITORY, TABLE, Cli, Inside, Local, Ran, wait_for
from deployment import Deployment, Function, PlainError
from heartbeat_cli import tokens
from heartbeat_cli.client import Connection, Deadline
from lines import many
from test_backup import backup, data_of, heartbeat_ids, restore
from test_send import ANSWER, COUNTS

[PREVIOUS] = (REPOSITORY / "tests" / "previous").glob("*.zip")
TODAYS: Mapping[str, str | None] = {}


def each_of(inside: Inside, lines: Sequence[str], env: Mapping[str, str] | None = None) -> list[Ran]:
    """What today's program does with these lines."""
    return [inside(*line.split(), env=env) for line in lines]


def once(cli: Cli, version: Mapping[str, str | None], *words: str) -> Ran:
    """One line as cron or a person has it: a process of its own, the official client."""
    return cli(*words, program=(sys.executable, "-m", "heartbeat_cli"), env=version)


BEHIND = (
    "heartbeat: the functions at URL are older than this program, which does without; "
    "deploy the functions: make deploy, or for the local backend: heartbeat local up\n"
)
# By today's functions only: when a token was last used, how many errors there were in a row
NOT_TOLD_BEFORE = re.compile(r" today(?= )|^failures .*\n", re.MULTILINE)
Shown = list[tuple[str, int, str, str]]
"""Of each line of the session: what was typed, the exit code, what was shown."""


class Places:
    """A user with a backend of their own for each pair of versions; what the session showed there, once."""

    def __init__(self, folder: Path, previous: Path, bundle: Path) -> None:
        self.functions = {"todays": bundle, "before": previous / "functions.mjs"}
        self.before: Mapping[str, str | None] = {"PYTHONPATH": str(previous)}
        self._programs = {"todays": TODAYS, "before": self.before}
        self._folder = folder
        self._seen: dict[str, tuple[Local, Shown]] = {}
        self._started: list[Local] = []  # also those of which nothing was seen

    def seen(self, program: str, functions: str) -> tuple[Local, Shown]:
        name = f"{program}-on-{functions}"
        if name not in self._seen:
            (self._folder / name).mkdir()
            local = Local(Cli(self._folder / name), self.functions[functions])
            self._started.append(local)
            local.up()
            local.cli.write_schedule(TABLE)
            wait_for(lambda: "sweepRanAt" in status(local))
            self._seen[name] = local, session(local, self._programs[program])
        return self._seen[name]

    def clear(self) -> None:
        for local in self._started:
            local.clear()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Places]:
    previous = tmp_path_factory.mktemp("previous")
    with zipfile.ZipFile(PREVIOUS) as kept:
        kept.extractall(previous)  # else Python would compile it in each process
    places = Places(tmp_path_factory.mktemp("places"), previous, bundle)
    yield places
    places.clear()


def status(local: Local) -> dict[str, Any]:
    url = local.status().url or ""
    token = tokens.stored(local.cli.config_dir, url, [])
    assert token is not None
    with Connection(url, token.text, deadline=Deadline(30), transport="http") as connection:
        return connection.query("queries/getMonitorStatus", "request", {})


SESSION = (  # each command that speaks to a deployment
    "apply --dry-run",
    "apply --yes",
    "send hint --summary scanned --result acted",
    "send torv --error gone",
    "send rams --status blocked --open-tasks 3 --stale-tasks 1 --quiet",
    "tasks add rams audit",
    "tasks list rams",
    "dashboard",
    "dashboard --check --health failing,new",
    "agents list",
    "agents show hint",
    "agents show torv",
    "agents pause rams",
    "agents resume rams",
    "agents retire rams",
    "agents show nobody",
    "send nobody",
    "token list",
    "token create laptop --scope send --agents hint --host-name lap",
    "token revoke ffffffffffff",
)
CODES = [0] * 8 + [3] + [0] * 6 + [1, 1] + [0, 0, 1]


def plain(text: str) -> str:
    """Without what differs from run to run: addresses, ids, instants, and blanks that make up for them."""
    for pattern, word in (
        (r"http://[\d.]+:\d+( \(local\))?", "URL"),
        (r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b[0-9a-z]{32}\b|\b[0-9a-f]{12}\b", "ID"),
        (r"(?<![\w-])[\w-]{43}(?![\w-])", "TOKEN"),
        (r"\b(\w{3} )?(\d{4}-\d\d-\d\d )?\d\d:\d\d(:\d\d)?( UTC| [A-Z]{3,4})?|\btomorrow\b|\bnow\b", "T"),
        (r"\b(in )?\d+ (s|min|h|d)( ago)?\b", "T"),
        (r"[ -]+", " "),
    ):
        text = re.sub(pattern, word, text)
    return text


def session(local: Local, version: Mapping[str, str | None]) -> Shown:
    def told(text: str) -> str:
        return plain(text.replace(str(local.cli.folder), "PLACE"))

    ran = many(local.cli, SESSION, version)
    return [
        (line, each.code, told(each.out), told(each.err)) for line, each in zip(SESSION, ran, strict=True)
    ]


def test_the_program_of_before_shows_with_todays_functions_what_it_showed_before(places: Places) -> None:
    todays, shown = places.seen("before", "todays")
    before, shown_before = places.seen("before", "before")
    assert (status(todays)["contractVersion"], status(before)["contractVersion"]) == (2, 1)
    assert once(todays.cli, places.before, "spool", "path").code == 2, "it knows no spool"
    assert shown == shown_before
    assert [code for _, code, _, _ in shown] == CODES
    ran = once(todays.cli, places.before, "send", "hint", "--json")
    assert (ran.code, ran.data["outcome"], ran.err) == (0, "recorded", "")


def test_todays_program_shows_with_the_functions_of_before_what_it_shows_today(places: Places) -> None:
    (before, shown), (_, todays) = places.seen("todays", "before"), places.seen("todays", "todays")
    # the dashboard says which side is behind
    assert shown == [
        (line, code, NOT_TOLD_BEFORE.sub("", out), err + BEHIND * line.startswith("dashboard"))
        for line, code, out, err in todays
    ]
    assert [code for _, code, _, _ in shown] == CODES
    ran = once(before.cli, TODAYS, "send", "hint", "--json")
    assert (ran.code, ran.data["outcome"], "Traceback" in ran.err) == (0, "recorded", False)


SENDS = [f"send {agent} --json" for agent in ("hint", "torv", "rams", "hint")]


@pytest.mark.parametrize("functions", ["todays", "before"])
def test_what_todays_program_spooled_is_delivered_to_either_functions_exactly_once(
    places: Places, functions: str
) -> None:
    local, _ = places.seen("todays", functions)
    down, *sent = many(local.cli, ["local down", *SENDS])
    assert [down.code, *(ran.data["outcome"] for ran in sent)] == [0] + ["spooled"] * len(sent)
    ids = {ran.data["heartbeatId"] for ran in sent}
    local.up()
    delivered, again = many(local.cli, ["spool deliver --json", "send hint"])
    assert (delivered.code, delivered.data["delivered"], delivered.data["waiting"]) == (0, len(ids), 0)
    assert heartbeat_ids(data_of(local)) > ids
    assert plain(delivered.err) == BEHIND * (functions == "before"), "said once, with what mends it"
    assert (again.code, "older" in again.err) == (0, False)


NOT_KNOWN = {
    "dev": f"{REQUEST}\nCould not find public function for 'PATH'. Did you forget to run `npx convex dev`?",
    "production": REQUEST,
}


@pytest.mark.parametrize("kind", NOT_KNOWN)
def test_what_waits_is_delivered_one_by_one_however_a_deployment_says_that_it_knows_no_batches(
    user: Cli, inside: Inside, kind: str
) -> None:
    def unknown(path: str) -> Function:
        return fail(NOT_KNOWN[kind].replace("PATH", path))

    functions: dict[str, Function] = {
        "mutations/recordHeartbeat": unknown("mutations/recordHeartbeat"),
        "mutations/recordHeartbeats": unknown("mutations/recordHeartbeats"),
        "queries/getToken": unknown("queries/getToken"),
        "queries/getMonitorStatus": lambda _args: {"contractVersion": 1.0, "sweepEveryMs": 60_000.0},
        "queries/getAgentTaskCounts": lambda _args: COUNTS,
    }
    with Deployment(functions) as deployment:
        user.env |= {"HEARTBEAT_URL": deployment.url}
        [older] = each_of(inside, SENDS[:1], {"HEARTBEAT_TOKEN": "an-older-token"})
        sent = each_of(inside, SENDS)
        assert [ran.data["outcome"] for ran in (older, *sent)] == ["spooled"] * (1 + len(SENDS))
        functions["mutations/recordHeartbeat"] = lambda _args: ANSWER  # it has been mended
        deployment.calls.clear()
        retried, listed = each_of(inside, ["spool retry --json", "spool list --json"])
    assert (retried.code, retried.data["delivered"], retried.data["waiting"]) == (75, len(SENDS), 1)
    taken = [args["heartbeat"] for path, args in deployment.calls if path == "mutations/recordHeartbeat"]
    assert [beat["heartbeatId"] for beat in taken] == [ran.data["heartbeatId"] for ran in sent]
    [left] = listed.data["entries"]
    assert (left["heartbeatId"], left["state"]) == (older.data["heartbeatId"], "waiting"), (
        "it may be sent later"
    )


def contents(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(file)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        version = database.execute("PRAGMA user_version").fetchall()
        return {name: database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names} | {  # noqa: S608
            "version": version
        }


@pytest.fixture
def spooled(user: Cli, inside: Inside) -> Path:
    """A spool in which heartbeats wait for a deployment that is away."""
    user.env |= {"HEARTBEAT_URL": "http://127.0.0.1:9"}
    assert [ran.data["outcome"] for ran in each_of(inside, SENDS)] == ["spooled"] * len(SENDS)
    return user.data_dir / "spool" / "spool.db"


def test_a_spool_of_a_newer_format_is_left_as_it_is_and_told(inside: Inside, spooled: Path) -> None:
    with closing(sqlite3.connect(spooled)) as database:
        [version] = database.execute("PRAGMA user_version").fetchone()
        database.executescript(
            f"ALTER TABLE entries RENAME COLUMN body TO payload; PRAGMA user_version = {version + 1};"
        )
    before = contents(spooled)
    functions: dict[str, Function] = {
        "mutations/recordHeartbeat": lambda _args: ANSWER,
        "queries/getAgentTaskCounts": lambda _args: COUNTS,
        "queries/getMonitorStatus": lambda _args: {"contractVersion": 2.0},
    }
    with Deployment(functions) as deployment:
        lines = ["spool list", "spool path", "spool drop --all --yes", "spool deliver"]
        listed, path, dropped, delivered = each_of(inside, lines)
        sent = inside("send", "hint", "--url", deployment.url)
    lost = inside("send", "hint")
    newer = "a newer version of this program wrote it"
    for ran in (listed, dropped, delivered):
        assert (ran.code, newer in ran.err, "Traceback" in ran.err) == (1, True, False)
    assert (path.code, path.out) == (0, f"{spooled}\n")
    assert (sent.code, newer in sent.err) == (0, True), "what can be delivered is, with a warning"
    assert (lost.code, newer in lost.err) == (1, True), "what is neither delivered nor kept says so"
    assert contents(spooled) == before


def test_columns_and_fields_that_a_newer_program_added_are_kept(inside: Inside, spooled: Path) -> None:
    with closing(sqlite3.connect(spooled)) as database:
        database.executescript("ALTER TABLE entries ADD COLUMN mood TEXT DEFAULT 'calm'")
        first = "number = (SELECT min(number) FROM entries)"
        database.execute(f"UPDATE entries SET body = json_set(body, '$.mood', 'x'), mood = 'y' WHERE {first}")  # noqa: S608
        database.commit()
    before = contents(spooled)["entries"]

    def record(args: Mapping[str, Any]) -> Any:
        if "mood" in args["heartbeat"]:
            raise PlainError(f"{REQUEST}\nArgumentValidationError: extra field `mood`.")
        return ANSWER

    functions: dict[str, Function] = {
        "mutations/recordHeartbeat": record,
        "queries/getAgentTaskCounts": lambda _args: COUNTS,
        "queries/getMonitorStatus": lambda _args: {"contractVersion": 1.0},
    }
    with Deployment(functions) as deployment, closing(sqlite3.connect(spooled)) as database:
        database.execute("UPDATE entries SET deployment = ?", (deployment.url,))
        database.commit()
        [ran] = each_of(inside, ["spool retry --json"], {"HEARTBEAT_URL": deployment.url})
    assert (ran.data["delivered"], ran.data["waiting"], ran.data["aside"]) == (len(SENDS) - 1, 1, 0)
    [left] = contents(spooled)["entries"]
    assert json.dumps(before[0][5]) in json.dumps(left) and "y" in left, "what this one cannot deliver waits"


@pytest.mark.long
def test_data_of_the_functions_of_before_goes_on_with_todays_and_a_backup_leads_back(
    places: Places, tmp_path: Path
) -> None:
    local, _ = places.seen("before", "before")
    before, pid = backup(local.cli, tmp_path / "before.db"), local.status().pid
    then = heartbeat_ids(data_of(local))

    local.functions = places.functions["todays"]
    done = local.up()
    assert (done["outcome"], done["pid"] != pid) == ("restarted", True)
    for version in (TODAYS, places.before):
        lines = ["dashboard --json", "agents show hint --json", "send torv --json"]
        shown = many(local.cli, lines, version)
        assert [ran.code for ran in shown] == [0] * 3
        assert {row["agent"] for row in shown[0].data["agents"]} == {"torv", "hint"}
        assert [beat["summary"] for beat in shown[1].data["heartbeats"]] == ["scanned"]
    now = heartbeat_ids(data_of(local))
    assert now > then

    local.functions = places.functions["before"]
    refused = local.try_up()
    error = json.loads(refused.out)["error"]
    assert (refused.code, len(error["message"]) < 400) == (2, True), error
    assert "does not match the schema: Object contains extra field" in error["message"]
    assert "restore a backup from before" in error["hint"]
    local.functions = places.functions["todays"]
    assert local.up()["outcome"] == "started"
    assert heartbeat_ids(data_of(local)) == now, "nothing was lost by trying"

    local.cli("local", "down")
    assert restore(local.cli, tmp_path / "before.db")["tables"] == before["tables"]
    local.functions = places.functions["before"]
    assert local.up()["outcome"] == "started"
    assert heartbeat_ids(data_of(local)) == then
    [ran] = many(local.cli, ["send hint"])
    assert ran.code == 0
