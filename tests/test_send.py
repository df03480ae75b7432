"""`heartbeat send`: from the command line to a deployment, whatever the schedule, log and network do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from conftest import HEARTBEAT, TABLE, Cli, Inside, Live
from deployment import Deployment, Faults, PlainError, Refusal

ANSWER: dict[str, Any] = {
    "outcome": "recorded",
    "agent": "hint",
    "health": "ok",
    "degraded": False,
    "control": "active",
    "dueAt": 4_000_000_000_000.0,
    "livenessAt": 1.0,
    "receivedAt": 1.0,
    "skewMs": 0.0,
    "openTasks": 12.0,
    "staleTasks": 3.0,
    "countsCapped": False,
    "countedBy": "sender",
    "linked": True,
}
COUNTS = {"agent": "hint", "openTasks": 12.0, "staleTasks": 3.0, "capped": False, "unknownStatuses": []}


def scripted(answer: Any = None, counts: Any = None) -> dict[str, Any]:
    def run(result: Any) -> Any:
        def function(args: Any) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

        return function

    return {
        "mutations/recordHeartbeat": run(ANSWER | answer if isinstance(answer, dict) else answer or ANSWER),
        "queries/getAgentTaskCounts": run(counts or COUNTS),
    }


def sent(deployment: Deployment) -> dict[str, Any]:
    [heartbeat] = [
        args["heartbeat"] for path, args in deployment.calls if path == "mutations/recordHeartbeat"
    ]
    return dict(heartbeat)


@pytest.fixture
def scribe(user: Cli, inside: Inside) -> Inside:
    return inside


def test_a_heartbeat_reaches_the_backend_with_counts_log_and_one_line(live: Live) -> None:
    cli = live.cli
    assert live.inside("apply", "--yes").code == 0
    assert live.inside("tasks", "add", "hint", "first").code == 0
    done = cli("send", "hint", "--summary", "3 files drifted", "--result", "acted")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("hint ok (working) · 1 open, 0 stale · due ")
    assert done.out.endswith(f"UTC · {live.url}\n") and done.out.count("\n") == 1
    assert len(done.out.rstrip()) <= 80
    [line] = (cli.home / "logs" / "agent-heartbeat.log").read_text().splitlines()
    assert (
        " agent=hint outcome=recorded health=ok open=1 stale=0 status=working result=acted elapsed_ms="
        in line
    )
    assert line.endswith('summary="3 files drifted"')
    [row] = [row for row in live.inside("dashboard", "--json").data["agents"] if row["agent"] == "hint"]
    assert (row["summary"], row["rawStatus"], row["openTasks"]) == ("3 files drifted", "working", 1)


def test_cron_starts_it_elsewhere_with_almost_no_environment(live: Live) -> None:
    cli = live.cli
    live.inside("apply", "--yes")
    bare = {"LANG": None, "HEARTBEAT_HOME": str(cli.home), "PATH": "/usr/bin:/bin"}
    done = cli("send", "HINT", "--quiet", env=bare, cwd=cli.folder)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert "agent=hint outcome=recorded" in (cli.home / "logs" / "agent-heartbeat.log").read_text()


def test_an_agent_that_was_never_applied_is_refused_with_what_to_do(live: Live) -> None:
    done = live.inside("send", "nobody", "--json")
    assert done.code == 1
    error = json.loads(done.out)["error"]
    assert (error["code"], error["exitCode"]) == ("unknown_agent", 1)
    assert "heartbeat apply" in f"{error['message']} {error['hint']}"


def test_json_is_one_object_with_the_backends_answer(live: Live) -> None:
    live.inside("apply", "--yes")
    done = live.inside("send", "hint", "--open-tasks", "4", "--stale-tasks", "1", "--json")
    whole = json.loads(done.out)
    assert (whole["schema"], whole["ok"], whole["command"], whole["deployment"]) == (
        1,
        True,
        "send",
        live.url,
    )
    data = whole["data"]
    assert (data["outcome"], data["openTasks"], data["staleTasks"], data["countedBy"]) == (
        "recorded",
        4,
        1,
        "sender",
    )
    assert uuid.UUID(data["heartbeatId"]).version == 7


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], "working"),
        (["--status", "Idle"], "Idle"),
        (["--error", "boom"], "error"),
        (["--error", "boom", "--status", "blocked"], "blocked"),
        (["--error", ""], "error"),
        (["--error", " "], "error"),
        (["--summary", ""], "working"),
    ],
)
def test_the_status_is_the_flag_or_the_errors_or_the_schedules(
    scribe: Inside, options: list[str], status: str
) -> None:
    with Deployment(scripted()) as deployment:
        assert scribe("send", "hint", *options, "--url", deployment.url).code == 0
        heartbeat = sent(deployment)
    assert heartbeat["status"] == status
    assert "summary" not in heartbeat, "the schedule's summary is a purpose, not what the agent said"
    assert (heartbeat["openTasks"], heartbeat["staleTasks"]) == (12, 3)


@pytest.mark.parametrize(
    ("page", "warned"),
    [
        (TABLE.replace("| working |", "| fine    |"), "line 5: status 'fine': unknown status"),
        (TABLE + "| hint | every 1h | | | |\n", "stands in line 5 already"),
        ("no table at all\n", "expected a table"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "expected a table"),
        (TABLE.replace("15 8 * * *", "nonsense  "), None),
        (None, None),
    ],
)
def test_a_bad_row_of_its_own_is_a_warning_and_anothers_is_nothing(
    scribe: Inside, page: str | None, warned: str | None
) -> None:
    file = scribe.cli.write_schedule(page or "")
    if page is None:
        file.unlink()
    with Deployment(scripted()) as deployment:
        done = scribe("send", "hint", "--url", deployment.url, env={"HEARTBEAT_HOME": str(scribe.cli.home)})
        status = sent(deployment)["status"]
    assert done.code == 0
    if warned:
        assert warned in done.err and "going on without its defaults" in done.err and status == "ok"
    else:
        assert done.err == ""


def test_counts_that_were_given_are_not_asked_for(scribe: Inside) -> None:
    with Deployment(scripted()) as deployment:
        scribe("send", "hint", "--open-tasks", "0", "--stale-tasks", "0", "--url", deployment.url)
        assert [path for path, _ in deployment.calls] == ["mutations/recordHeartbeat"]
        assert sent(deployment)["openTasks"] == 0


@pytest.mark.parametrize(
    "counts",
    [
        Refusal({"code": "invalid", "message": "no"}),
        PlainError("which?"),
        COUNTS | {"capped": True, "openTasks": 1000.0},
        COUNTS | {"mirrored": True},
    ],
)
def test_without_usable_counts_the_deployment_counts(scribe: Inside, counts: Any) -> None:
    with Deployment(scripted(counts=counts)) as deployment:
        done = scribe("send", "hint", "--url", deployment.url)
        assert "openTasks" not in sent(deployment)
    assert done.code == 0
    assert ("the deployment counts" in done.err) == isinstance(counts, Exception)


def test_a_deployment_without_the_counting_function_still_gets_the_heartbeat(scribe: Inside) -> None:
    functions = {"mutations/recordHeartbeat": scripted()["mutations/recordHeartbeat"]}
    with Deployment(functions) as deployment:
        done = scribe("send", "hint", "--url", deployment.url)
    assert done.code == 0 and "the deployment counts" in done.err


@pytest.mark.parametrize(
    ("answer", "line", "note"),
    [
        ({"outcome": "duplicate"}, "duplicate: it was recorded before", ""),
        ({"linked": False}, "not linked", ""),
        ({"control": "paused"}, "paused", ""),
        ({"control": "retired"}, "3 stale · retired · http", ""),
        ({"control": "hidden\x1b"}, r"3 stale · hidden\x1b · http", ""),
        ({"healthBefore": "degraded"}, "was degraded until now", ""),
        ({"health": "degraded", "degraded": True, "reason": "missed 2 runs"}, "hint degraded", ""),
        ({"countsCapped": True, "openTasks": 1000.0}, "1000+ open, 3 stale", ""),
        ({"skewMs": 119_000.0}, "hint ok", "clock is 119 s behind the deployment's"),
        ({"skewMs": -3_600_000.0}, "hint ok", "clock is 60 min ahead of the deployment's"),
        ({"skewMs": 60_000.0}, "hint ok", ""),
        ({"health": "ok\x1b[31m\n"}, r"hint ok\x1b[31m\n", ""),
    ],
)
def test_the_line_says_where_the_agent_stands(
    scribe: Inside, answer: dict[str, Any], line: str, note: str
) -> None:
    with Deployment(scripted(answer)) as deployment:
        done = scribe("send", "hint", "--status", "ok", "--url", deployment.url)
    assert done.code == 0
    assert line in done.out and note in done.err and (note != "") == (done.err != "")


def test_the_line_fits_a_terminal_and_does_not_say_twice_what_is_wrong(scribe: Inside) -> None:
    in_three_days = (time.time() + 3 * 86_400) * 1000
    with Deployment(scripted({"health": "failing", "dueAt": in_three_days})) as deployment:
        done = scribe("send", "hint", "--error", "boom", "--url", deployment.url)
    assert done.out.startswith("hint failing · 12 open, 3 stale · due ")
    assert len(done.out.rstrip()) <= 80


def test_unknown_task_words_are_named(scribe: Inside) -> None:
    with Deployment(scripted(counts=COUNTS | {"unknownStatuses": ["someday"]})) as deployment:
        done = scribe("send", "hint", "--url", deployment.url)
    assert "unknown status 'someday' count as open" in done.err


def test_a_text_can_come_from_standard_input(scribe: Inside) -> None:
    with Deployment(scripted()) as deployment:
        done = scribe(
            "send", "hint", "--error", "-", "--url", deployment.url, stdin="x" * 5_000 + "the cause\n"
        )
        error = sent(deployment)["error"]
    assert done.code == 0 and "longer than 4,000 characters" in done.err
    assert error.endswith("the cause") and len(error) == 4_000
    assert scribe("send", "hint", "--error", "-", "--summary", "-").code == 2


@pytest.mark.parametrize("why", ["a file where the folder should be", "a full disk"])
def test_no_log_problem_ever_stops_a_heartbeat(scribe: Inside, why: str) -> None:
    log = "/dev/full" if why == "a full disk" else "cron-schedule.md/x.log"
    with Deployment(scripted()) as deployment:
        done = scribe("send", "hint", "--url", deployment.url, env={"HEARTBEAT_LOG": log})
    assert done.code == 0 and done.out.startswith("hint ok")
    assert done.err.count("\n") == 1 and "cannot be written" in done.err


def test_a_heartbeat_that_was_refused_or_not_delivered_stands_in_the_log(scribe: Inside) -> None:
    with Deployment(scripted(Refusal({"code": "conflict", "message": "no"}))) as deployment:
        refused = scribe("send", "hint", "--url", deployment.url)
    kept = scribe("send", "hint", "--url", deployment.url, "--deadline", "3")
    assert (refused.code, kept.code) == (1, 0)
    first, second = (scribe.cli.home / "logs" / "agent-heartbeat.log").read_text().splitlines()
    assert "outcome=conflict" in first and 'problem="no"' in first
    assert "outcome=spooled cause=refused" in second and 'problem="nothing answers' in second


def test_a_token_that_is_not_accepted_keeps_the_heartbeat_and_says_which_it_was(scribe: Inside) -> None:
    with Deployment(scripted(Refusal({"code": "unauthorized", "message": "no"}))) as deployment:
        kept = scribe("send", "hint", "--url", deployment.url)
    assert (kept.code, kept.out) == (0, "")
    assert kept.err.startswith("heartbeat: hint is spooled, not delivered: no\n")
    assert "HEARTBEAT_TOKEN (fingerprint " in kept.err and "a-token" not in kept.err


def test_strict_makes_a_heartbeat_that_is_only_spooled_a_failure(user: Cli) -> None:
    with Deployment(scripted(), faults=Faults(never_answer=True)) as deployment:
        done = user("send", "hint", "--url", deployment.url, "--deadline", "3", "--strict", "--json")
    error = json.loads(done.out)["error"]
    assert (done.code, error["code"], error["exitCode"]) == (75, "spooled", 75)
    assert (error["reason"]["code"], error["reason"]["cause"]) == ("unreachable", "timeout")
    assert uuid.UUID(error["heartbeatId"]).version == 7


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["send"], "Missing argument 'agent'."),
        (["send", "two words"], "'two words' cannot be the name of an agent"),
        (["send", "hint", "--status", "fine"], "unknown status 'fine'"),
        (["send", "hint", "--status", ""], "unknown status ''"),
        (["send", "hint", "--status", " "], "unknown status ' '"),
        (["send", "hint", "--result", "won"], "unknown result 'won'"),
        (["send", "hint", "--open-tasks", "-1"], "--open-tasks"),
        (["send", "hint", "--open-tasks", "many"], "--open-tasks"),
        (["send", "hint", "--open-tasks", "1"], "one task count was given without the other"),
        (["send", "hint", "extra"], "extra"),
        (["send", "hint", "--deadline", "soon"], "the deadline 'soon' (--deadline)"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_nothing_is_sent(
    scribe: Inside, arguments: list[str], told: str
) -> None:
    with Deployment(scripted()) as deployment:
        done = scribe(*arguments, env={"HEARTBEAT_URL": deployment.url})
        assert deployment.calls == []
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("heartbeat: ") and told in done.err.splitlines()[0]
    assert not (scribe.cli.home / "logs").exists()


def test_without_a_token_nothing_is_sent_and_the_way_to_one_is_told(scribe: Inside) -> None:
    with Deployment(scripted()) as deployment:
        done = scribe("send", "hint", "--url", deployment.url, env={"HEARTBEAT_TOKEN": None})
        assert deployment.requests == []
    assert done.code == 2 and "there is no access token" in done.err and "HEARTBEAT_TOKEN" in done.err
    nowhere = scribe("send", "hint", "--summary", "ran")
    assert nowhere.code == 2 and "no deployment address is set" in nowhere.err
    log = (scribe.cli.home / "logs" / "agent-heartbeat.log").read_text().splitlines()
    assert len(log) == 2 and all(" agent=hint outcome=settings " in line for line in log)
    assert 'problem="there is no access token' in log[0]
    assert log[1].endswith(' summary="ran"'), "quoted although one word needs none"


def test_sending_imports_nothing_it_does_not_need(user: Cli) -> None:
    with Deployment(scripted()) as deployment:
        script = (
            "import sys; from heartbeat_cli import cli;"
            f"assert cli.run(['send', 'hint', '--url', '{deployment.url}', '--transport', 'ws']) == 0;"
            "print(*sys.modules, *{name.partition('.')[0] for name in sys.modules}); sys.stdout.flush();"
            "import os; os._exit(0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=user.environment(),
            cwd=user.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    loaded = set(done.stdout.split())
    assert "convex" in loaded and "pydantic" in loaded
    assert loaded.isdisjoint({"rich", "httpx", "tomllib", "heartbeat_cli.dashboard", "heartbeat_cli.engine"})


def test_standard_input_that_does_not_end_holds_no_heartbeat_back(user: Cli) -> None:
    with Deployment(scripted()) as deployment:
        began = time.monotonic()
        with subprocess.Popen(
            [HEARTBEAT, "send", "hint", "--summary", "-", "--url", deployment.url, "--deadline", "6"],
            env=user.environment(),
            cwd=user.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None and process.stderr is not None
            process.stdin.write(b"so far")
            process.stdin.flush()
            assert process.wait(timeout=30) == 0
            assert time.monotonic() - began < 8
            told = process.stderr.read().decode()
        assert sent(deployment)["summary"] == "so far"
    assert "standard input had not ended after 3 s: what came until then was taken" in told


def test_what_may_have_arrived_is_kept_and_the_next_time_it_is_a_duplicate(scribe: Inside) -> None:
    known: set[str] = set()

    def record(args: Any) -> Any:
        again = args["heartbeat"]["heartbeatId"] in known
        known.add(args["heartbeat"]["heartbeatId"])
        return ANSWER | {"outcome": "duplicate" if again else "recorded"}

    functions = scripted() | {"mutations/recordHeartbeat": record}
    with Deployment(functions, faults=Faults(drop_after_commit=1)) as deployment:
        kept = scribe("send", "hint", "--url", deployment.url)
        told = scribe("spool", "deliver", "--url", deployment.url, "--json")
    assert kept.code == 0 and "it may have taken effect all the same" in kept.err
    assert told.code == 0 and len(known) == 1
    assert (told.data["delivered"], told.data["duplicates"], told.data["waiting"]) == (1, 1, 0)


def test_what_is_neither_delivered_nor_kept_fails_and_says_both(scribe: Inside) -> None:
    scribe.cli.data_dir.mkdir(parents=True)
    (scribe.cli.data_dir / "spool").write_text("a file where the folder should be")
    with Deployment(scripted(), faults=Faults(drop_after_commit=1)) as deployment:
        lost = scribe("send", "hint", "--url", deployment.url)
        delivered = scribe("send", "hint", "--url", deployment.url)
    assert (lost.code, delivered.code) == (1, 0)
    assert "hint is neither delivered nor kept" in lost.err and "the spool" in lost.err
    assert "to send it again makes a second heartbeat, which does no harm" in lost.err
    assert delivered.out.startswith("hint ok") and "could not be kept first" in delivered.err


@pytest.mark.parametrize("answer", [{"outcome": "perhaps"}])
def test_an_answer_that_does_not_say_that_it_is_recorded_leaves_it_in_the_spool(
    scribe: Inside, answer: dict[str, Any]
) -> None:
    with Deployment(scripted(answer)) as deployment:
        kept = scribe("send", "hint", "--url", deployment.url, "--json")
        assert scribe("spool", "list", "--json").data["waiting"] == 1
    assert (kept.code, kept.data["outcome"]) == (0, "spooled")
    assert "answered something else than that it is recorded" in kept.data["reason"]["message"]


def test_a_system_without_file_locks_delivers_all_the_same(user: Cli) -> None:
    with Deployment(scripted()) as deployment:
        script = (
            "import sys; sys.modules['fcntl'] = None; from heartbeat_cli import cli;"
            f"sys.exit(cli.run(['send', 'hint', '--url', '{deployment.url}', '--transport', 'http']))"
        )
        done = user("-c", script, program=(sys.executable,))
    assert done.code == 0 and done.out.startswith("hint ok") and done.err == ""
