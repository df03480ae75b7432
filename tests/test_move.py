"""`heartbeat export` and `heartbeat import`: everything, once, whatever is killed, cut or typed again."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import HEARTBEAT, Cli, Inside
from deployment import Deployment
from disks import MOUNTABLE, Disk
from heartbeat_cli import move, tokens
from heartbeat_cli.errors import Refused
from heartbeat_cli.move_format import verify
from heartbeat_cli.private_files import try_lock
from heartbeat_cli.scrub import HIDDEN
from moves import (
    Clock,
    Keeper,
    Silent,
    cut,
    data_lines,
    end_at,
    ended,
    heartbeat,
    nothing,
    records,
    revoked,
    written,
)


@pytest.fixture
def here(cli: Cli, inside: Inside) -> Inside:
    cli.env |= {"HEARTBEAT_TOKEN": "a-token", "HEARTBEAT_DEADLINE": "20"}
    return inside


def test_everything_goes_into_a_file_and_out_of_it_once(here: Inside) -> None:
    source, target = Keeper(records(heartbeats=1_201, flips=3)), Keeper()
    with source.deployment() as there, target.deployment() as other:
        done = here("export", "all.jsonl", "--url", there.url, "--json")
        assert done.code == 0 and done.err == "" and done.data["heartbeats"] == 1_201
        file = here.cli.folder / "all.jsonl"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and done.data["bytes"] == file.stat().st_size
        assert [path.name for path in here.cli.folder.iterdir() if "jsonl" in path.name] == ["all.jsonl"]
        taken = here("import", "all.jsonl", "--url", other.url, "--json")
        assert taken.code == 0 and taken.data["from"] == there.url and taken.data["ignored"] == []
        assert taken.data["heartbeats"] == {"recorded": 1_201, "updated": 0, "known": 0, "refused": 0}
        again = here("import", "all.jsonl", "--url", other.url)
    assert target.kept == source.kept
    assert again.code == 0 and "0 heartbeats stored, 1,201 known before" in again.out
    assert source.sizes == [500, 500, 201, 3, 2] and target.sizes[:9] == [200] * 6 + [1, 3, 2]
    assert not list((here.cli.data_dir / "moves").iterdir())
    lines = [json.loads(line)["kind"] for line in file.read_bytes().splitlines()]
    assert lines[0] == "header" and lines[-1] == "end" and lines.count("checkpoint") == 4


def test_streams_take_the_place_of_files(here: Inside) -> None:
    source, target = Keeper(records()), Keeper()
    with source.deployment() as there, target.deployment() as other:
        done = here("export", "-", "--url", there.url)
        assert done.code == 0 and done.out.splitlines()[-1].startswith('{"kind":"end"')
        taken = here("import", "-", "--url", other.url, "--json", stdin=done.out)
        assert here("export", "-", "--json", "--url", there.url).code == 2
    assert taken.code == 0 and taken.data["file"] is None and target.kept == source.kept
    assert not list((here.cli.data_dir / "moves").iterdir())


def test_a_pipe_is_read_once_and_an_error_in_it_is_told_by_its_name(here: Inside) -> None:
    target, pipe = Keeper(), here.cli.folder / "pipe"
    os.mkfifo(pipe)
    with target.deployment() as other:
        writer = threading.Thread(target=pipe.write_bytes, args=(written(records(flips=1)),))
        writer.start()
        done = here("import", "pipe", "--url", other.url)
        writer.join()
        assert done.code == 0 and "3 heartbeats stored" in done.out and "1 flip stored" in done.out
        torn = here("import", "-", "--url", other.url, stdin=written(records()).decode()[:-30])
    assert torn.code == 1 and torn.err.startswith("heartbeat: standard input, line 9: it is cut off\n")
    assert not list((here.cli.data_dir / "moves").iterdir())


def test_a_disk_that_is_full_at_either_end_of_a_stream_is_told(here: Inside) -> None:
    with Keeper(records()).deployment() as there, Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [HEARTBEAT, "export", "-", "--url", there.url],
            env=here.cli.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    assert b"heartbeat: standard output cannot be written: No space left on device\n" in done.stderr


@pytest.mark.skipif(not MOUNTABLE, reason="mounts a disk of its own, which root may")
def test_a_stream_that_does_not_fit_on_the_disk_is_told(here: Inside) -> None:
    with Disk(here.cli.folder / "data") as disk, Keeper().deployment() as other:
        done = here("import", "-", "--url", other.url, stdin="x" * 1_000_000)
        assert done.code == 2 and other.calls == []
        assert "standard input cannot be copied into" in done.err and "No space left" in done.err
        assert not list((disk.folder / "convex-heartbeat" / "moves").iterdir())


def test_nothing_stays_of_a_stream_that_was_told_to_end_nor_of_one_that_was_killed(here: Inside) -> None:
    moves = here.cli.data_dir / "moves"
    for name in ("tmp-killed", "tmp-at-work"):
        (moves / name).mkdir(parents=True)
        (moves / name / "lock").touch()
    source, reached, answered = Keeper(records(heartbeats=600)), threading.Event(), threading.Event()

    def before(number: int) -> None:
        if number == 1:
            reached.set()
            answered.wait()

    source.before = before
    with source.deployment() as there, (moves / "tmp-at-work" / "lock").open() as lock:
        assert try_lock(lock.fileno())
        process = subprocess.Popen(
            [HEARTBEAT, "export", "-", "--url", there.url],
            env=here.cli.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert reached.wait(60)
        assert len(list(moves.iterdir())) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        answered.set()
        assert [path.name for path in moves.iterdir()] == ["tmp-at-work"]


def test_a_copy_needs_no_file_of_anybodys_and_leaves_none(tmp_path: Path) -> None:
    source, target = Keeper(records(heartbeats=700)), Keeper()
    with end_at(source) as there, end_at(target) as other:
        done = move.copy(there, other, tmp_path, Silent())
        assert done.exported.counts["heartbeats"] == done.imported.taken["heartbeats"].recorded == 700
        # what was left by a copy that was killed is as of then
        source.before = revoked(len(source.sizes) + 3)
        with pytest.raises(Refused):
            move.copy(there, other, tmp_path, Silent())
        source.before = nothing
        source.kept["heartbeats"].append(heartbeat(700))
        again = move.copy(there, other, tmp_path, Silent())
    assert again.imported.taken["heartbeats"].recorded == 1 and target.kept == source.kept
    assert not list(move.places(tmp_path).iterdir())


def test_what_is_there_is_not_overwritten_unless_told_to(here: Inside) -> None:
    file = here.cli.folder / "all.jsonl"
    file.write_text("mine")
    (here.cli.folder / "folder").mkdir()
    with Keeper(records()).deployment() as there:
        refused = here("export", "all.jsonl", "--url", there.url)
        assert (refused.code, file.read_text(), there.calls) == (2, "mine", [])
        assert "all.jsonl exists" in refused.err and "--force" in refused.err
        assert "folder is a folder" in here("export", "folder", "--url", there.url).err
        nowhere = here("export", "no/where/all.jsonl", "--url", there.url)
        assert nowhere.code == 2 and "cannot be written: No such file" in nowhere.err
        assert here("export", "all.jsonl", "--force", "--url", there.url).code == 0
    assert data_lines(file.read_bytes())


def test_a_file_that_is_damaged_is_refused_before_anything_is_sent(here: Inside) -> None:
    (here.cli.folder / "all.jsonl").write_bytes(written(records())[:-30])
    with Keeper().deployment() as other:
        done = here("import", "all.jsonl", "--url", other.url)
        assert (done.code, other.calls) == (1, []) and "all.jsonl, line 9: it is cut off" in done.err
        assert here("import", "nowhere", "--url", other.url).code == 2


@pytest.mark.parametrize(("option", "told"), [((), True), (("--quiet",), False), (("--json",), False)])
def test_what_is_waited_for_is_told_unless_nobody_wants_to_know(
    here: Inside, option: tuple[str, ...], told: bool
) -> None:
    source = Keeper(records())
    source.before = cut(1)
    with source.deployment() as there:
        done = here("export", "all.jsonl", *option, "--url", there.url)
    assert done.code == 0 and ("trying again, for 120 s" in done.err) == told
    assert verify(here.cli.folder / "all.jsonl").total == 7


def test_a_secret_of_ours_that_an_agent_told_is_in_no_file(here: Inside) -> None:
    text = tokens.mint()
    here.cli.env["HEARTBEAT_TOKEN"] = text
    kept = records(heartbeats=1)
    kept["heartbeats"][0]["summary"] = f"failed with {text}"
    with Keeper(kept).deployment() as there:
        assert here("export", "all.jsonl", "--url", there.url).code == 0
    file = here.cli.folder / "all.jsonl"
    [found, *_] = [json.loads(line) for line in data_lines(file.read_bytes())]
    assert found["summary"] == f"failed with {HIDDEN}" and text not in file.read_text()


def test_what_is_refused_is_told_with_its_line_and_the_rest_is_taken(here: Inside) -> None:
    kept = records(heartbeats=4)
    lines = written(kept).splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"status"', b'"mood":"fine","status"')
    whole = ended(b"".join(lines[:-1]), {kind: len(kept[kind]) for kind in kept})
    (here.cli.folder / "all.jsonl").write_bytes(whole)
    target = Keeper()
    target.rejected = "rams"
    with target.deployment() as other:
        done = here("import", "all.jsonl", "--url", other.url)
        told = here("import", "all.jsonl", "--url", other.url, "--json")
    assert done.code == told.code == 1 and "2 heartbeats stored, 2 refused" in done.out
    assert "refused: line 3: is taken" in done.out and "refused: line 5: is taken" in done.out
    assert "left out, as this program does not know it: the field mood" in done.err
    assert told.data["refused"][0] == {"line": 3, "code": "conflict", "message": "is taken"}
    assert len(target.kept["heartbeats"]) == 2 and len(target.kept["agents"]) == 1


def test_functions_that_are_too_old_are_told_as_such(here: Inside) -> None:
    (here.cli.folder / "all.jsonl").write_bytes(written(records()))
    with Deployment({}) as old:
        for words in (("export", "new.jsonl"), ("import", "all.jsonl")):
            done = here(*words, "--url", old.url)
            assert done.code == 75 and "has no function" in done.err and "make deploy" in done.err
    assert not list(here.cli.folder.glob("new.jsonl*"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_redrawn_and_a_pipe_a_line_now_and_then() -> None:
    clock = Clock()
    screen, pipe, none = Terminal(), io.StringIO(), io.StringIO()
    told = [
        move.Progress("import", silent=stream is none, stream=stream, clock=clock)
        for stream in (screen, pipe, none)
    ]
    for text in ("100,000 of it", "1 of\x1b it", "2 of it"):
        for one in told:
            one.progress(text)
        clock.now += 3
    for one in told:
        one.note("it was cut")
        one.progress("the end")
        one.clear()
    shown = [line.strip() for line in screen.getvalue().split("\r") if line.strip()]
    of_it = [f"heartbeat: import: {text}" for text in ("100,000 of it", "1 of\\x1b it", "2 of it")]
    assert shown == [*of_it, "heartbeat: it was cut", "heartbeat: import: the end"]
    widest = len("heartbeat: import: 100,000 of it")
    assert f"\r{of_it[1].ljust(widest)}\r" in screen.getvalue() and screen.getvalue().endswith(" \r")
    assert pipe.getvalue() == "heartbeat: import: 2 of it\nheartbeat: it was cut\n"
    assert none.getvalue() == ""


def test_a_line_that_is_redrawn_is_no_wider_than_the_terminal() -> None:
    screen, clock = Terminal(), Clock()
    told = move.Progress("import", silent=False, stream=screen, clock=clock)
    told.progress(f"reading {'d' * 200}")
    told.clear()
    [line, blank] = [line for line in screen.getvalue().split("\r") if line]
    assert len(line) == len(blank) == 79 and line.endswith("d…")
