"""The spool: nothing that was added is lost, whatever ends the process; what is put off comes back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from heartbeat_cli.clock import Moment
from heartbeat_cli.errors import SpoolProblem
from heartbeat_cli.spool import (
    AGENT_ENTRIES_MAX,
    AWAY_MOST_MS,
    BACKOFF_FIRST_MS,
    BACKOFF_JITTER,
    BACKOFF_MOST_MS,
    ENTRIES_MAX,
    STILL_WAITING,
    Spool,
    idle,
    told,
)
from heartbeat_cli.spool_entry import Entry, Trouble, Which
from heartbeat_cli.spool_file import BYTES_MAX

NOW = 1_800_000_000_000
URL, TOKEN, OTHER_TOKEN = "https://a.convex.cloud", "0123456789ab", "ba9876543210"  # fingerprints
AWAY = Trouble("unreachable", "nothing answers")
# What a back-off may last at most, when it is to last this long
WITH_JITTER = 1 + BACKOFF_JITTER


def entry(number: int, agent: str = "hint", url: str = URL, token: str = TOKEN, **more: str) -> Entry:
    body = {"heartbeatId": f"id-{number}", "agent": agent, "sentAt": NOW, "status": "ok", **more}
    return Entry.new(body, url, token, Moment(NOW, "boot", 1_000))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def ids(entries: list[Entry]) -> list[str]:
    return [one.heartbeat_id for one in entries]


def due(spool: Spool, now: int = NOW) -> list[str]:
    return ids(spool.due(URL, [TOKEN], now, limit=1_000))


# --- what was added is there


def test_what_was_added_is_there_for_another_process_as_it_was(spool: Spool, tmp_path: Path) -> None:
    spool.add(entry(1, summary="3 files — \u202e drifted"))
    [found] = Spool(tmp_path).entries(Which())
    assert replace(found, number=0) == entry(1, summary="3 files — \u202e drifted")
    assert found.wire(Moment(NOW + 5_000, "boot", 3_500)) == {**found.body, "deliveredAt": NOW + 2_500}


def test_it_is_there_after_a_kill_right_after_it_was_added(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, pathlib; from heartbeat_cli.spool import Spool;"
        "from heartbeat_cli.spool_entry import Entry; from heartbeat_cli.clock import now\n"
        "for n in range(3):\n"
        "    body = {'heartbeatId': f'id-{n}', 'agent': 'hint'}\n"
        f"    Spool(pathlib.Path(sys.argv[1])).add(Entry.new(body, '{URL}', '{TOKEN}', now()))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert ids(Spool(tmp_path).entries(Which())) == ["id-0", "id-1", "id-2"]


def test_only_its_user_can_read_it(spool: Spool, tmp_path: Path) -> None:
    spool.add(entry(1))
    assert spool.alone()
    spool.drop(["id-1"], NOW)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "spool").iterdir()}
    assert len(modes) >= 4 and set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_a_spool_that_was_never_used_is_empty_and_is_not_made_by_looking(
    spool: Spool, tmp_path: Path
) -> None:
    assert spool.counts().waiting == 0 and spool.entries(Which()) == [] and spool.retry(Which()) == 0
    assert idle(tmp_path, NOW) == 0 and told(spool, NOW) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_readdressed_is_for_the_new_deployment_as_if_sent_to_it(spool: Spool) -> None:
    new = "https://new.example"
    for number in (1, 2, 3):
        spool.add(entry(number, url="local"))
    spool.add(entry(4))
    spool.set_aside("id-1", Trouble("unknown_agent", "nobody knows it"))
    spool.put_off({"heartbeat_id": "id-2"}, AWAY, NOW)
    assert (spool.number("local"), spool.number(new)) == (3, 0)
    assert spool.readdress("local", new, OTHER_TOKEN) == 3
    moved = spool.entries(Which(deployment=new))
    sent_there = [entry(number, url=new, token=OTHER_TOKEN) for number in (1, 2, 3)]
    assert [replace(one, number=0) for one in moved] == sent_there
    assert ids(spool.due(new, [OTHER_TOKEN], NOW, limit=9)) == ["id-1", "id-2", "id-3"] and due(spool) == [
        "id-4"
    ]
    assert spool.readdress("local", new, OTHER_TOKEN) == 0


def test_where_nothing_was_spooled_there_is_nothing_to_readdress(spool: Spool) -> None:
    assert (spool.readdress("local", URL, TOKEN), spool.number("local"), spool.exists()) == (0, 0, False)
    spool.begin()
    assert spool.exists() and spool.alone()


# --- its bounds


def filled(spool: Spool, number: int, agent: str) -> None:
    """As if so many had been added, one by one."""
    with sqlite3.connect(spool.path) as database:
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO entries (heartbeat_id, agent, deployment, fingerprint, body, sent_at, boot_ms)"
            " SELECT ? || i, ?, 'u', 't', '{}', 0, 0 FROM n",
            (number, f"{agent}-{number}-", agent),
        )
    database.close()


def test_an_agent_may_have_10000_waiting_and_not_one_more_and_the_others_have_room(spool: Spool) -> None:
    spool.add(entry(1))
    filled(spool, AGENT_ENTRIES_MAX - 2, "hint")
    spool.add(entry(2))
    with pytest.raises(SpoolProblem, match="full for hint: 10,000 heartbeats wait") as refused:
        spool.add(entry(3))
    assert refused.value.hint is not None and "heartbeat spool list" in refused.value.hint
    spool.add(entry(4, "torv"))
    assert spool.counts().waiting == AGENT_ENTRIES_MAX + 1
    assert spool.find("id-1") is not None, "an older one is never dropped for a newer one"


def test_100000_may_wait_and_not_one_more(spool: Spool) -> None:
    spool.add(entry(1))
    filled(spool, ENTRIES_MAX - 2, "others")
    spool.add(entry(2))
    with pytest.raises(SpoolProblem, match="the spool is full: 100,000 heartbeats"):
        spool.add(entry(3))
    spool.remove({"id-1": {}}, NOW)
    spool.add(entry(3))


@pytest.mark.parametrize("bound", [10_000_000, pytest.param(BYTES_MAX, marks=pytest.mark.long)])
def test_it_never_grows_beyond_100_megabytes_and_gives_the_disk_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    assert BYTES_MAX == 100_000_000
    # as if it were 10 MB, which is the same and takes less time
    monkeypatch.setattr("heartbeat_cli.spool_file.BYTES_MAX", bound)
    spool.add(entry(1))
    with sqlite3.connect(spool.path) as database:
        database.execute("UPDATE entries SET reason = zeroblob(?)", (bound - 1_000_000,))
    database.close()
    spool = Spool(spool.path.parent.parent)
    with pytest.raises(SpoolProblem, match="cannot grow: its disk is full, or it holds 100 MB"):
        for number in range(2, 100):
            spool.add(entry(number, error="x" * 100_000))
    added = ids(spool.entries(Which()))
    assert spool.path.stat().st_size <= bound and len(added) > 2
    spool.remove({name: {} for name in added}, NOW)
    with sqlite3.connect(spool.path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert spool.path.stat().st_size < 1_000_000


# --- files that cannot be used


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("PRAGMA user_version = 2; PRAGMA application_id = 0x68627370", "a newer version of this program"),
        ("PRAGMA application_id = 7", "the database of another program"),
        ("CREATE TABLE theirs (x)", "the database of another program"),
    ],
)
def test_what_another_program_or_a_newer_version_wrote_is_left_as_it_is(
    spool: Spool, make: str, said: str
) -> None:
    spool.path.parent.mkdir()
    database = sqlite3.connect(spool.path)
    database.executescript("CREATE TABLE kept (x); INSERT INTO kept VALUES (5);")
    database.executescript(make)
    database.close()
    before = spool.path.read_bytes()
    with pytest.raises(SpoolProblem, match=said) as problem:
        spool.add(entry(1))
    assert ("update this program" in str(problem.value.hint)) == ("newer" in said)
    assert spool.path.read_bytes() == before
    assert said in told(Spool(spool.path.parent.parent), NOW)[0]


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to look at" * 9, b"SQLite format 3\0" + b"\xff" * 99]
)
def test_a_damaged_file_is_said_to_be_one(spool: Spool, content: bytes) -> None:
    spool.path.parent.mkdir()
    spool.path.write_bytes(content)
    with pytest.raises(SpoolProblem, match="cannot be used"):
        spool.add(entry(1))
    assert spool.path.read_bytes() == content
    assert idle(spool.path.parent.parent, NOW) is None, "whoever looks closer says why"


def test_a_process_that_keeps_it_locked_is_waited_for_so_long_and_no_longer(tmp_path: Path) -> None:
    Spool(tmp_path).add(entry(1))
    holder = sqlite3.connect(Spool(tmp_path).path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolProblem, match="kept locked by another process"):
        Spool(tmp_path, busy_s=0.1).add(entry(2))
    holder.execute("ROLLBACK")
    holder.close()
    Spool(tmp_path, busy_s=0.1).add(entry(2))


# --- who delivers


def test_one_delivers_and_a_kill_lets_the_next(tmp_path: Path) -> None:
    Spool(tmp_path).add(entry(1))
    script = (
        "import sys, pathlib, time; from heartbeat_cli.spool import Spool;"
        "spool = Spool(pathlib.Path(sys.argv[1])); print(spool.alone(), flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        mine = Spool(tmp_path)
        assert not mine.alone()
        other.kill()
        other.wait()
        assert mine.alone() and mine.alone()
    second = Spool(tmp_path)
    assert not second.alone()
    mine.done()
    assert second.alone()


def test_the_answer_is_kept_for_a_sender_that_waits_and_told_once(spool: Spool) -> None:
    for number in (1, 2):
        spool.add(entry(number))
    assert spool.leave("id-2") is not None
    spool.remove({"id-1": {"health": "ok"}, "id-2": {"health": "ok"}}, NOW)
    assert spool.leave("id-1") is None
    assert spool.answer("id-1") == {"health": "ok"}
    assert spool.answer("id-1") is None and spool.answer("id-2") is None


def test_answers_for_senders_that_were_killed_do_not_pile_up(spool: Spool) -> None:
    for number in (1, 2, 3):
        spool.add(entry(number))
    spool.remove({"id-1": {}}, NOW)
    spool.remove({"id-2": {}}, NOW + 601_000)
    assert spool.answer("id-1") is None and spool.answer("id-2") == {}


# --- what is due


def test_the_oldest_comes_first_and_only_what_goes_there_with_that_token(spool: Spool) -> None:
    spool.add(entry(1))
    spool.add(entry(2, url="https://b.convex.cloud"))
    spool.add(entry(3, token=OTHER_TOKEN))
    spool.add(entry(4))
    spool.add(entry(5))
    assert due(spool) == ["id-1", "id-4", "id-5"]
    assert ids(spool.due(URL, [TOKEN, OTHER_TOKEN], NOW, limit=2)) == ["id-1", "id-3"]
    assert ids(spool.due(URL, [TOKEN], NOW, after=1, limit=9)) == ["id-4", "id-5"]
    assert spool.fingerprints(URL, NOW) == [TOKEN, OTHER_TOKEN]
    assert spool.fingerprints("https://b.convex.cloud", NOW, but="id-2") == []
    assert spool.deployments(NOW) == [URL, "https://b.convex.cloud"]


def waits_for(spool: Spool, heartbeat_id: str = "id-1") -> int:
    found = spool.find(heartbeat_id)
    assert found is not None
    return found.next_try_at - NOW


def test_each_bad_end_doubles_the_back_off_up_to_an_hour(spool: Spool) -> None:
    spool.add(entry(1))
    spool.add(entry(2))
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        spool.put_off({"heartbeat_id": "id-1"}, AWAY, NOW)
        assert minutes * 60_000 <= waits_for(spool) <= minutes * 60_000 * WITH_JITTER
    assert due(spool) == ["id-2"], "it blocks nobody"
    assert due(spool, NOW + waits_for(spool) - 1) == ["id-2"]
    assert due(spool, NOW + waits_for(spool)) == ["id-1", "id-2"]


def test_what_the_deployment_asks_for_is_waited_for_and_the_first_tries_can_be_free(spool: Spool) -> None:
    spool.add(entry(1))
    spool.put_off({"agent": "hint"}, Trouble("slow_down", "", least_ms=7_200_000), NOW)
    assert waits_for(spool) == 7_200_000
    spool.add(entry(2))
    spool.put_off({"heartbeat_id": "id-2"}, Trouble("timeout", "", free=1), NOW)
    assert waits_for(spool, "id-2") == 0
    spool.put_off({"heartbeat_id": "id-2"}, Trouble("timeout", "", free=1), NOW)
    assert BACKOFF_FIRST_MS <= waits_for(spool, "id-2") <= BACKOFF_FIRST_MS * WITH_JITTER


def test_a_clock_that_was_set_back_puts_nothing_off_for_longer(spool: Spool) -> None:
    spool.add(entry(1))
    for _ in range(9):
        spool.put_off({"heartbeat_id": "id-1"}, AWAY, NOW)
    a_day_ago = NOW - 86_400_000
    assert due(spool, a_day_ago) == ["id-1"]
    assert due(spool, NOW - 60_000) == []


def test_a_deployment_that_is_away_is_left_alone_by_who_was_not_asked_but_not_for_long(spool: Spool) -> None:
    spool.add(entry(1))
    for _ in range(9):
        spool.contact(URL, NOW, AWAY)
    assert spool.deployments(NOW) == [] and spool.deployments(NOW, put_off_too=True) == [URL]
    # the functions call nobody degraded in the ten minutes after an outage: by then all is delivered
    assert spool.deployments(NOW + 300_000) == [URL] and AWAY_MOST_MS * WITH_JITTER < 300_000
    assert idle(spool.path.parent.parent, NOW) == 1 and idle(spool.path.parent.parent, NOW + 300_000) is None
    [waiting] = spool.entries(Which())
    assert (waiting.tries, waiting.reason) == (0, "nothing answers"), "no entry is to blame"
    spool.contact(URL, NOW, None)
    assert spool.deployments(NOW) == [URL] and spool.entries(Which())[0].reason is None


def test_put_off_wants_to_be_told_which(spool: Spool) -> None:
    for chosen in ({}, {"body": "x"}):
        with pytest.raises(ValueError, match="is not of"):
            spool.put_off(chosen, AWAY, NOW)


# --- people


def test_what_was_set_aside_waits_again_when_it_is_to_be_retried(spool: Spool) -> None:
    for number in (1, 2, 3):
        spool.add(entry(number))
    spool.set_aside("id-1", Trouble("unknown_agent", "No agent"))
    spool.put_off({"heartbeat_id": "id-2"}, AWAY, NOW)
    assert due(spool) == ["id-3"]
    assert (spool.counts().waiting, spool.counts().aside) == (2, 1)
    assert told(spool, NOW + 5_000) == [
        "2 heartbeats in the spool of this host, the oldest sent 5 s ago",
        "1 heartbeat in the spool of this host set aside: heartbeat spool list says why",
    ]
    assert ids(spool.entries(Which(state="aside"))) == ["id-1"]
    assert spool.retry(Which(state="aside", deployment="elsewhere")) == 0
    assert spool.retry(Which(state="aside", deployment=URL)) == 1
    assert due(spool) == ["id-1", "id-3"]
    assert spool.retry(Which(agent="hint")) == 3 and due(spool) == ["id-1", "id-2", "id-3"]


def test_what_is_dropped_stands_in_a_file_beside_it(spool: Spool) -> None:
    for number in (1, 2, 3):
        spool.add(entry(number))
    assert spool.drop([], NOW) is None and spool.drop(["nobody"], NOW) is None
    file = spool.drop(["id-1", "id-3"], NOW)
    assert file is not None and ids(spool.entries(Which())) == ["id-2"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["heartbeat"]["heartbeatId"] for line in lines] == ["id-1", "id-3"]
    assert lines[0]["deployment"] == URL


def test_looking_whether_something_is_due_imports_nothing_heavy(tmp_path: Path) -> None:
    Spool(tmp_path / "convex-heartbeat").add(entry(1))
    script = (
        "import sys; sys.argv = ['heartbeat', 'spool', 'deliver', '--quiet']\n"
        "from heartbeat_cli import cli\n"
        "code = cli._main(sys.argv[1:])\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    spool = Spool(tmp_path / "convex-heartbeat")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    heavy = {"typer", "pydantic", "rich", "httpx", "convex", "asyncio", "ssl"}
    for waiting, code in ((True, str(STILL_WAITING)), (False, "0")):
        if waiting:
            spool.contact(URL, 4_000_000_000_000, AWAY)
            spool.put_off({"agent": "hint"}, AWAY, time.time_ns() // 1_000_000)
        else:
            spool.remove({"id-1": {}}, NOW)
        words = [sys.executable, "-c", script]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=60)
        ended, *loaded = done.stdout.split()
        assert ended == code and heavy.isdisjoint(loaded)


# --- the spool against a plain list


@dataclass
class Kept:
    """What a plain list knows of an entry."""

    entry: Entry
    aside: bool = False
    tries: int = 0
    least: int = 0  # not due before
    most: int = 0  # due from then on


def backoff(tries: int) -> int:
    return min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS << (tries - 1))


class AgainstAList(RuleBasedStateMachine):
    """In whatever order, and however often it is opened anew: the spool holds what a list would."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model: list[Kept] = []
        self.number = 0
        self.now = NOW
        self.spool = Spool(Path(self.folder.name))

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(
        agent=st.sampled_from(["hint", "torv"]),
        url=st.sampled_from([URL, "https://b.example"]),
        text=st.text(),
    )
    def add(self, agent: str, url: str, text: str) -> None:
        self.number += 1
        added = entry(self.number, agent, url, summary=text.encode("utf-8", "replace").decode())
        self.spool.add(added)
        self.model.append(Kept(added))

    @rule()
    def opened_by_another_process(self) -> None:
        self.spool = Spool(Path(self.folder.name))

    @rule(ms=st.sampled_from([1_000, 60_000, 7_200_000, -3_600_000 * 30]))
    def clock_moves(self, ms: int) -> None:
        self.now += ms

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delivered(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(self.model), unique_by=id, max_size=5))
        self.spool.remove({kept.entry.heartbeat_id: {"health": "ok"} for kept in gone}, self.now)
        self.model = [kept for kept in self.model if kept not in gone]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(self.model))
        self.spool.set_aside(kept.entry.heartbeat_id, Trouble("invalid", "no"))
        kept.aside, kept.tries = True, kept.tries + 1

    @rule(agent=st.sampled_from(["hint", "torv"]), url=st.sampled_from([URL, "https://b.example"]))
    def put_off(self, agent: str, url: str) -> None:
        self.spool.put_off({"agent": agent, "deployment": url}, Trouble("slow_down", "later"), self.now)
        for kept in self.model:
            if (kept.entry.agent, kept.entry.deployment) == (agent, url) and not kept.aside:
                kept.tries += 1
                kept.least = self.now + backoff(kept.tries)
                kept.most = self.now + round(backoff(kept.tries) * WITH_JITTER)

    @rule(agent=st.sampled_from([None, "hint"]))
    def retried(self, agent: str | None) -> None:
        self.spool.retry(Which(agent=agent))
        for kept in self.model:
            if agent in {None, kept.entry.agent}:
                kept.aside, kept.least, kept.most = False, 0, 0

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def dropped(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(self.model))
        assert self.spool.drop([kept.entry.heartbeat_id], self.number) is not None
        self.model.remove(kept)

    @invariant()
    def it_holds_what_the_list_holds_in_its_order(self) -> None:
        found = [(one.heartbeat_id, one.body, one.state, one.tries) for one in self.spool.entries(Which())]
        state = {True: "aside", False: "waiting"}
        assert found == [
            (kept.entry.heartbeat_id, kept.entry.body, state[kept.aside], kept.tries) for kept in self.model
        ]

    @invariant()
    def what_must_be_due_is_and_what_must_not_is_not(self) -> None:
        found = due(self.spool, self.now)
        mine = [kept for kept in self.model if kept.entry.deployment == URL and not kept.aside]
        far = self.now + 2 * BACKOFF_MOST_MS
        must = {kept.entry.heartbeat_id for kept in mine if kept.most <= self.now or kept.least > far}
        may = {kept.entry.heartbeat_id for kept in mine if kept.least <= self.now or kept.most > far}
        assert must <= set(found) <= may
        assert found == [kept.entry.heartbeat_id for kept in self.model if kept.entry.heartbeat_id in found]


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.mark.long
class TestAgainstAListForLong(AgainstAList.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=400, stateful_step_count=100, deadline=None)
