"""The file of an export: what is whole is read, whatever wrote it; what is not is refused with its line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import REPOSITORY
from heartbeat_cli import shapes
from heartbeat_cli.errors import UsageProblem
from heartbeat_cli.move_format import BadFile, encoded, verify
from heartbeat_cli.move_records import KINDS, RECORDS, Misfit, Shape, checked
from moves import AT, ended, heartbeat, records, written

DOC = REPOSITORY / "docs" / "export-format.md"
CONTRACT = REPOSITORY / "tests" / "contract"
KEPT = records()
COUNTS = {kind: len(kept) for kind, kept in KEPT.items()}


def verified(folder: Path, content: bytes) -> Any:
    file = folder / "export.jsonl"
    file.write_bytes(content)
    return verify(file)


def test_a_whole_file_is_read_with_what_it_holds(tmp_path: Path) -> None:
    found = verified(tmp_path, written(KEPT))
    assert (found.origin, found.at, found.total) == ("http://there", AT, 7)
    assert found.counts == {"heartbeats": 3, "flips": 2, "agents": 2} and found.ignored == ()


def swapped(number: int, line: bytes) -> bytes:
    """A file whose end fits what is before it, whatever that is."""
    lines = written(KEPT).splitlines(keepends=True)[:-1]
    return ended(b"".join([*lines[: number - 1], line, *lines[number:]]), COUNTS)


def changed(**fields: Any) -> bytes:
    """The second line with these fields; None leaves one out."""
    return encoded("heartbeat", {k: v for k, v in heartbeat(0, **fields).items() if v is not None})


NO_EXPORT = "is no export of ours"
DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", NO_EXPORT),
    "prose": (b"Dear reader,\n", f"export.jsonl {NO_EXPORT}: line 1: it is no JSON"),
    "a database": (b"SQLite format 3\0" + bytes(range(256)), NO_EXPORT),
    "another program's": (b'{"kind":"header","what":"x","format":1,"from":"y","at":1}\n', NO_EXPORT),
    "without a header": (swapped(1, b""), NO_EXPORT),
    "a newer format": (
        swapped(1, written(KEPT).splitlines(keepends=True)[0].replace(b'"format":1', b'"format":2')),
        "line 1: it is of format 2, this program reads 1",
    ),
    "cut off within a line": (written(KEPT)[:-20], "line 9: it is cut off"),
    "cut off between lines": (
        written(KEPT)[: written(KEPT).rindex(b"\n", 0, -1) + 1],
        "ends after line 8, without its end",
    ),
    "a lost line": (
        swapped(3, b""),
        "line 8: it counts 3 heartbeats, 2 flips, 2 agents, and before it are 2 hea",
    ),
    "a line twice": (
        swapped(3, encoded("flip", KEPT["flips"][0]) * 2),
        "before it are 2 heartbeats, 4 flips",
    ),
    "something after the end": (
        written(KEPT) + encoded("note", {"text": "x"}) + changed(),
        "line 11: it comes after",
    ),
    "two headers": (swapped(3, written(KEPT).splitlines(keepends=True)[0]), "line 3: it is a second header"),
    "no JSON": (swapped(2, b"{'kind': 'heartbeat'}\n"), "line 2: it is no JSON"),
    "no text": (swapped(2, b'{"kind":"\xff"}\n'), "line 2: it is no JSON"),
    "no object": (swapped(2, b"[1]\n"), "line 2: it is no JSON object"),
    "no kind": (swapped(2, b'{"kind":7}\n'), "line 2: it is of no kind"),
    "nested too deep": (swapped(2, b"[" * 100_000 + b"\n"), "line 2: it is no JSON"),
    "a line without an end": (
        swapped(2, b'{"kind":"' + b"x" * 5_000_000),
        "line 2: it is longer than any record",
    ),
    "a field that is missing": (
        swapped(2, changed(sentAt=None)),
        "line 2: it is no heartbeat: sentAt is missing",
    ),
    "a text for a number": (swapped(2, changed(openTasks="3")), "openTasks is not what it should be"),
    "a number that is none": (swapped(2, changed().replace(b":3,", b":NaN,")), "line 2: it is no JSON"),
    "an unknown status": (swapped(2, changed(status="sleepy")), "status is not what it should be"),
    "half of a character": (swapped(2, changed(summary="\ud83d")), "summary is not what it should be"),
    "a run without an id": (swapped(2, changed(run={"phase": "start"})), "run.runId is missing"),
    "no schedule": (
        swapped(7, encoded("agent", KEPT["agents"][0] | {"schedule": {"kind": "moon"}})),
        "line 7: it is no agent: schedule.kind is none of interval, cron",
    ),
    "a run that is none": (
        swapped(7, encoded("agent", KEPT["agents"][0] | {"openRuns": [7]})),
        "line 7: it is no agent: openRuns. is no object",
    ),
    "a digest that is another's": (
        re.sub(rb'(?<="sha256":")\w+', b"0" * 64, written(KEPT)),
        "line 9: it does not fit what is before it",
    ),
    "without a digest": (
        re.sub(rb',"sha256":"\w+"', b"", written(KEPT)),
        "line 9: it is no end: sha256 is missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_not_whole_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    content, said = DAMAGED[name]
    with pytest.raises(BadFile, match=re.escape(said)) as refused:
        verified(tmp_path, content)
    assert str(tmp_path / "export.jsonl") in str(refused.value) and len(str(refused.value)) < 500


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="nowhere cannot be read: No such file"):
        verify(tmp_path / "nowhere")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_byte_of_what_we_wrote_changes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    whole = written(records(heartbeats=2, flips=1))
    end = whole.rindex(b"\n", 0, -1) + 1
    place = data.draw(st.integers(0, end - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    for damaged in (whole[:place] + bytes([byte]) + whole[place + 1 :], whole[:place] + whole[place + 1 :]):
        with pytest.raises(BadFile):
            verified(tmp_path, damaged)
    with pytest.raises(BadFile):
        verified(tmp_path, whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_what_a_newer_program_adds_is_left_out_and_told(tmp_path: Path) -> None:
    lines = written(KEPT).splitlines(keepends=True)
    lines[1] = changed(mood="fine", run={"runId": "r", "phase": "start", "cost": 3})
    lines.insert(2, encoded("holiday", {"of": "everybody"}))
    found = verified(tmp_path, ended(b"".join(lines[:-1]), COUNTS))
    assert found.counts["heartbeats"] == 3
    assert found.ignored == ("lines of the kind holiday", "the field mood", "the field run.cost")


def example(kind: str) -> list[dict[str, Any]]:
    examples = json.loads((CONTRACT / "exportRecords.json").read_text(encoding="utf-8"))
    return [
        record
        for one in examples
        if one.get("returns", {}).get("kind") == kind
        for record in shapes.plain(one["returns"]["records"])
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_that_the_functions_give_is_one_and_nothing_of_it_is_left_out(kind: str) -> None:
    found = example(kind)
    assert found
    for record in found:
        ignored: set[str] = set()
        assert RECORDS[KINDS[kind]].fit(record, "", ignored) == record and not ignored


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_of_the_functions_show_every_field_that_there_is(kind: str) -> None:
    told = {name for record in example(kind) for name in record}
    rare = {"gapNote", "silentSince"}
    assert RECORDS[KINDS[kind]].fields.keys() - told <= rare


def test_the_page_about_the_format_names_every_field_of_every_record() -> None:
    sections = dict(re.findall(r"^## `(\w+)`$(.*?)(?=^## |\Z)", DOC.read_text(encoding="utf-8"), re.M | re.S))
    for word, shape in RECORDS.items():
        named = set(re.findall(r"`(\w+)`", sections[word]))
        for name, kind in shape.fields.items():
            assert name in named, f"{word}.{name}"
            nested = kind[0] if isinstance(kind, list) else kind
            for field in nested.fields if isinstance(nested, Shape) else ():
                assert field in named, f"{word}.{name}.{field}"


def test_what_a_deployment_answers_is_held_against_the_same_shapes() -> None:
    checked("heartbeat", heartbeat(1))
    with pytest.raises(Misfit, match="heartbeatId is missing"):
        checked("heartbeat", {})
