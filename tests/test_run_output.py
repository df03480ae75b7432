"""What is kept of a command's output, and what a line after `heartbeat run` means: without any process."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_cli.heartbeat import OUTPUT_MAX
from heartbeat_cli.run_options import Misuse, parse
from heartbeat_cli.run_output import MARGIN_BYTES, Stream, Tail
from heartbeat_cli.run_report import output_text, status_of

NOTE = re.compile(r"\[heartbeat: ([\d,]+) bytes before this were cut\]\n")


@given(st.lists(st.binary(max_size=9000), max_size=30), st.integers(1, 5000))
def test_a_tail_is_the_end_of_all_that_was_added(parts: list[bytes], size: int) -> None:
    tail = Tail(size)
    for part in parts:
        tail.add(part)
    whole = b"".join(parts)
    assert tail.total == len(whole)
    assert tail.kept() == whole[-(size + MARGIN_BYTES) :]


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)), st.integers(1, 40_000))
def test_output_is_valid_text_within_the_limit_and_tells_what_was_cut(data: bytes, size: int) -> None:
    for whole in (data, data * 2000):
        text, cut = output_text(whole[-(size + MARGIN_BYTES) :], size, len(whole))
        assert len(text) <= OUTPUT_MAX
        text.encode("utf-8")
        note = NOTE.match(text)
        assert bool(note) == cut or NOTE.match(whole.decode("utf-8", "replace"))
        assert cut or text == whole.decode("utf-8", "replace")
        if note and whole.isascii():
            kept = text[note.end() :]
            assert whole.decode().endswith(kept)
            assert int(note[1].replace(",", "")) + len(kept) == len(whole)


def test_a_character_that_the_cut_divides_is_left_out() -> None:
    whole = "é".encode() * 100
    text, cut = output_text(whole, 11, len(whole))
    assert cut and text.endswith("\n" + "é" * 5)


def test_a_stream_reads_no_more_than_is_taken_from_it() -> None:
    """A slow reader slows the command down, and nothing piles up here."""
    (source, writer), (reader, target) = os.pipe(), os.pipe()
    os.set_blocking(writer, False)
    stream = Stream(source, target, ())
    written = 0
    try:
        for _ in range(100):
            try:
                written += os.write(writer, b"x" * 65_536)
            except BlockingIOError:
                break
            stream.go_on()
        assert written < 500_000
        taken = 0
        while not stream.is_written or taken < written:
            taken += len(os.read(reader, 65_536))
            if taken < written:
                stream.go_on()
        assert taken == written
    finally:
        stream.close()
        for handle in (writer, reader, target):
            os.close(handle)


def test_the_status_is_the_last_line_that_has_one() -> None:
    assert status_of('{"status": "ok"}\nwords\n\n{"status": "idle"}\nE: on stderr\n') == (
        {"status": "idle"},
        None,
    )
    for text in (
        "",
        "words",
        "[1]",
        "3",
        '"ok"',
        '{"other": 1}',
        "{" * 100_000,
        '{"status": "idle"}' + "\nx" * 20,
    ):
        said, problem = status_of(text)
        assert (said, bool(problem)) == ({}, True), text[:20]
    for line in ('{"status": 5}', '{"status": "dancing"}', '{"result": "won"}', '{"summary": ["a"]}'):
        said, problem = status_of(line)
        assert said == {} and problem
    assert status_of('{"status": null, "summary": "s"}') == ({"summary": "s"}, None)


def test_everything_after_the_first_two_dashes_is_the_commands() -> None:
    options = parse(
        ["hint", "--timeout", "2h30m", "--kill-after=5", "--quiet", "--", "cmd", "--timeout", "--", "x"]
    )
    assert (options.agent, options.command) == ("hint", ["cmd", "--timeout", "--", "x"])
    assert (options.timeout_s, options.kill_after_s, options.quiet) == (9000, 5, True)


@pytest.mark.parametrize(
    ("size", "wanted"), [("1", 1), ("9B", 9), ("4k", 4000), ("4 kB", 4000), ("4KiB", 4096), ("40kB", 40_000)]
)
def test_a_size_has_a_unit_or_counts_bytes(size: str, wanted: int) -> None:
    assert parse(["hint", "--max-output", size, "--", "true"]).max_output == wanted


@pytest.mark.parametrize(
    "line",
    [
        "hint",
        "hint --",
        "-- true",
        "hint torv -- true",
        "hint --nope -- true",
        "hint --timeout -- true",
        "hint --timeout 0s -- true",
        "hint --timeout 1w -- true",
        "hint --max-output 0 -- true",
        "hint --max-output 41kB -- true",
        "hint --delay 11m -- true",
        "hint --tz UTC -- true",
        "hint --quiet=1 -- true",
    ],
)
def test_a_line_that_cannot_be_meant_is_said_to_be_one(line: str) -> None:
    with pytest.raises(Misuse):
        parse(line.split())
