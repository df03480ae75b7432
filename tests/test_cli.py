"""The command line itself: exit codes, the JSON envelope, help, and everything that is typed wrongly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import HEARTBEAT, REPOSITORY, TABLE, Cli, Inside, Ran
from deployment import Deployment, Faults, Refusal
from heartbeat_cli import __version__, cli, errors
from test_send import scripted

NOWHERE = "http://127.0.0.1:9"
FAILING_ROW: dict[str, Any] = {"agent": "hint", "health": "failing", "control": "active", "status": "error"}


def dashboard(row: dict[str, Any]) -> dict[str, Any]:
    page = {"agents": [row], "totals": {}, "isDone": True, "continueCursor": ""}
    return {
        "queries/getAgentDashboard": lambda args: page,
        "queries/getMonitorStatus": lambda args: {"contractVersion": 1.0, "sweepEveryMs": 60000.0},
    }


def refused(args: Any) -> Any:
    raise Refusal({"code": "unauthorized", "message": "This token may not do that."})


def test_each_outcome_has_its_exit_code(inside: Inside) -> None:
    inside.cli.env |= {"HEARTBEAT_TOKEN": "a-token", "HEARTBEAT_DEADLINE": "10"}
    with Deployment(dashboard(FAILING_ROW | {"health": "ok", "status": "ok"})) as well:
        assert inside("dashboard", "--check", "--url", well.url).code == 0
    with Deployment({"queries/getAgentDashboard": refused}) as refusing:
        assert inside("dashboard", "--url", refusing.url).code == 1
    assert inside("dashboard", "--url", "nonsense").code == 2
    assert inside("dashboard", "--no-such-flag").code == 2
    with Deployment(dashboard(FAILING_ROW)) as ill:
        assert inside("dashboard", "--check", "--url", ill.url).code == 3
        assert inside("dashboard", "--url", ill.url).code == 0
    assert inside("dashboard", "--url", NOWHERE).code == 75


def test_the_exit_codes_and_words_of_the_errors_are_these() -> None:
    table: dict[type[errors.HeartbeatError], tuple[int, str]] = {
        errors.UsageProblem: (2, "usage"),
        errors.SettingsProblem: (2, "settings"),
        errors.ScheduleProblem: (2, "schedule"),
        errors.Refused: (1, "refused"),
        errors.Unreachable: (75, "unreachable"),
    }
    assert {kind: (kind.exit_code, kind.code) for kind in table} == table


def test_ctrl_c_ends_it_with_130_and_no_traceback(cli: Cli) -> None:
    with Deployment({}, faults=Faults(never_answer=True)) as deployment:
        process = subprocess.Popen(
            [HEARTBEAT, "dashboard", "--url", deployment.url, "--deadline", "30", "--transport", "http"],
            env=cli.environment({"HEARTBEAT_TOKEN": "a-token"}),
            stderr=subprocess.PIPE,
            text=True,
        )
        while not deployment.requests and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error(cli: Cli) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [HEARTBEAT, "config"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=cli.environment(),
        text=True,
        check=False,
    )
    os.close(write)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_the_version_is_told_before_anything_heavy_is_imported(cli: Cli) -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert __version__ == pyproject["project"]["version"]
    assert cli("--version").out == f"heartbeat {__version__}\n"
    assert (
        cli("--version", program=(sys.executable, "-m", "heartbeat_cli")).out == f"heartbeat {__version__}\n"
    )
    times = cli("--version", program=(sys.executable, "-X", "importtime", "-m", "heartbeat_cli")).err
    assert "heartbeat_cli" in times and not any(name in times for name in ("typer", "pydantic", "convex\n"))


def test_help_names_every_command_and_each_has_its_own(inside: Inside) -> None:
    done = inside("--help")
    assert done.code == 0 and done.err == ""
    for name in cli.COMMANDS:
        assert f"\n  {name} " in done.out
        assert inside(name, "--help").code == 0
    assert all(len(line) <= 80 for line in done.out.splitlines())


COMMON = ("--url", "--home", "--deadline", "--transport")
OPTIONS = {  # of each command, besides --json
    "send, dashboard, apply, cron check, config": COMMON,
    "agents list, agents show, agents pause, agents resume, agents retire": COMMON,
    "tasks list, tasks add, tasks done": COMMON,
    "token create, token list, token rotate, token revoke": COMMON,
    "token save, cron print, cron install": ("--url", "--home"),
    "local guide, cron remove": ("--home",),
    "local up, local down, local status, local logs, functions foreign, functions add": (),
    "functions status, functions update, functions remove": (),
}


@pytest.mark.parametrize(
    ("command", "known"),
    [(name, known) for names, known in OPTIONS.items() for name in names.split(", ")],
)
def test_every_command_knows_the_common_options_that_mean_something_to_it(
    inside: Inside, command: str, known: tuple[str, ...]
) -> None:
    told = inside(*command.split(), "--help").out
    assert "--json" in told
    assert {option for option in COMMON if option in told} == set(known)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing command."),
        (["sedn"], "No such command 'sedn'. Did you mean 'send'?"),
        (["agents"], "Missing command."),
        (["agents", "lst"], "No such command 'lst'"),
        (["dashboard", "--wat"], "No such option: --wat"),
        (["dashboard", "extra"], "extra"),
        (["dashboard", "--health"], "--health"),
        (["token", "revoke"], "Missing argument"),
    ],
)
def test_what_is_typed_wrongly_is_one_sentence_and_where_to_look(
    inside: Inside, arguments: list[str], told: str
) -> None:
    done = inside(*arguments)
    assert (done.code, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert first.startswith("heartbeat: ") and told in first
    assert second.startswith("  see heartbeat") and second.endswith("--help")


@pytest.mark.parametrize(
    ("arguments", "command", "code"),
    [
        (["dashboard", "--json", "--wat"], "dashboard", "usage"),
        (["send", "--json"], "send", "usage"),
        (["apply", "--json", "--url", NOWHERE], "apply", "usage"),
        (["dashboard", "--json", "--url", "x"], "dashboard", "settings"),
        (["agents", "list", "--json"], "agents list", "settings"),
    ],
)
def test_with_json_every_failure_is_one_envelope(
    inside: Inside, arguments: list[str], command: str, code: str
) -> None:
    done = inside(*arguments)
    whole = json.loads(done.out)
    assert set(whole) == {"schema", "ok", "command", "deployment", "error"}
    assert set(whole["error"]) == {"code", "message", "hint", "exitCode"}
    assert (whole["schema"], whole["ok"], whole["command"], whole["deployment"]) == (1, False, command, None)
    assert (whole["error"]["code"], whole["error"]["exitCode"], done.code) == (code, 2, 2)


def test_every_answer_names_the_deployment_it_came_from(inside: Inside) -> None:
    inside.cli.env |= {"HEARTBEAT_TOKEN": "a-token"}
    with Deployment(dashboard(FAILING_ROW)) as deployment:
        assert inside("dashboard", "--url", deployment.url).out.endswith(f"\n{deployment.url}\n")
        assert inside("agents", "list", "--url", deployment.url).err == f"{deployment.url}\n"
        whole = json.loads(inside("agents", "list", "--url", deployment.url, "--json").out)
        assert (whole["deployment"], whole["command"]) == (deployment.url, "agents list")
    lost = inside("agents", "list", "--url", deployment.url)
    assert lost.code == 75 and deployment.url in lost.err


def test_config_lists_each_setting_with_its_source_and_no_secret(inside: Inside) -> None:
    inside.cli.write_schedule(TABLE)
    env = {"HEARTBEAT_TOKEN": "a-secret-token", "HEARTBEAT_URL": "https://a.convex.cloud/"}
    done = inside("config", "--deadline", "5", env=env)
    assert done.code == 0 and "a-secret-token" not in done.out + done.err
    rows = {line.split()[0]: line for line in done.out.splitlines() if line}
    assert "https://a.convex.cloud  " in rows["url"] and rows["url"].endswith("HEARTBEAT_URL")
    assert rows["deadline"].split() == ["deadline", "5", "--deadline"]
    assert "fingerprint" in rows["token"] and rows["token"].endswith("HEARTBEAT_TOKEN")
    data = inside("config", "--json", env=env).data
    assert data["settings"]["transport"] == {"value": "http", "from": "HEARTBEAT_TRANSPORT"}
    assert data["settings"]["url"] == {"value": "https://a.convex.cloud", "from": "HEARTBEAT_URL"}
    without = inside("config")
    assert without.code == 0 and "no deployment: no deployment address is set" in without.out
    assert inside("config", env={"HEARTBEAT_DEADLINE": "soon"}).code == 2


def test_warnings_about_settings_go_to_stderr_and_stop_nothing(inside: Inside) -> None:
    inside.cli.config_dir.mkdir(parents=True)
    (inside.cli.config_dir / "config.toml").write_text("colour = true\n")
    done = inside("config", "--json")
    assert done.code == 0 and json.loads(done.out)["ok"]
    assert "unknown setting 'colour'" in done.err


def test_cron_print_gives_lines_that_stand_alone(cli: Cli) -> None:
    cli.write_schedule(TABLE)
    env = {"HEARTBEAT_URL": "https://a.convex.cloud", "HEARTBEAT_TOKEN": "a-secret-token"}
    done = cli("cron", "print", env=env)
    assert done.code == 0 and "a-secret-token" not in done.out + done.err
    assert "heartbeat token save" in done.err
    jobs = [line for line in done.out.splitlines() if " send " in line]
    assert len(jobs) == 3
    for agent, line in zip(("hint", "torv", "rams"), jobs, strict=True):
        assert f"HEARTBEAT_HOME={cli.home} XDG_CONFIG_HOME={cli.folder}/config" in line
        assert f" {HEARTBEAT} send {agent} --quiet >>{cli.home}/logs/cron.log 2>&1" in line
    assert jobs[2].removeprefix("# ").startswith("0 */6 * * * HEARTBEAT_HOME=")
    assert (cli.home / "logs").is_dir()


def test_cron_print_writes_every_setting_of_this_shell_into_the_line_but_the_token(inside: Inside) -> None:
    inside.cli.write_schedule(TABLE)
    env = {
        "HEARTBEAT_HOST": "box 1",
        "HEARTBEAT_LOG": "elsewhere/hb.log",
        "HEARTBEAT_TRANSPORT": "http",
        "HEARTBEAT_DEADLINE": "20",
        "HEARTBEAT_TOKEN": "a-secret-token",
    }
    done = inside("cron", "print", "--url", "https://a.convex.cloud", env=env)
    [line] = [line for line in done.out.splitlines() if " send hint " in line]
    for setting in (
        "HEARTBEAT_HOST='box 1'",
        f"HEARTBEAT_LOG={inside.cli.home}/elsewhere/hb.log",
        "HEARTBEAT_TRANSPORT=http",
        "HEARTBEAT_DEADLINE=20",
        "HEARTBEAT_URL=https://a.convex.cloud",
    ):
        assert f" {setting} " in line
    assert "a-secret-token" not in done.out + done.err
    assert "printenv HEARTBEAT_TOKEN | heartbeat token save --url https://a.convex.cloud" in done.err
    inside("token", "save", "--url", "https://a.convex.cloud", stdin="kept")
    assert (
        "cron uses the one kept in" in inside("cron", "print", "--url", "https://a.convex.cloud", env=env).err
    )
    plain = inside("cron", "print", env={"HEARTBEAT_TRANSPORT": None}).out
    assert "HEARTBEAT_HOST" not in plain and "HEARTBEAT_DEADLINE" not in plain


def test_a_row_that_no_crontab_can_keep_is_refused_with_what_to_write_instead(inside: Inside) -> None:
    page = inside.cli.write_schedule(TABLE.replace("every 6h", "every 7h"))
    done = inside("cron", "print")
    assert (done.code, done.out) == (2, "")
    assert f"heartbeat: the crontab cannot keep {page}, line 7: 'every 7 h' does not divide a day" in done.err
    assert "write every 6h or every 8h" in done.err


def test_functions_that_a_push_would_delete_are_named(inside: Inside) -> None:
    ours = {"identifier": "mutations/recordHeartbeat.js:default", "functionType": "Mutation"}
    theirs = {"identifier": "messages.js:list", "functionType": "Query"}
    folder = str(REPOSITORY / "convex")
    clean = inside("functions", "foreign", folder, stdin=json.dumps({"functions": [ours]}))
    assert clean.code == 0
    foreign = inside("functions", "foreign", folder, stdin=json.dumps({"functions": [ours, theirs]}))
    assert foreign.code == 1
    assert "  messages:list" in foreign.err and "a push would delete" in foreign.err
    assert inside("functions", "foreign", folder, stdin="not JSON").code == 2


def test_a_bug_shows_its_traceback_and_exits_70(cli: Cli) -> None:
    program = "from heartbeat_cli import cli, crontab_lines; crontab_lines.entries = None; cli.main()"
    cli.write_schedule(TABLE)
    done = cli("cron", "print", program=(sys.executable, "-c", program))
    assert (done.code, done.out) == (70, "")
    assert done.err.startswith("Traceback") and done.err.endswith("'NoneType' object is not callable\n")


def shell(cli: Cli, line: str) -> Ran:
    """What a shell says of a line in which `$HB` is the command, in a home folder."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env=cli.environment({"HB": str(HEARTBEAT)}),
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def ill(cli: Cli) -> Iterator[Cli]:
    """A user whose one agent is failing, and whose config file deserves a warning."""
    cli.config_dir.mkdir(parents=True)
    (cli.config_dir / "config.toml").write_text("colour = true\n")
    with Deployment({**dashboard(FAILING_ROW), **scripted()}) as deployment:
        cli.env |= {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token"}
        yield cli


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$HB send hint >/dev/full", 0),
        ("$HB send hint --json >/dev/full 2>/dev/full", 0),
        ("$HB dashboard --check >/dev/full", 3),
        ("$HB dashboard --check 2>/dev/full >/dev/null", 3),
        ("$HB dashboard --check | true", 3),
        ("$HB dashboard --json | head -c 10", 0),
        ("$HB dashboard --wat 2>/dev/full", 2),
        ("$HB send hint >&-", 0),
        ("$HB send hint >&- 2>&- <&-", 0),
        ("$HB dashboard --check >&-", 3),
        ("$HB send hint --summary - <&-", 0),
        ("$HB token save <&-", 2),
        *(
            pytest.param(line, code, marks=pytest.mark.long)
            for line, code in (
                ("$HB send hint --quiet >/dev/full 2>&1", 0),
                ("$HB dashboard --check | head -1", 3),
                ("$HB send hint | true", 0),
                ("$HB agents list >&-", 0),
                ("$HB apply <&-", 2),
            )
        ),
    ],
)
def test_whoever_reads_or_does_not_read_the_command_goes_on_and_exits_as_ever(
    ill: Cli, line: str, code: int
) -> None:
    done = shell(ill, line)
    assert done.code == code, done
    assert "Traceback" not in done.err
    if ">/dev/full" in line and "2>" not in line:
        assert "heartbeat: the answer could not be written: No space left on device\n" in done.err
