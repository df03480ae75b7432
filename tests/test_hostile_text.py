"""Text from agents, from a deployment, from the schedule is data wherever it goes: shown, logged, as JSON."""

from __future__ import annotations

import copy
import json
import re
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import HEARTBEAT, TABLE, Cli, Inside
from deployment import Refusal
from heartbeat_cli import log, schedule
from heartbeat_cli.errors import HeartbeatError
from heartbeat_cli.output import SHOWN_LIMIT, shown
from hostile import COMMANDS, HOSTILE, harmless, hostile, returned, speaks
from terminal import on_a_terminal

NOW = 1_795_420_800_000
MB = 1_000_000
WIDE_TEXT = st.text(st.characters(), max_size=200) | st.text(
    st.sampled_from([*HOSTILE, '"', "\\", "=", " "]), max_size=200
)


# --- what is shown, what is logged


@given(WIDE_TEXT)
def test_no_control_no_direction_and_no_tower_of_marks_is_shown(text: str) -> None:
    safe = shown(text)
    assert harmless(safe) and "\n" not in safe
    assert shown(safe) == safe or len(safe) > SHOWN_LIMIT
    safe.encode("utf-8")


@pytest.mark.parametrize("text", ["Việt Nam".encode().decode(), "שָׁלוֹם", "ที่นี่", "❤️‍🔥", "e\u0301\u0323"])
def test_the_marks_of_living_scripts_stay(text: str) -> None:
    assert shown(text) == text


FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?: |\n)')


def parsed(line: str) -> dict[str, str]:
    """A line of the log as a reader of logfmt has it."""
    fields: dict[str, str] = {}
    end = 0
    while end < len(line):
        found = FIELD.match(line, end)
        assert found, line[end:]
        value = found[2]
        fields[found[1]] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        end = found.end()
    return fields


@given(agent=WIDE_TEXT, summary=WIDE_TEXT, problem=st.none() | WIDE_TEXT)
def test_a_log_line_stays_one_line_and_reads_back(agent: str, summary: str, problem: str | None) -> None:
    line = log.line(NOW, {"agent": agent, "open": 3}, {"summary": summary, "problem": problem})
    assert line.endswith("\n") and harmless(line[:-1]) and "\n" not in line[:-1]
    told = {"summary": shown(summary)} | ({} if problem is None else {"problem": shown(problem)})
    expected = {"at": "2026-11-23T08:00:00.000Z", "agent": shown(agent), "open": "3", **told}
    assert parsed(line) == expected


@pytest.fixture
def user(cli: Cli) -> Cli:
    cli.env |= {"HEARTBEAT_TOKEN": "a-token", "HEARTBEAT_TRANSPORT": "http", "HEARTBEAT_DEADLINE": "20"}
    cli.write_schedule(TABLE)
    return cli


@pytest.fixture
def here(user: Cli, inside: Inside) -> Inside:
    return inside


def test_every_command_shows_hostile_answers_as_text(here: Inside) -> None:
    with speaks(hostile) as deployment:
        here.cli.env["HEARTBEAT_URL"] = deployment.url
        for words in COMMANDS:
            done = here(*words.split())
            name = words.partition(" ")[0]
            # who finds much to mend there, or was refused something; who can make nothing of such records
            code = {"doctor": 1, "cron": 1, "import": 1, "uninstall": 1, "export": 75}.get(name, 0)
            assert done.code == code, (words, done)
            assert harmless(done.out) and harmless(done.err), words
            told = here(*words.split(), "--json")
            assert told.out.isascii() and told.out.count("\n") == 1 and harmless(told.out), words
            assert json.loads(told.out)["ok"] is (name != "export"), words


def test_every_command_shows_hostile_refusals_as_text(here: Inside) -> None:
    def refuse(_name: str) -> Any:
        raise Refusal({"code": HOSTILE[:60], "message": HOSTILE, "field": HOSTILE})

    with speaks(refuse) as deployment:
        here.cli.env["HEARTBEAT_URL"] = deployment.url
        for words in COMMANDS:
            done = here(*words.split())
            assert harmless(done.out) and harmless(done.err), words
            told = here(*words.split(), "--json")
            assert told.out.isascii() and told.out.count("\n") == 1, words
    for line in (here.cli.home / "logs" / "agent-heartbeat.log").read_text().splitlines(keepends=True):
        assert parsed(line)["agent"] == "hint"


@pytest.mark.parametrize("words", ["dashboard", "agents show hint", "tasks list hint", "agents pause hint"])
def test_on_a_terminal_only_our_own_colours_are_obeyed(user: Cli, words: str) -> None:
    with speaks(hostile) as deployment:
        user.env["HEARTBEAT_URL"] = deployment.url
        screen = on_a_terminal(user, *words.split(), env={})
    assert re.search(r"bold red|hint", screen)
    uncoloured = re.sub(r"\x1b\[[\d;]*m", "", screen)
    ours = set(re.findall(r"\x1b\[([\d;]*)m", screen))
    assert ours <= {"0", "1", "2", "31", "32", "33", "36", "1;31"}
    assert harmless(uncoloured.replace("\r\n", "\n"))


def test_what_is_typed_is_text_too(here: Inside) -> None:
    typed = HOSTILE.replace("\x00", "")
    for words in (
        ("send", typed),
        ("send", "hint", "--status", typed),
        ("send", "hint", "--result", typed),
        ("send", "hint", "--summary", typed, "--error", typed),
        ("dashboard", "--health", typed),
        ("dashboard", "--url", typed),
        ("dashboard", "--home", typed),
        ("dashboard", "--deadline", typed),
        ("dashboard", "--transport", typed),
        ("token", "revoke", typed),
        ("token", "create", "x", "--scope", typed),
        (typed,),
        (f"--{typed}",),
        ("agents", typed),
    ):
        for form in ((), ("--json",)):
            done = here(*words, *form)
            assert done.code and harmless(done.out) and harmless(done.err), words
    with speaks(hostile) as deployment:
        for words in (
            ("send", "hint", "--summary", typed, "--error", typed),
            ("tasks", "add", "hint", typed, "--status", typed),
            ("token", "create", typed, "--host-name", typed),
        ):
            done = here(*words, "--url", deployment.url)
            # a heartbeat is repaired; anything else that is not text is refused
            assert done.code == (0 if words[0] == "send" else 2), words
            assert harmless(done.out) and harmless(done.err), words


def test_a_hostile_schedule_is_text_in_every_answer(here: Inside) -> None:
    text = HOSTILE.replace("\n", " ").replace("\udcff", "").replace("\ud83d", "").replace("|", "")
    rows = [f"| {agent} | every 6h | {text} | {text} |" for agent in ("hint", "torv")]
    header = f"| agent | schedule | summary | command | {text} |\n|---|---|---|---|---|\n"
    here.cli.write_schedule(
        header + "\n".join(f"{row} {text} |" for row in rows) + f"\n| {text} | {text} |\n"
    )
    with speaks(hostile) as deployment:
        for words in ("apply --yes", "cron print", "send hint"):
            for form in ((), ("--json",)):
                done = here(*words.split(), *form, "--url", deployment.url)
                assert harmless(done.out) and harmless(done.err), words


def test_the_traceback_of_a_bug_quotes_text_harmlessly(user: Cli) -> None:
    program = (
        "import sys; from heartbeat_cli import cli, crontab_lines\n"
        f"def broken(*_): raise ValueError({HOSTILE!r})\n"
        "crontab_lines.entries = broken; cli.main()"
    )
    done = user("cron", "print", program=(sys.executable, "-c", program))
    assert done.code == 70 and "Traceback" in done.err
    assert harmless(done.err)


# --- how much it costs


# A process of its own: what was forked from a large one counts as large
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, used.ru_maxrss // 1000, used.ru_utime + used.ru_stime)
"""


def cost(user: Cli, *words: str, stdin: str = "") -> tuple[int, int, float]:
    """Exit code, megabytes at most, and seconds of work of one command."""
    done = user(*words, stdin=stdin, program=(sys.executable, "-c", MEASURE, str(HEARTBEAT)))
    code, megabytes, seconds = done.out.split()
    return int(code), int(megabytes), float(seconds)


def test_ten_megabytes_of_text_cost_little(user: Cli) -> None:
    answer = returned("getAgentDashboard")
    big = copy.deepcopy(answer["agents"][0]) | {"summary": "\x1b[31m\u0301" * (MB * 2), "purpose": "w" * MB}
    page = {"agents": [big], "isDone": True, "continueCursor": ""}

    def say(name: str) -> Any:
        return page if name == "getAgentDashboard" else hostile(name)

    with speaks(say) as deployment:
        user.env["HEARTBEAT_URL"] = deployment.url
        small = cost(user, "send", "hint", "--summary", "-", stdin="x")
        large = cost(user, "send", "hint", "--summary", "-", stdin="\x1b[31mx\u202e" * MB)
        page_of_it = cost(user, "dashboard")
    assert [code for code, *_ in (small, large, page_of_it)] == [0, 0, 0]
    assert large[1] - small[1] < 10, "megabytes for what is too much: it is not even read"
    assert page_of_it[1] < 300 and page_of_it[2] < 10, page_of_it
    assert (user.home / "logs" / "agent-heartbeat.log").stat().st_size < 5_000


def test_a_page_of_a_megabyte_that_is_made_to_be_slow_is_not() -> None:
    header = "| agent | schedule |\n|---|---|\n"
    pages = {
        "blanks": f"{header}| a | every 1d{' ' * 900_000}x |\n",
        "columns": f"{'|agent|schedule' * 60_000}|\n{'|-' * 120_000}|\n",
        "pipes": "|\n" * 100_000,
        "marks": f"{header}| a | {chr(0x301) * 400_000} |\n",
    }
    for name, page in pages.items():
        began = time.process_time()
        with pytest.raises(HeartbeatError):
            schedule.parse(page)
        assert time.process_time() - began < 5, name
