"""The table of cron-schedule.md: what is read, and what a bad line is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_cli import schedule
from heartbeat_cli.durations import duration_ms, duration_text
from heartbeat_cli.errors import ScheduleProblem, UsageProblem
from heartbeat_cli.schedule import Cron, Interval, Row, own_row, parse

HOUR_MS = 3_600_000
PAGE = Path(__file__).parent.parent / "cron-schedule.md"


def table(*rows: str, header: str = "| agent | schedule |") -> str:
    alignment = "|" + "---|" * (header.count("|") - 1)
    return "\n".join([header, alignment, *rows]) + "\n"


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(ScheduleProblem) as caught:
        parse(text)
    return list(caught.value.problems)


def test_the_page_of_this_project_names_its_four_agents() -> None:
    rows = parse(schedule.read(PAGE)).rows
    assert [(row.agent, row.schedule, row.purpose) for row in rows] == [
        ("hint", Cron("0 */6 * * *", "UTC"), "drift detection scan"),
        ("torv", Cron("15 8 * * *", "UTC"), "implementation review"),
        ("rams", Cron("20 8 * * *", "UTC"), "UX and system clarity audit"),
        ("kami", Cron("30 0 * * *", "UTC"), "content progression check"),
    ]
    assert {row.status for row in rows} == {"ok"}


def test_every_column_is_read_in_any_order_and_under_its_usual_names() -> None:
    header = (
        "|Host|ACT WITHIN|Max run|Fail-after|Delay|Misses|grace|Command|Summary|Status|TZ|Schedule|Agent|"
    )
    row = (
        r"|box1|3d|2h30m|4|90s|3|20 min|`ls \| wc -l`|says \| hello|Active|Europe/Berlin|*/5 1-3 * * 1|Hint|"
    )
    assert parse(table(row, header=header)).rows == (
        Row(
            line=3,
            agent="hint",
            schedule=Cron("*/5 1-3 * * 1", "Europe/Berlin"),
            status="working",
            purpose="says | hello",
            command="ls | wc -l",
            grace_ms=20 * 60_000,
            misses=3,
            max_run_ms=150 * 60_000,
            act_within_ms=72 * HOUR_MS,
            host="box1",
            fail_after=4,
            delay_ms=90_000,
        ),
    )
    wire = parse(table(row, header=header)).rows[0].wire()
    assert wire["failAfter"] == 4 and "delayMs" not in wire  # a delay is cron's alone


def test_what_a_row_leaves_open_is_not_sent() -> None:
    header = "| agent | schedule | grace | status |"
    row = parse(table("| hint | every 6h | - | \u2013 |", header=header)).rows[0]
    assert row.wire() == {"agent": "hint", "schedule": {"kind": "interval", "everyMs": 6 * HOUR_MS}}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + table("| hint | every 6h |"),
        table("| hint | every 6h |").replace("\n", "\r\n"),
        "prose | with a pipe\n\n" + table("|\thint\t|\tevery 6h\t|") + "\nmore | prose\n",
        "agent | schedule\n---|---\nhint | every 6h\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n" + table("| `hint` | `every 6 h` |"),
        "```\n" + table("| other | nonsense |") + "```\n" + table("| hint | EVERY 6H |"),
        "<!--\n" + table("| other | nonsense |") + "-->\n" + table("| hint | every 6 hours |"),
        table("| hint | every 6h |").replace("|---|---|", "|:--|:-:|"),
        "    | agent | schedule |\n    |---|---|\n    | x | y |\n\n" + table("| hint | every 360m |"),
    ],
)
def test_the_table_is_found_in_whatever_stands_around_it(text: str) -> None:
    assert [(row.agent, row.schedule) for row in parse(text).rows] == [("hint", Interval(6 * HOUR_MS))]


@pytest.mark.parametrize(
    "between",
    ["<!-- | rams | every 1h | -->\n", "<!--\n| rams | every 1h |\n-->\n"],
)
def test_a_comment_inside_the_table_does_not_end_it(between: str) -> None:
    text = table("| hint | every 6h |") + between + "| torv | every 1h |\n    | kami | every 2h |\n"
    assert [row.agent for row in parse(text).rows] == ["hint", "torv", "kami"]


@pytest.mark.parametrize(
    ("between", "line"),
    [("\n", 5), ("some prose\n", 5), ("```\ncode\n```\n", 7), ("# Heading\n\n", 6)],
)
def test_a_row_that_is_cut_off_from_the_table_is_told_by_its_line(between: str, line: int) -> None:
    text = table("| hint | every 6h |") + between + "| torv | every 1h |\n"
    [(at, message)] = problems(text)
    assert at == line and "belongs to no table" in message
    assert own_row(text, "hint") is not None
    with pytest.raises(ScheduleProblem, match=f"line {line}: .*belongs to no table"):
        own_row(text, "torv")


def test_stars_that_were_escaped_for_markdown_are_stars() -> None:
    assert parse(table(r"| hint | 0 \*/6 \* \* \* |")).rows[0].schedule == Cron("0 */6 * * *", "UTC")


def test_a_column_that_nobody_reads_is_a_warning_with_its_name() -> None:
    found = parse(table("| hint | every 6h | Ada |", header="| agent | schedule | owner |"))
    assert found.warnings == ("line 1: column 'owner' is not one that heartbeat reads",)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("| hint | every |", "expected a duration after 'every'"),
        ("| hint | every 0h |", "expected a duration after 'every'"),
        ("| hint | every six hours |", "expected a duration after 'every'"),
        ("| hint | @daily |", "five fields of a cron expression, found 1 field"),
        ("| hint | 0 6 * * |", "found 4 fields"),
        ("| hint | 0 0 6 * * * |", "found 6 fields"),
        ("| hint |  |", "expected something in the column 'schedule'"),
        ("|  | every 6h |", "expected something in the column 'agent'"),
        ("| two words | every 6h |", "cannot be the name of an agent"),
        ("| hint | every 6h | extra |", r"expected 2 cells, found 3 (write \| for a | inside a cell)"),
        ("| hint |", "expected 2 cells, found 1"),
    ],
)
def test_a_bad_row_is_told_by_its_line_and_what_was_expected(row: str, told: str) -> None:
    [(line, message)] = problems("one line of prose\n\n" + table("| torv | every 1h |", row))
    assert line == 6
    assert told in message


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("status", "fine", "unknown status"),
        ("grace", "soon", "expected a duration such as 30m"),
        ("misses", "0", "expected a whole number from 1"),
        ("misses", "two", "expected a whole number from 1"),
        ("time zone", "Europe / Berlin", "expected an IANA time zone"),
        ("summary", "x" * 501, "expected at most 500 characters, found 501"),
        ("max run", "-1h", "expected a duration"),
        ("fail after", "0", "expected a whole number from 1"),
        ("fail after", "101", "expected a whole number from 1 to 100"),
        ("delay", "11m", "expected at most 10m"),
        ("delay", "x", "expected a duration"),
    ],
)
def test_a_bad_cell_names_its_column(column: str, cell: str, told: str) -> None:
    [(line, message)] = problems(
        table(f"| hint | every 6h | {cell} |", header=f"| agent | schedule | {column} |")
    )
    assert line == 3
    assert told in message
    assert message.split(" '")[0] in {column, "zone"}


def test_every_bad_line_is_listed_not_only_the_first() -> None:
    found = problems(
        table("| a b | every 6h |", "| hint | every 6h |", "| torv | nonsense |", "| HINT | every 1h |")
    )
    assert [line for line, _ in found] == [3, 5, 6]
    assert "stands in line 4 already" in found[2][1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a table"),
        ("no table here\n", "expected a table"),
        ("| agent | schedule |\n| hint | every 6h |\n", "expected a table"),
        (table(), "the schedule, line 1: expected at least one agent below this header"),
        (table("| hint | every 6h |") + "\n" + table("| torv | every 6h |"), "2 problems"),
        (table("| a | b | c |", header="| agent | schedule | Agent |"), "one column 'agent', found several"),
    ],
)
def test_a_page_without_exactly_one_filled_table_is_refused(text: str, told: str) -> None:
    with pytest.raises(ScheduleProblem, match=told):
        parse(text)


def test_an_error_names_the_page_that_it_is_in(tmp_path: Path) -> None:
    page = tmp_path / "cron-schedule.md"
    page.write_text(table("| hint | nonsense |"))
    for look in (schedule.load, lambda page: schedule.load_own_row(page, "hint")):
        with pytest.raises(ScheduleProblem) as caught:
            look(page)
        assert str(caught.value).startswith(f"{page}, line 3: schedule 'nonsense'")


def test_send_reads_its_own_row_and_never_another() -> None:
    text = table(
        "| a b | nonsense |", "| hint | every 6h |", "| torv | nonsense |", "|", "| rams | every 1h | x |"
    )
    row = own_row(text, "hint")
    assert row is not None and row.line == 4
    assert own_row(text, "nobody") is None
    with pytest.raises(ScheduleProblem, match="line 5"):
        own_row(text, "torv")
    with pytest.raises(ScheduleProblem, match="stands in line 3 already"):
        own_row(table("| hint | every 6h |", "| HINT | every 1h |"), "hint")


def test_a_file_that_is_no_text_is_told_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "cron-schedule.md"
    file.write_bytes(b"# fine\n\xff\xfe bytes\n")
    with pytest.raises(ScheduleProblem, match="line 2: expected UTF-8 text"):
        schedule.read(file)
    with pytest.raises(UsageProblem, match="there is no"):
        schedule.read(tmp_path / "missing.md")
    file.write_bytes(b"x" * 1_000_001)
    with pytest.raises(UsageProblem, match="larger than"):
        schedule.read(file)


@given(
    d=st.integers(0, 400),
    h=st.integers(0, 400),
    m=st.integers(0, 400),
    s=st.integers(0, 400),
    blank=st.sampled_from(["", " "]),
)
def test_a_duration_is_the_sum_of_its_parts(d: int, h: int, m: int, s: int, blank: str) -> None:
    text = blank.join(f"{n}{blank}{unit}" for n, unit in ((d, "d"), (h, "h"), (m, "m"), (s, "s")) if n)
    assert duration_ms(text) == ((((d * 24 + h) * 60) + m) * 60 + s) * 1000 or not text
    assert text or duration_ms(text) is None
    assert duration_ms(duration_text(duration_ms(text) or 1000)) == (duration_ms(text) or 1000)


@given(st.text(alphabet="| -:`\\\nagentschedule*/5 every6h<!>\t\r", max_size=300))
def test_no_text_at_all_breaks_the_reader(text: str) -> None:
    try:
        parse("| agent | schedule |\n|---|---|\n" + text)
        parse(text)
    except ScheduleProblem as problem:
        assert all(line >= 1 for line, _ in problem.problems)


def test_a_file_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "cron-schedule.md").symlink_to("/dev/zero")
    with pytest.raises(UsageProblem, match="larger than"):
        schedule.read(tmp_path / "cron-schedule.md")
