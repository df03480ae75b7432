"""A deployment, a server, a file that is not ours: nothing in it is obeyed, or ends in a traceback."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import TABLE, Cli, Inside
from deployment import Deployment, Refusal
from heartbeat_cli import crontab_lines, log, schedule, shapes
from heartbeat_cli.config_files import env_local
from heartbeat_cli.errors import ScheduleProblem
from hostile import COMMANDS, CONTRACT, HOSTILE, harmless, kind_of, returned, speaks
from peers import Behaviour, Peer, answers, redirects

NOBODY = 65_534  # a user who is not us
MB = 1_000_000


@pytest.fixture
def here(cli: Cli, inside: Inside) -> Inside:
    cli.env |= {"HEARTBEAT_TOKEN": "a-token", "HEARTBEAT_TRANSPORT": "http", "HEARTBEAT_DEADLINE": "20"}
    cli.write_schedule(TABLE)
    return inside


SCALARS: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    -1e308,
    2**70,
    10**400,
    float("nan"),
    "",
    "x",
    HOSTILE,
    [],
    {},
]


def nested(depth: int) -> Any:
    """A list in a list in a list…"""
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each (container, key) of an answer."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])


SAMPLES = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@SAMPLES
@given(data=st.data())
def test_no_answer_of_a_deployment_ends_in_a_traceback(
    here: Inside, bent: tuple[Deployment, dict[str, Any]], data: st.DataObject
) -> None:
    takes_a_bent_answer(here, bent, data)


@pytest.mark.long
@settings(SAMPLES, max_examples=1_500)
@given(data=st.data())
def test_no_answer_of_a_deployment_ends_in_a_traceback_in_many_times_as_many_cases(
    here: Inside, bent: tuple[Deployment, dict[str, Any]], data: st.DataObject
) -> None:
    takes_a_bent_answer(here, bent, data)


def takes_a_bent_answer(here: Inside, bent: tuple[Deployment, dict[str, Any]], data: st.DataObject) -> None:
    deployment, bends = bent
    words = data.draw(st.sampled_from(sorted(words for words in COMMANDS if COMMANDS[words])))
    name = data.draw(st.sampled_from(COMMANDS[words]))
    answer = copy.deepcopy(returned(name))
    for container, key in data.draw(st.lists(st.sampled_from([*places(answer)]), min_size=1, max_size=3)):
        if isinstance(container, dict) and data.draw(st.booleans()):
            container.pop(key, None)
        else:
            container[key] = data.draw(st.sampled_from([*SCALARS, nested(70)]))
    bends.clear()
    bends[name] = answer | {"isDone": True} if "isDone" in answer else answer
    form = data.draw(st.sampled_from([(), ("--json",)]))
    done = here(*words.split(), *form, "--url", deployment.url)  # a bug would be raised
    assert done.code in {0, 1, 2, 75} and harmless(done.out) and harmless(done.err)
    if form:
        json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@settings(SAMPLES, max_examples=15)
@given(data=st.data())
def test_no_answer_of_a_deployment_that_is_connected_to_ends_in_a_traceback(
    here: Inside, data: st.DataObject
) -> None:
    connects_to_a_bent_answer(here, data)


@pytest.mark.long
@settings(SAMPLES, max_examples=400)
@given(data=st.data())
def test_no_answer_of_a_deployment_that_is_connected_to_ends_in_a_traceback_in_many_times_as_many_cases(
    here: Inside, data: st.DataObject
) -> None:
    connects_to_a_bent_answer(here, data)


def connects_to_a_bent_answer(here: Inside, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["getMonitorStatus", "getToken", "applySchedule"]))
    answer = copy.deepcopy(returned(name))
    for container, key in data.draw(st.lists(st.sampled_from([*places(answer)]), max_size=3)):
        container[key] = data.draw(st.sampled_from([*SCALARS, nested(70)]))

    def guarded(function: str) -> Callable[[Any], Any]:
        def run(args: Any) -> Any:
            if "token" not in args and function == "getMonitorStatus":
                raise Refusal({"code": "unauthorized", "message": HOSTILE})
            return answer if function == name else returned(function)

        return run

    form = data.draw(st.sampled_from([(), ("--json",)]))
    functions = {kind_of(each): guarded(each) for each in ("getMonitorStatus", "getToken", "applySchedule")}
    with Deployment(functions) as deployment:
        done = here("connect", deployment.url, "--yes", *form, stdin="a-token-of-somebody")
    assert done.code in {0, 1, 2, 75} and harmless(done.out) and harmless(done.err)
    if form:
        json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.fixture
def bent() -> Iterator[tuple[Deployment, dict[str, Any]]]:
    bends: dict[str, Any] = {}

    def answer(name: str) -> Any:
        if name in bends:
            return bends[name]
        whole = returned(name)
        return whole | {"isDone": True} if "isDone" in whole else whole

    with speaks(answer) as deployment:
        yield deployment, bends


def test_every_answer_that_the_functions_ever_gave_is_read_as_it_is() -> None:
    seen = 0
    for path in shapes.ANSWERS:
        for example in json.loads((CONTRACT / f"{path.partition('/')[2]}.json").read_text(encoding="utf-8")):
            if "returns" in example:
                seen += 1
                assert shapes.sound(path, shapes.plain(example["returns"])) == example["returns"], path
    assert seen >= len(shapes.ANSWERS)


def test_what_json_has_no_kind_for_becomes_what_it_has() -> None:
    odd = [float("inf"), float("-inf"), float("nan"), 10**400, 2.0**60, b"x", "\ud83d", {1: -0.0}, 12.0, True]
    told = shapes.plain(odd)
    assert told == [None, None, None, None, 2.0**60, "b'x'", "\ufffd", {"1": 0}, 12, True]
    assert [type(value) for value in told[-2:]] == [int, bool]
    json.dumps(told, allow_nan=False).encode()


def test_an_agent_that_nobody_asked_about_is_not_told_of(here: Inside) -> None:
    strange = {"agent": "stranger", "change": "added", "fields": [], "linked": True}
    answer = {"outcome": "planned", "changes": [strange], "unlisted": []}
    with Deployment({"mutations/applySchedule": lambda args: answer}) as deployment:
        done = here("apply", "--agents-only", "--dry-run", "--url", deployment.url)
    assert (done.code, done.out) == (0, "nothing to change\n")


def succeeds(value: str) -> Behaviour:
    return answers("200 OK", f'{{"status":"success","value":{value}}}')


def fails(field: str, text: str) -> Behaviour:
    return answers("200 OK", json.dumps({"status": "error", field: text}))


SERVERS: dict[str, tuple[Callable[[], Behaviour], str]] = {
    "a redirect to nonsense": (lambda: redirects("http://["), "only points to an address that is none"),
    "a redirect to no port": (
        lambda: redirects("https://evil.example:99999/x"),
        "https://evil.example:99999",
    ),
    "a redirect with a password": (
        lambda: redirects("//user:hidden@evil.example/x"),
        "to http://evil.example",
    ),
    "an error in escapes": (
        lambda: answers("500 No", '{"code": "\\u001b[2J", "message": "\\u202e"}'),
        r"500 No: \x1b[2J, \u202e",
    ),
    "brackets without end": (lambda: answers("200 OK", "[" * 100_000), "is not a Convex deployment"),
    "a value that nests": (lambda: succeeds("[" * 500 + "]" * 500), "its answer nests too deep"),
    "a number of 5,000 digits": (lambda: succeeds("9" * 5000), "is not a Convex deployment"),
    "megabytes of failure": (lambda: fails("errorMessage", "x\x1b" * MB), "failed at"),
    "megabytes of refusal": (lambda: fails("errorData", "x\x1b" * MB), r"refused: x\x1bx"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_no_answer_of_a_server_ends_in_a_traceback_or_in_pages(here: Inside, name: str) -> None:
    behaviour, told = SERVERS[name]
    with Peer(behaviour()) as peer:
        done = here("dashboard", "--url", peer.url)
        envelope = here("dashboard", "--json", "--url", peer.url).out
    assert done.code in {1, 75} and told in done.err and harmless(done.err)
    assert "hidden" not in done.err
    assert len(done.err) < 20_000 and len(envelope) < 20_000


# --- files that another user wrote


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a file another user's: root can give it away, anybody else becomes somebody else."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, -1, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: NOBODY)

    return give


def test_an_address_that_another_user_wrote_is_not_where_our_token_goes(
    tmp_path: Path, stranger: Callable[[Path], None]
) -> None:
    file = tmp_path / ".env.local"
    file.write_text("CONVEX_URL=https://evil.example\n")
    assert env_local(file, [])[0] == "https://evil.example"
    warnings: list[str] = []
    stranger(file)
    assert env_local(file, warnings) == (None, "")
    assert f"{file} belongs to another user; if it is right: chown" in warnings[0]


def test_an_address_that_anybody_could_have_written_neither(here: Inside) -> None:
    file = here.cli.home / ".env.local"
    file.write_text("CONVEX_URL=https://evil.example\n")
    file.chmod(0o666)
    done = here("send", "hint")
    assert done.code == 2 and "no deployment address is set" in done.err
    assert f"every user can write {file}; if it is right: chmod o-w {file}" in done.err


def test_a_link_that_another_user_made_leads_the_log_nowhere(
    tmp_path: Path, stranger: Callable[[Path], None]
) -> None:
    target, path = tmp_path / "target", tmp_path / "agent-heartbeat.log"
    target.write_text("ours\n")
    path.symlink_to(target)
    assert log.append(path, "a line\n") is None
    assert target.read_text() == "ours\na line\n"
    stranger(path)
    assert "cannot be written" in str(log.append(path, "a forged line\n"))
    assert target.read_text() == "ours\na line\n"


@pytest.mark.parametrize(
    "fields",
    [
        "@reboot evil x y z",
        "MAILTO=evil x y z a",
        "#* * * * *",
        "* * * * evil;x",
        "* * $(x) * *",
        "a * * * *",
    ],
)
def test_what_is_no_cron_expression_gets_no_crontab_line(fields: str) -> None:
    page = f"| agent | schedule |\n|---|---|\n| hint | {fields} |\n"
    host = crontab_lines.Host("box", ("/bin/heartbeat",), Path("/home"), Path("/log"), UTC)
    with pytest.raises(ScheduleProblem, match="the crontab cannot keep"):
        crontab_lines.entries(schedule.parse(page).rows, host, "the page", 0)
