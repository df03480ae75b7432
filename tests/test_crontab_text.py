"""The text of a crontab: read as cron reads it, changed between our markers only, given back as it was."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from heartbeat_cli import crontab_text
from heartbeat_cli.crontab_text import (
    as_run,
    block_of,
    diff,
    entries,
    escaped,
    held,
    installed,
    lines_of,
    removed,
    variable,
    variables,
    with_block,
    without_block,
)
from heartbeat_cli.errors import CrontabProblem

HOME = "/srv/fleet"
LINES = ["# hint", "0 */6 * * * HEARTBEAT_HOME=/srv/fleet run ours"]
COMMANDS = {"torv": "/opt/torv.sh --all", "rams": "date +%F | mail me"}

# --- what cron reads ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"A=1\n", ("A", "1")),
        (b"  A = 1 2  \n", ("A", "1 2")),
        (b"A=' 1 '\n", ("A", " 1 ")),
        (b'A="it\'s"  \n', ("A", "it's")),
        (b"\"A B\" = 'x'\n", ("A B", "x")),
        (b"A=b=c\r\n", ("A", "b=c")),
        (b"A='1' 2\n", None),
        (b"A='1\n", None),
        (b"A=\n", None),
        (b"A=''\n", ("A", "")),
        (b"#A=1\n", None),
        (b"0 1 * * * A=1 x\n", None),
        (b"A b=1\n", None),
        (b"\n", None),
    ],
)
def test_a_line_that_sets_a_variable_is_known_as_cron_knows_it(
    line: bytes, expected: tuple[str, str] | None
) -> None:
    assert variable(line) == expected


def test_the_variables_of_a_line_are_those_above_it() -> None:
    text = b"A=1\n* * * * * x\nA=2\nB=3\n"
    assert variables(text, 2) == {"A": "1"} and variables(text) == {"A": "2", "B": "3"}


@pytest.mark.parametrize(
    ("command", "shell", "stdin"),
    [
        (b"echo a", b"echo a", None),
        (rb"date +\%F", b"date +%F", None),
        (b"cat%a%b", b"cat", b"a%b"),
        (rb"printf 'a\n'", rb"printf 'a\n'", None),
        (rb"a \\ b \\\\", rb"a \ b \\", None),
        (rb"a\\%b", b"a\\", b"b"),
        (b"a\\", b"a\\", None),
    ],
)
def test_a_shell_gets_what_cron_makes_of_a_command(command: bytes, shell: bytes, stdin: bytes | None) -> None:
    assert as_run(command) == (shell, stdin)


@given(st.text(st.sampled_from("\\%a '\"\u00e9\n"), max_size=12))
def test_an_escaped_command_is_given_back_by_cron(command: str) -> None:
    assert as_run(escaped(command).encode()) == (command.encode(), None)


def test_the_lines_that_start_something_are_found_with_their_block() -> None:
    text = with_block(b"A=1\n# no\n@reboot  x y\n\t1 2 3 4 5\tz\n1 2 3 4 5\nnonsense\n", HOME, LINES)
    found = [(entry.number, entry.when, entry.command, entry.block) for entry in entries(text)]
    assert found == [
        (3, "@reboot", b"x y", None),
        (4, "1 2 3 4 5", b"z", None),
        (9, "0 */6 * * *", b"HEARTBEAT_HOME=/srv/fleet run ours", HOME),
    ]


# --- blocks ---


def test_a_block_goes_to_the_end_and_then_stays_where_it_is() -> None:
    first = with_block(b"# theirs\n", HOME, LINES)
    assert first == (
        b"# theirs\n"
        b"# heartbeat: begin /srv/fleet\n"
        b"# hint\n0 */6 * * * HEARTBEAT_HOME=/srv/fleet run ours\n"
        b"# heartbeat: end /srv/fleet\n"
    )
    other = with_block(first + b"# below\n", HOME, LINES[1:])
    assert other == (
        b"# theirs\n"
        b"# heartbeat: begin /srv/fleet\n"
        b"0 */6 * * * HEARTBEAT_HOME=/srv/fleet run ours\n"
        b"# heartbeat: end /srv/fleet\n# below\n"
    )
    assert block_of(other, HOME) == [f"{LINES[1]}\n".encode()] and block_of(other, "/srv") is None
    assert without_block(other, HOME) == b"# theirs\n# below\n"


@pytest.mark.parametrize(
    "text",
    [
        b"# heartbeat: begin /srv/fleet\n0 1 * * * x\n",
        b"0 1 * * * x\n# heartbeat: end /srv/fleet\n",
        b"# heartbeat: begin /srv/fleet\n# heartbeat: begin local\n# heartbeat: end local\n",
        b"# heartbeat: begin a\n# heartbeat: end a\n# heartbeat: begin a\n# heartbeat: end a\n",
    ],
)
def test_damaged_markers_are_told_with_their_line_and_nothing_is_changed(text: bytes) -> None:
    changes: list[Callable[[], bytes]] = [
        lambda: with_block(text, HOME, LINES),
        lambda: without_block(text, HOME),
        lambda: removed(text, HOME),
    ]
    for change in changes:
        with pytest.raises(CrontabProblem, match=r"line \d of the crontab, '# heartbeat: ") as problem:
            change()
        assert "crontab -e" in str(problem.value.hint)


def test_a_plain_line_of_the_same_command_is_held_and_put_back() -> None:
    text = b"15 8 * * * /opt/torv.sh --all\n0 0 * * * other\n 1 1 * * *  date +\\%F | mail me \r\n"
    after = installed(text, HOME, LINES, COMMANDS)
    assert [(entry.command, entry.block) for entry in entries(after)] == [
        (b"other", None),
        (b"HEARTBEAT_HOME=/srv/fleet run ours", HOME),
    ]
    assert held(after, HOME) == [
        ("torv", b"15 8 * * * /opt/torv.sh --all\n"),
        ("rams", b" 1 1 * * *  date +\\%F | mail me \r\n"),
    ]
    assert removed(after, HOME) == text


@pytest.mark.parametrize(
    "line",
    [
        b"15 8 * * * /opt/torv.sh --all >/dev/null\n",
        b"15 8 * * * /opt/torv.sh --all%its standard input\n",
        b"# 15 8 * * * /opt/torv.sh --all\n",
        b"A=/opt/torv.sh --all\n",
    ],
)
def test_a_line_that_is_not_the_same_is_left_alone(line: bytes) -> None:
    assert installed(line, HOME, LINES, COMMANDS).startswith(line)


def test_a_held_line_comes_back_once_its_agent_runs_nothing_any_more() -> None:
    text = b"15 8 * * * /opt/torv.sh --all\n"
    after = installed(text, HOME, LINES, COMMANDS)
    assert installed(after, HOME, LINES, {"torv": "another command"}) == after
    assert installed(after, HOME, LINES, {}).startswith(text)


def test_lines_of_another_home_are_its_own() -> None:
    theirs = installed(
        b"1 1 * * * /opt/torv.sh --all\n", "/srv/other", ["1 1 * * * /opt/torv.sh --all"], COMMANDS
    )
    after = installed(theirs, HOME, LINES, COMMANDS)
    assert after.startswith(theirs) and removed(after, HOME) == theirs


def test_the_diff_shows_each_line_that_goes_and_comes() -> None:
    assert diff(b"a\nb\n\xff\n", b"a\nc\n\xff\n") == ["  - b", "  + c"]
    assert diff(b"a\n", b"a\n") == [] and diff(b"", b"a\n") == ["  + a"]


# --- whatever a crontab holds ---

ANY_LINE = st.one_of(
    st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")),
    st.sampled_from(
        [
            b"15 8 * * * /opt/torv.sh --all",
            b"  0 9 * * 1-5   date +\\%F | mail me",
            b"@daily /opt/torv.sh --all\r",
            b"MAILTO=me",
            b"SHELL = '/bin/bash'",
            b"# heartbeat: begin /srv/other",
            b"# heartbeat: end /srv/other",
            b"# heartbeat: wrapped torv /srv/other: 1 2 3 4 5 x",
            b"# heartbeat: wrapped",
            b"",
        ]
    ),
)
CRONTAB = st.tuples(st.lists(ANY_LINE, max_size=8), st.booleans()).map(
    lambda made: b"\n".join(made[0]) + (b"\n" if made[1] and made[0] else b"")
)
BLOCK = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20), max_size=4).map(
    lambda texts: [
        line for text in texts for line in ("# agent", f"1 2 3 4 5 HEARTBEAT_HOME=/h run agent -- {text}")
    ]
)


@given(CRONTAB, BLOCK)
def test_installing_twice_changes_nothing_more_and_removing_undoes_it_byte_for_byte(
    text: bytes, lines: list[str]
) -> None:
    try:
        once = installed(text, HOME, lines, COMMANDS)
    except CrontabProblem:
        assume(False)
    assert installed(once, HOME, lines, COMMANDS) == once
    # `crontab` takes no text without a newline at its end
    assert removed(once, HOME) == text + (b"\n" if text and not text.endswith(b"\n") else b"")
    block = block_of(once, HOME)
    assert block == [line.encode() + b"\n" for line in lines]


def test_what_somebody_wrote_among_our_lines_is_theirs_and_goes_below_them() -> None:
    ours, end = f"{LINES[0]}\n{LINES[1]}\n".encode(), f"# heartbeat: end {HOME}".encode()
    begin = f"# heartbeat: begin {HOME}\n".encode()
    theirs = b"MAILTO=me\n# mine\n15 8 * * *  /opt/other\n#1 2 3 4 5 old\n"
    mixed = begin + b"MAILTO=me\n# mine\n" + ours + b"15 8 * * *  /opt/other\n#1 2 3 4 5 old\n" + end
    mixed = b"# above\n" + mixed
    assert removed(mixed, HOME) == b"# above\n" + theirs
    after = installed(mixed + b"\n# below\n", HOME, LINES, COMMANDS)
    assert after == b"# above\n" + begin + ours + end + b"\n" + theirs + b"# below\n"
    assert installed(after, HOME, LINES, COMMANDS) == after


@given(CRONTAB, BLOCK)
def test_no_line_runs_a_command_of_the_table_beside_the_block(text: bytes, lines: list[str]) -> None:
    try:
        after = installed(text, HOME, lines, COMMANDS)
    except CrontabProblem:
        assume(False)
    commands = [command.encode() for command in COMMANDS.values()]
    for entry in entries(after):
        assert entry.block is not None or entry.stdin is not None or entry.command.strip() not in commands


@given(st.binary(max_size=60))
def test_lines_put_together_are_the_text(text: bytes) -> None:
    assert b"".join(lines_of(text)) == text
    assert all(line.count(b"\n") <= 1 for line in lines_of(text))


def test_a_home_with_blanks_and_quotes_has_markers_of_its_own() -> None:
    name = shlex.quote("/srv/it's a fleet")
    text = with_block(b"", name, LINES)
    assert crontab_text.block_names(text) == [name] and without_block(text, name) == b""
