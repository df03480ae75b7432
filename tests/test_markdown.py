"""The tables of a markdown page: found whatever stands around them, and no row dropped in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_cli.markdown import tables

TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n"


@pytest.mark.parametrize(
    ("text", "found", "lost"),
    [
        (TABLE, [[1, 3]], []),
        (TABLE + "| 3 | 4 |\n", [[1, 3, 4]], []),
        (TABLE + "3 | 4\n", [[1, 3, 4]], []),
        (TABLE + "    | 3 | 4 |\n", [[1, 3, 4]], []),
        (TABLE + "\t| 3 | 4 |\n", [[1, 3, 4]], []),
        (TABLE + "<!-- | 3 | 4 | -->\n| 5 | 6 |\n", [[1, 3, 5]], []),
        (TABLE + "\n| 3 | 4 |\n", [[1, 3]], [5]),
        (TABLE + "\n    | code | code |\n", [[1, 3]], []),
        (TABLE + "\n```\n| code |\n```\n", [[1, 3]], []),
        (TABLE + "```\n| code |\n```\n| 3 | 4 |\n", [[1, 3]], [7]),
        (TABLE + "\n" + TABLE, [[1, 3], [5, 7]], []),
        ("| a |\n---\n| 1 |\n", [[1, 3]], []),
        ("| no | table |\n| of | ours |\n", [], [1, 2]),
        ("prose | with a pipe\n", [], []),
    ],
)
def test_each_row_is_of_a_table_or_lost(text: str, found: list[list[int]], lost: list[int]) -> None:
    rows, cut_off = tables(text)
    assert [[line for line, _ in table] for table in rows] == found
    assert [line for line, _ in cut_off] == lost


@given(
    st.lists(
        st.sampled_from(["| a | b |", "|---|---|", "---", "", "    | c | d |", "```", "<!--", "-->", "x"])
    )
)
def test_no_page_breaks_the_reader_and_no_line_is_told_twice(lines: list[str]) -> None:
    rows, lost = tables("\n".join(lines))
    told = [line for table in rows for line, _ in table] + [line for line, _ in lost]
    assert len(told) == len(set(told))
    assert all(lines[line - 1].strip().startswith("|") for line in told)
