"""What goes out: agents' text is data, tables fit, one JSON object says it all."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from heartbeat_cli import output
from heartbeat_cli.errors import ScheduleProblem, Unreachable, UsageProblem
from heartbeat_cli.output import Look, Page, Table, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 files drifted", "3 files drifted"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("two\r\nlines\tand a tab", r"two\r\nlines and a tab"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("line\u2028separator", r"line\u2028separator"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("half \ud83d", r"half \ud83d"),
        ("no\u00a0break", "no break"),
        ("👩\u200d🚀 grüße 日本", "👩\u200d🚀 grüße 日本"),
        ("[bold red]markup[/]", "[bold red]markup[/]"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(max_size=200))
def test_nothing_that_moves_a_cursor_or_breaks_a_line_gets_through(text: str) -> None:
    safe = shown(text)
    assert "\n" not in safe and "\x1b" not in safe
    assert all(char.isprintable() or char == "\u200d" for char in safe)
    safe.encode("utf-8")


def test_ten_megabytes_are_cut_before_anything_looks_at_them() -> None:
    assert len(shown("\x1b" * 10_000_000)) == 4 * output.SHOWN_LIMIT + 1


def page(table: Table, columns: int) -> list[str]:
    stream = io.StringIO()
    Page(stream, Look(columns, colour=False)).table(table)
    return stream.getvalue().splitlines()


def test_a_table_fits_its_page_and_wraps_only_its_last_column() -> None:
    table = Table(("agent", "health", "said"))
    table.rows.append(
        ("a" * 64, Text("ok", style="green"), "one two three four five six seven eight nine ten " * 3)
    )
    table.rows.append(("hint", "degraded 7 h", "日本" * 40))
    for columns in (60, 80, 120):
        lines = page(table, columns)
        assert all(cell_len(line) <= columns for line in lines)
        assert lines[1].startswith("aaaaaaaaaaa") and "…" in lines[2]
        assert all(line == line.rstrip() for line in lines)
        assert len(lines) == 5


def test_a_cell_that_is_cut_has_no_double_blanks() -> None:
    table = Table(("agent", "said"))
    table.rows.append(("hint", "word " * 60))
    assert "  " not in "".join(line[6:] for line in page(table, 60))


def test_a_piped_table_is_plain_and_whole() -> None:
    table = Table(("agent", "said"))
    table.rows.append(("hint", Text("x" * 500, style="red")))
    stream = io.StringIO()
    Page(stream, output.look_of(stream, colour=True, columns=None)).table(table)
    assert stream.getvalue() == "agent  said\nhint   " + "x" * 500 + "\n"


def test_markup_in_a_cell_is_text() -> None:
    table = Table(("agent", "said"))
    table.rows.append(("hint", "[red]stop[/red] :boom: \x1b[31m"))
    assert page(table, 80)[1] == r"hint   [red]stop[/red] :boom: \x1b[31m"


def test_the_envelope_of_success_and_of_failure() -> None:
    assert output.envelope("send", "http://h", {"a": 1}) == {
        "schema": 1,
        "ok": True,
        "command": "send",
        "deployment": "http://h",
        "data": {"a": 1},
    }
    error = Unreachable("no answer", cause="timeout", hint="wait")
    assert output.failure("send", None, error) == {
        "schema": 1,
        "ok": False,
        "command": "send",
        "deployment": None,
        "error": {"code": "unreachable", "message": "no answer", "hint": "wait", "exitCode": 75},
    }
    problems = output.failure("apply", None, ScheduleProblem("two", [(3, "a"), (4, "b")]))["error"][
        "problems"
    ]
    assert problems == [{"line": 3, "message": "a"}, {"line": 4, "message": "b"}]


def test_json_holds_no_character_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(output.envelope("dashboard", None, {"said": "\x1b[31m\u202e\n\x9b"}))
    out = capsys.readouterr().out
    assert out.isascii() and out.count("\n") == 1 and "\x1b" not in out
    assert json.loads(out)["data"]["said"] == "\x1b[31m\u202e\n\x9b"


def test_an_error_is_one_line_and_its_hint_another(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_error(UsageProblem("bad \x1b[31m value\nof two lines", hint="do this"))
    captured = capsys.readouterr()
    assert captured.err == "heartbeat: bad \\x1b[31m value\\nof two lines\n  do this\n"
    assert captured.out == ""
