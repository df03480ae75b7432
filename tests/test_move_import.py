"""Taking in an export: each record once, wherever it was cut off before, and in calls of a bounded size."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from heartbeat_cli import move_import
from heartbeat_cli.errors import Refused
from heartbeat_cli.move_import import import_file
from moves import Keeper, Silent, cut, end_at, heartbeat, nothing, records, revoked, written


def test_calls_are_bounded_in_bytes(tmp_path: Path) -> None:
    long = {"runId": "0190f0c0-0000-4000-9000-000000000001", "phase": "finish", "output": "\x01" * 10_000}
    source, target = records(heartbeats=0), Keeper()
    source["heartbeats"] = [heartbeat(nth, run=long) for nth in range(20)]
    (tmp_path / "all.jsonl").write_bytes(written(source))
    with end_at(target) as end:
        import_file(end, tmp_path / "all.jsonl", tmp_path / "places", Silent())
    assert target.sizes[:3] == [8, 8, 4] and target.kept == source


def test_after_a_call_that_was_cut_off_fewer_go_at_once(tmp_path: Path) -> None:
    kept, target = records(heartbeats=600), Keeper()
    (tmp_path / "all.jsonl").write_bytes(written(kept))
    target.before = cut(1)
    with end_at(target) as end:
        _, done = import_file(end, tmp_path / "all.jsonl", tmp_path / "places", Silent())
    assert target.sizes == [200, 50, 100, 50, 200, 2, 2] and target.kept == kept
    assert done.taken["heartbeats"].recorded == 600


def test_an_import_goes_on_where_it_was_and_only_where_that_is_known(tmp_path: Path) -> None:
    kept, target = records(heartbeats=1_001), Keeper()
    file, places = tmp_path / "all.jsonl", tmp_path / "places"
    file.write_bytes(written(kept))
    with end_at(target) as end:

        def cut_off() -> None:
            target.before = revoked(len(target.sizes) + 3)
            with pytest.raises(Refused):
                import_file(end, file, places, Silent())
            target.before, target.sizes = nothing, []

        cut_off()
        [place] = places.iterdir()
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        old = place.read_bytes()
        _, done = import_file(end, file, places, Silent())
        # the first place is kept at once, later ones each second; its batch and the first are sent again
        assert done.went_on_from in {200, 400, 600}
        assert sum(target.sizes) == 2 * 200 + 1_005 - done.went_on_from
        assert done.taken["heartbeats"].recorded + done.taken["heartbeats"].known == 1_001
        assert target.kept == kept and not list(places.iterdir())

        # the same address, and nothing of it is there any more
        target.kept = {kind: [] for kind in kept}
        place.write_bytes(old)
        _, done = import_file(end, file, places, Silent())
        assert done.went_on_from == 0 and target.kept == kept

        for broken in (b"", b"{}", b"\0\0", b'{"offset":"far"}'):
            place.write_bytes(broken)
            assert import_file(end, file, places, Silent())[1].taken["heartbeats"].known == 1_001
        places.rmdir()
        places.write_text("no folder")
        assert import_file(end, file, places, Silent())[1].went_on_from == 0


@pytest.mark.parametrize(
    ("calls", "left"),
    [
        # cut off among the agents; what is there then knows them from its schedule, and nothing else
        (5, {"heartbeats": slice(0), "flips": slice(0), "agents": slice(400)}),
        # cut off among the heartbeats; what is there then has only those that were sent last
        (2, {"heartbeats": slice(200, 400), "flips": slice(0), "agents": slice(0)}),
    ],
)
def test_what_has_only_a_part_of_it_is_sent_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int, left: dict[str, slice]
) -> None:
    monkeypatch.setattr(move_import, "KEPT_EACH_S", 0)
    kept, target = records(heartbeats=600, agents=[f"agent-{nth}" for nth in range(400)]), Keeper()
    file, places = tmp_path / "all.jsonl", tmp_path / "places"
    file.write_bytes(written(kept))
    with end_at(target) as end:
        target.before = revoked(calls)
        with pytest.raises(Refused):
            import_file(end, file, places, Silent())
        assert list(places.iterdir())
        target.before, target.kept = nothing, {kind: kept[kind][part] for kind, part in left.items()}
        assert import_file(end, file, places, Silent())[1].went_on_from == 0
    for kind, of_kind in kept.items():
        assert sorted(map(str, target.kept[kind])) == sorted(map(str, of_kind))
