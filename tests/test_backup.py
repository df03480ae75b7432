"""`heartbeat local backup` and `restore`: real backends, written to, killed, compared row by row."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conftest import HEARTBEAT, TABLE, Cli, Inside, Local, wait_for
from heartbeat_cli import tokens
from heartbeat_cli.client import Connection, Deadline
from heartbeat_cli.heartbeat import heartbeat_id
from lines import many
from terminal import on_a_terminal

BALLAST_BYTES = 64_000_000  # takes a copy long enough to be met in the middle
BACKUPS = (("hint", "one.db"), ("torv", "two.db"))  # of the fixture `home`: who reported before each
Row = tuple[Any, ...]


def reading(file: Path) -> closing[sqlite3.Connection]:
    # without a log nothing needs to be put together, and SQLite need not make one
    mode = "ro" if file.with_name(f"{file.name}-wal").exists() else "ro&immutable=1"
    return closing(sqlite3.connect(f"{file.as_uri()}?mode={mode}", uri=True))


def rows(file: Path) -> dict[str, set[Row]]:
    """Everything in a database: documents, index entries, answers kept for clients, crons, the clock."""
    with reading(file) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: set(database.execute(f'SELECT * FROM "{name}"')) for name in names}  # noqa: S608


def heartbeat_ids(file: Path) -> set[str]:
    with reading(file) as database:
        query = "SELECT number FROM tables WHERE name = 'agentHeartbeats'"
        [(number,)] = database.execute(query)
        return {json.loads(doc)["heartbeatId"] for (doc,) in database.execute(f"SELECT doc FROM d{number}")}  # noqa: S608


def data_of(local: Local) -> Path:
    return local.folder / "db" / "data.sqlite3"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """The home of a user whose backend has stopped; of two backups of it the first lacks a heartbeat."""
    local = Local(Cli(tmp_path_factory.mktemp("home")), bundle)
    local.up()
    local.cli.write_schedule(TABLE)
    folder = local.cli.folder
    lines = [f"send {agent} --summary {name}\nlocal backup {folder / name}" for agent, name in BACKUPS]
    ran = many(local.cli, ["apply --yes", *"\n".join(lines).splitlines()])
    assert [done.code for done in ran] == [0] * 5, ran
    local.clear()
    return folder


@pytest.fixture
def stopped(home: Path, local: Local) -> Local:
    """The same as a home of the test's own."""
    shutil.copytree(home, local.cli.folder, dirs_exist_ok=True)
    return local


@pytest.fixture
def fleet(stopped: Local) -> Local:
    """The same, and its backend runs."""
    stopped.up("--port", "0")
    return stopped


def with_ballast(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE ballast (x)")
        database.execute("INSERT INTO ballast VALUES (zeroblob(?))", (BALLAST_BYTES,))
        database.commit()


def backup(run: Cli | Inside, file: Path, *options: str) -> Any:
    ran = run("local", "backup", str(file), *options, "--json")
    assert ran.code == 0, ran
    return ran.data


def restore(run: Cli | Inside, file: Path) -> Any:
    ran = run("local", "restore", str(file), "--yes", "--json")
    assert ran.code == 0, ran
    return ran.data


def met_in_the_middle(cli: Cli, *words: str, part: Path) -> subprocess.Popen[bytes]:
    """The command, stopped (SIGSTOP) while it copies."""
    process = subprocess.Popen(
        [HEARTBEAT, "local", *words], env=cli.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not (part.exists() and part.stat().st_size > 0):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    assert part.stat().st_size < BALLAST_BYTES, "it was too fast"
    return process


def killed(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


class Senders:
    """Two senders, each with its own agent, one heartbeat after another; what was acknowledged, in order."""

    def __init__(self, local: Local) -> None:
        self.url = local.status().url or ""
        kept = tokens.stored(local.cli.config_dir, self.url, [])
        assert kept is not None
        self.token = kept.text
        self.acknowledged: dict[str, list[str]] = {"hint": [], "torv": []}
        self._stop = threading.Event()

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send, args=(agent,)) for agent in self.acknowledged]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def total(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def wait_for_more(self, count: int = 20) -> None:
        before = self.total()
        wait_for(lambda: self.total() >= before + count)

    def _send(self, agent: str) -> None:
        with Connection(self.url, self.token, deadline=Deadline(60), transport="http") as connection:
            while not self._stop.is_set():
                now = time.time_ns() // 1_000_000
                name = heartbeat_id(now, os.urandom(10))
                body = {"heartbeatId": name, "agent": agent, "status": "ok", "sentAt": now}
                connection.mutation("mutations/recordHeartbeat", "heartbeat", {**body, "deliveredAt": now})
                self.acknowledged[agent].append(name)


@pytest.mark.long
def test_a_backup_under_way_keeps_no_sender_waiting_and_is_of_one_instant(
    fleet: Local, tmp_path: Path
) -> None:
    with_ballast(data_of(fleet))
    senders, file, old = Senders(fleet), tmp_path / "fleet.db", heartbeat_ids(data_of(fleet))
    with senders.sending():
        senders.wait_for_more()
        before = {agent: list(ids) for agent, ids in senders.acknowledged.items()}
        part = tmp_path / ".fleet.db.part" / "data.sqlite3"
        process = met_in_the_middle(fleet.cli, "backup", str(file), part=part)
        most = senders.total() + len(senders.acknowledged)  # one of each may be on its way
        senders.wait_for_more(50)
        process.send_signal(signal.SIGCONT)
        process.communicate()
        assert process.returncode == 0
    inside = heartbeat_ids(file)
    assert len(inside - old) <= most, "it is as of when it began, whatever came since"
    for agent, sent in senders.acknowledged.items():
        assert set(before[agent]) <= inside, "acknowledged before it began"
        count = len(inside & set(sent))
        assert set(sent[:count]) <= inside, "none that came later without one that came before"


def test_a_backup_is_every_row_of_the_data_also_of_a_backend_that_was_killed(
    fleet: Local, inside: Inside, tmp_path: Path
) -> None:
    assert fleet.cli("send", "rams").code == 0, "over WebSocket: a session of it is kept"
    os.kill(fleet.status().pid or 0, signal.SIGKILL)
    wait_for(lambda: fleet.status().state == "stopped")
    assert list((fleet.folder / "db").glob("*-wal"))
    made = backup(inside, tmp_path / "killed.db")
    before = rows(data_of(fleet))
    assert rows(tmp_path / "killed.db") == before
    assert before["sessions"] and before["crons"]
    assert (made["tables"]["agentLiveness"], made["tables"]["agentHeartbeats"]) == (3, 3)
    assert made["bytes"] == (tmp_path / "killed.db").stat().st_size


def test_a_backup_is_one_file_of_its_users_alone_and_replaces_another_only_when_told(
    stopped: Local, inside: Inside, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file, beside = folder / "fleet.db", sorted(data_of(stopped).parent.iterdir())
    old = os.umask(0)
    try:
        backup(inside, file)
    finally:
        os.umask(old)
    assert rows(file) == rows(data_of(stopped))
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [file]
    assert sorted(data_of(stopped).parent.iterdir()) == beside, "a copy leaves nothing beside what it reads"
    shutil.copy(tmp_path / "one.db", file)
    before = file.read_bytes()
    ran = inside("local", "backup", str(file))
    assert (ran.code, ran.out) == (2, "")
    assert f"{file} exists" in ran.err and "--force" in ran.err
    assert file.read_bytes() == before
    told = inside("local", "backup", str(file), "--force").out
    assert "2  agentHeartbeats\n" in told and "the last was written" in told
    assert len(heartbeat_ids(file)) == 2


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (".", "is a folder"),
        ("no/such/folder.db", "cannot be written: No such file or directory"),
        ("data/convex-heartbeat/local/db/data.sqlite3", "lies in the local backend's own folder"),
    ],
)
def test_what_cannot_be_a_backup_is_one_sentence_and_harms_nothing(
    running: Local, owner: Inside, file: str, said: str
) -> None:
    place = running.cli.folder / file
    before = rows(data_of(running)).keys()
    ran = owner("local", "backup", str(place), "--force")
    assert (ran.code, ran.out) == (2, ""), ran
    assert said in ran.err
    assert rows(data_of(running)).keys() == before
    assert not list(running.cli.folder.glob("**/*.part"))


def test_without_data_there_is_no_backup(local: Local, inside: Inside, tmp_path: Path) -> None:
    ran = inside("local", "backup", str(tmp_path / "b.db"))
    assert (ran.code, ran.out) == (2, "")
    assert "there is no data to back up" in ran.err
    assert not local.folder.exists() and not (tmp_path / "b.db").exists()


def test_a_backup_that_is_killed_leaves_the_one_before_and_the_next_one_tidies_up(
    fleet: Local, inside: Inside, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file, part = folder / "fleet.db", folder / ".fleet.db.part"
    shutil.copy(tmp_path / "one.db", file)
    before = file.read_bytes()
    with_ballast(data_of(fleet))
    killed(met_in_the_middle(fleet.cli, "backup", str(file), "--force", part=part / "data.sqlite3"))
    assert file.read_bytes() == before
    assert inside("send", "torv").code == 0, "what was killed holds nobody up"
    backup(inside, file, "--force")
    assert list(folder.iterdir()) == [file]
    assert len(heartbeat_ids(file)) == 3


def test_while_the_backend_runs_nothing_is_restored(running: Local, owner: Inside, home: Path) -> None:
    before = heartbeat_ids(data_of(running))
    ran = owner("local", "restore", str(home / "one.db"), "--yes")
    assert (ran.code, ran.out) == (1, "")
    assert "the local backend runs" in ran.err and "heartbeat local down" in ran.err
    assert running.status().healthy
    assert heartbeat_ids(data_of(running)) == before


def damaged(file: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    file.write_bytes(content)


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def of_somebody_else(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE notes (text)")


def no_database(file: Path) -> None:
    file.write_text("a letter to a friend, " * 1000)


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
        database.commit()


def gone(file: Path) -> None:
    file.unlink()


def unindexed(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        [index] = database.execute("SELECT id FROM indexes WHERE name = 'by_heartbeatId'").fetchone()
        database.execute(f"DELETE FROM x{index}")  # noqa: S608
        database.commit()


@pytest.mark.long
def test_what_is_no_whole_backup_is_refused_and_the_data_stays(
    stopped: Local, inside: Inside, tmp_path: Path
) -> None:
    before = data_of(stopped).read_bytes()
    names = sorted(stopped.folder.iterdir())
    cases: dict[Callable[[Path], None], tuple[int, str]] = {
        damaged: (1, "cannot be used: "),
        cut_off: (1, "malformed"),
        of_somebody_else: (1, "is no backup of a local backend"),
        no_database: (1, "file is not a database"),
        newer: (1, "the file is in format 99; this version checks format 1"),
        gone: (2, "there is no backup"),
        unindexed: (1, "is not under its key"),
    }
    for harm, (code, said) in cases.items():
        file = tmp_path / f"{harm.__name__}.db"
        shutil.copy(tmp_path / "one.db", file)
        harm(file)
        ran = inside("local", "restore", str(file), "--yes")
        assert (ran.code, ran.out, said in ran.err) == (code, "", True), (harm.__name__, ran)
        assert data_of(stopped).read_bytes() == before, harm.__name__
    assert sorted(stopped.folder.iterdir()) == names


def test_restore_shows_both_asks_and_keeps_what_was_there(
    fleet: Local, inside: Inside, tmp_path: Path
) -> None:
    file = tmp_path / "b.db"
    backup(inside, file)
    assert inside("send", "torv").code == 0
    assert inside("local", "down").code == 0
    before = rows(data_of(fleet))

    ran = inside("local", "restore", str(file), "--json")
    assert (ran.code, json.loads(ran.out)["error"]["hint"]) == (2, "add --yes")
    for answer, done in (("n\n", False), ("y\n", True)):
        shown = on_a_terminal(fleet.cli, "local", "restore", str(file), typed=answer, env={})
        there, _, coming = shown.partition(f"in {file}")
        assert "3  agentHeartbeats" in there and "2  agentHeartbeats" in coming, shown
        assert ("restored: " in shown) is done
        assert (rows(data_of(fleet)) == before) is not done
    assert rows(data_of(fleet)) == rows(file)
    [kept] = fleet.folder.glob("before-restore-*")
    assert rows(kept / "data.sqlite3") == before, "what was there before is a backup too"
    assert fleet.up()["replacedToken"] is None, "the token that was kept works"
    assert inside("dashboard").code == 0


def test_a_backup_goes_on_elsewhere_with_a_new_token_its_history_and_its_crons(
    home: Path, local: Local, inside: Inside, tmp_path: Path
) -> None:
    file = tmp_path / "one.db"
    shutil.copy(home / "one.db", file)
    with closing(sqlite3.connect(file)) as database:  # a backup of yesterday, whose sweep is due
        database.execute("UPDATE crons SET next = next - 86400000")
        database.commit()
    assert restore(inside, file)["before"] is None
    began = time.time() * 1000
    assert local.up("--port", "0")["outcome"] == "started"
    shown = inside("agents", "show", "hint", "--json").data
    assert [beat["summary"] for beat in shown["heartbeats"]] == ["one.db"]
    told = inside("token", "list", "--json").data["tokens"]
    assert len(told) == 2, "that of the first place, and a new one"

    def swept() -> bool:
        ran = inside("dashboard", "--json").data["monitor"]["sweepRanAt"]
        return bool(ran >= began)

    wait_for(swept)


def test_data_that_can_no_longer_be_read_is_replaced_and_kept_with_its_log(
    fleet: Local, inside: Inside, tmp_path: Path
) -> None:
    assert inside("send", "torv").code == 0
    os.kill(fleet.status().pid or 0, signal.SIGKILL)
    wait_for(lambda: fleet.status().state == "stopped")
    cut_off(data_of(fleet))
    ruin = {file.name: file.read_bytes() for file in data_of(fleet).parent.glob("*.sqlite3*")}
    assert "data.sqlite3-wal" in ruin
    done = restore(inside, tmp_path / "one.db")
    assert done["before"] is None
    for name in ("data.sqlite3", "data.sqlite3-wal"):
        assert (Path(done["keptIn"]) / name).read_bytes() == ruin[name]
    assert rows(data_of(fleet)) == rows(tmp_path / "one.db")
    assert fleet.up()["outcome"] == "started"


@pytest.mark.parametrize("moved_away", [False, True], ids=["decided", "the old one moved away"])
def test_a_restore_that_was_decided_is_finished_by_whoever_comes_next(
    stopped: Local, inside: Inside, tmp_path: Path, moved_away: bool
) -> None:
    old = rows(data_of(stopped))
    coming = stopped.folder / "next-20261123T050000Z"
    coming.mkdir()
    shutil.copy(tmp_path / "one.db", coming / "data.sqlite3")
    if moved_away:
        data_of(stopped).parent.rename(stopped.folder / "before-restore-20261123T050000Z")
    backup(inside, tmp_path / "b.db")
    assert rows(tmp_path / "b.db") == rows(data_of(stopped)) == rows(tmp_path / "one.db")
    assert not coming.exists()
    [kept] = stopped.folder.glob("before-restore-*")
    assert rows(kept / "data.sqlite3") == old


def kill_restores(stopped: Local, delays_s: list[float]) -> None:
    """Restores, each killed after a delay; after each there is the old data or the new, and all of it."""
    files = [stopped.cli.folder / name for name in ("one.db", "two.db")]
    whole = [rows(file) for file in files]
    restore(stopped.cli, files[0])
    now = 0
    for delay in delays_s:
        words = [str(HEARTBEAT), "local", "restore", str(files[1 - now]), "--yes"]
        process = subprocess.Popen(words, env=stopped.cli.environment(), stdout=subprocess.PIPE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=delay)
        killed(process)
        with stopped.instance.alone():  # as the next command begins
            found = rows(data_of(stopped))
        assert found in whole, f"neither the old nor the new after {delay} s"
        if process.returncode == 0:
            assert found == whole[1 - now]
        now = whole.index(found)


def test_a_restore_that_is_killed_leaves_the_old_data_or_the_new(stopped: Local) -> None:
    kill_restores(stopped, [0.17, 0.27])


@pytest.mark.long
def test_restores_that_are_killed_at_any_time_leave_the_old_data_or_the_new(stopped: Local) -> None:
    kill_restores(stopped, [number / 200 for number in range(120)])


def test_a_restore_that_is_killed_while_it_copies_leaves_the_data(
    stopped: Local, inside: Inside, tmp_path: Path
) -> None:
    file, part = tmp_path / "two.db", stopped.folder / "restore.part"
    with_ballast(file)
    restore(inside, tmp_path / "one.db")
    before = rows(data_of(stopped))
    words = ("restore", str(file), "--yes")
    killed(met_in_the_middle(stopped.cli, *words, part=part / "data.sqlite3"))
    assert rows(data_of(stopped)) == before
    restore(inside, file)
    assert not part.exists()
    assert len(heartbeat_ids(data_of(stopped))) == 2
