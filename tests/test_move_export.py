"""Writing an export: it is there as a whole or not at all, and goes on where it was cut off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployment import Deployment
from heartbeat_cli.errors import HeartbeatError, Refused, Unreachable, UsageProblem
from heartbeat_cli.move_export import STALE_AFTER_MS, export, part_of
from heartbeat_cli.move_format import verify
from moves import (
    AT,
    Keeper,
    Silent,
    data_lines,
    end_at,
    exported,
    heartbeat,
    nothing,
    records,
    revoked,
    written,
)
from moves import end as end_of


@pytest.mark.parametrize(
    ("calls", "damage"),
    [(1, b""), (2, b'{"kind":"heartb'), (3, b"\0" * 5_000), (4, b"\xff\n{}\n"), (4, b"")],
)
def test_an_export_goes_on_from_its_last_whole_checkpoint(tmp_path: Path, calls: int, damage: bytes) -> None:
    source, file = Keeper(records(heartbeats=1_201)), tmp_path / "all.jsonl"
    with end_at(source) as end:
        source.before = revoked(calls)
        with pytest.raises(Refused):
            exported(end, file)
        assert not file.exists()
        with part_of(file).open("ab") as part:  # what was being written when the power failed
            part.write(damage)
        source.before = nothing
        done = exported(end, file)
    assert done.went_on_from == [500, 1_000, 1_201, 1_203][calls - 1] and not part_of(file).exists()
    assert verify(file).counts == done.counts == {"heartbeats": 1_201, "flips": 2, "agents": 2}
    assert data_lines(file.read_bytes()) == data_lines(written(source.kept))
    assert sum(source.sizes) == 1_205


@pytest.mark.parametrize(
    "torn", [b"", b"\0" * 100, b'{"kind":"hea', b'{"kind":"header","what":"convex-heartbeat export"']
)
def test_a_part_that_was_cut_off_at_its_very_beginning_is_begun_anew(tmp_path: Path, torn: bytes) -> None:
    source, file = Keeper(records()), tmp_path / "all.jsonl"
    part_of(file).write_bytes(torn)
    with end_at(source) as end:
        assert exported(end, file).went_on_from == 0
    assert verify(file).total == 7


@pytest.mark.parametrize("others", [b"a diary\n", b"{}\n", b'{"kind":"header","what":"something else"}\n'])
def test_a_file_that_is_no_part_of_ours_is_left_alone(tmp_path: Path, others: bytes) -> None:
    file = tmp_path / "all.jsonl"
    part_of(file).write_bytes(others)
    with end_at(Keeper(records())) as end:
        with pytest.raises(UsageProblem, match=r"all\.jsonl\.part is in the way"):
            exported(end, file)
        assert part_of(file).read_bytes() == others
        exported(end, file, force=True)
    assert verify(file).total == 7


def test_a_part_of_another_deployment_is_not_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    for source, force in ((Keeper(records(heartbeats=600)), False), (Keeper(records()), True)):
        with end_at(source) as end:
            if force:
                with pytest.raises(UsageProblem, match="is of another deployment"):
                    exported(end, file)
                assert exported(end, file, force=True).went_on_from == 0
            else:
                source.before = revoked(1)
                with pytest.raises(Refused):
                    exported(end, file)
    assert verify(file).total == 7


def test_two_do_not_write_one_file_at_once(tmp_path: Path) -> None:
    source, file, told = Keeper(records()), tmp_path / "all.jsonl", list[str]()
    with end_at(source) as end:

        def another(number: int) -> None:
            with pytest.raises(HeartbeatError) as refused:
                exported(end, file)
            told.append(str(refused.value))

        source.before = another
        exported(end, file)
    assert told == [f"another export writes {part_of(file)} just now"] * 3


def test_a_cursor_that_is_not_known_any_more_begins_the_export_anew(tmp_path: Path) -> None:
    source, file, told = Keeper(records(heartbeats=600)), tmp_path / "all.jsonl", Silent()
    with end_at(source) as end:
        source.before = revoked(1)
        with pytest.raises(Refused):
            exported(end, file)
        source.before, source.forgotten = nothing, {"500"}
        done = export(end, file, told, force=False, at=AT)
        assert done.went_on_from == 0 and verify(file).total == 604
    assert told.notes == ["the deployment does not know any more where the last try was: beginning anew"]


def test_an_answer_that_is_none_ends_it_and_gets_into_no_file(tmp_path: Path) -> None:
    odd = Keeper(records() | {"flips": [{"agent": "hint"}]})
    with end_at(odd) as end, pytest.raises(Unreachable, match="something that is no flip: from is missing"):
        exported(end, tmp_path / "all.jsonl")


def test_a_deployment_that_does_not_get_on_is_not_asked_for_ever(tmp_path: Path) -> None:
    page = {"records": [], "isDone": False, "continueCursor": "1"}
    with (
        Deployment({"queries/exportRecords": lambda args: page}) as there,
        pytest.raises(Unreachable, match="does not get on"),
    ):
        exported(end_of(there.url), tmp_path / "all.jsonl")


def test_a_part_that_was_begun_long_ago_is_begun_anew(tmp_path: Path) -> None:
    source, file, told = Keeper(records(heartbeats=600)), tmp_path / "all.jsonl", Silent()
    with end_at(source) as end:
        source.before = revoked(1)
        with pytest.raises(Refused):
            exported(end, file)
        source.before = nothing
        source.kept["heartbeats"].append(heartbeat(600))
        at = AT + STALE_AFTER_MS + 1
        assert export(end, file, told, force=False, at=at).went_on_from == 0
    found = verify(file)
    assert (found.at, found.counts["heartbeats"]) == (at, 601)
    assert told.notes == [f"{part_of(file)} was begun more than an hour ago: beginning anew"]


@pytest.mark.parametrize("force", [False, True])
def test_only_a_file_is_replaced(tmp_path: Path, force: bool) -> None:
    pipe, link, own = tmp_path / "pipe", tmp_path / "link", tmp_path / "own"
    os.mkfifo(pipe)
    own.write_text("mine")
    link.symlink_to(own)
    os.mkfifo(part_of(own.with_name("new")))
    with Keeper(records()).deployment() as there:
        for name in ("pipe", "link", "new"):
            with pytest.raises(UsageProblem, match="is no plain file"):
                exported(end_of(there.url), tmp_path / name, force=force)
        assert there.calls == []
    assert pipe.is_fifo() and link.is_symlink() and own.read_text() == "mine"
