"""What `heartbeat doctor` says of cron's world: schedule, crontab, daemon, commands; and of the agents."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crond
from conftest import (
    HEARTBEAT,
    REPOSITORY,
    STANDINS,
    TABLE,
    Inside,
    Live,
)
from doctors import another_token, examine, kept, typed
from heartbeat_cli import tokens
from heartbeat_cli.times import MINUTE_MS


@crond.NEEDED
def test_no_cron_runs(host: Inside, cron_world: crond.World) -> None:
    """In a world of its own, where no cron of this machine is seen."""
    alone = (*cron_world.words(), "unshare", "--pid", "--fork", "--mount-proc", str(HEARTBEAT))
    env = {"HEARTBEAT_HOME": str(host.cli.home)}
    message, fix = examine(host.cli, program=alone, env=env).trouble("cron daemon")
    assert (message, fix) == ("cron does not run, so nothing fires", "sudo service cron start")


def test_a_crontab_without_our_lines_is_mended_by_what_it_says(host: Inside) -> None:
    message, fix = examine(host).trouble("crontab")
    assert message == f"the crontab has no lines of {host.cli.home}: nothing runs hint, torv, rams"
    assert fix == "heartbeat cron install" and typed(host.cli, f"{fix} --yes").code == 0
    assert examine(host).states("crontab") == {"ok"}


CRONTAB = "crontab-of-this-home"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda text: text.replace("15 8 * * *", "15 9 * * *"),
            "runs torv at 15 9 * * *; the table says 15 8",
        ),
        (lambda text: text.replace("send torv", "send torvv"), "has another command for torv"),
        (lambda text: f"@daily {HEARTBEAT} send hint\n{text}", "line 1 of the crontab reports for hint too"),
        (lambda text: text.replace("# heartbeat: end", "# heartbeat: and"), "# heartbeat: begin"),
    ],
    ids=["another time", "another command", "a second line", "a damaged block"],
)
def test_a_crontab_that_was_changed(host: Inside, edit: Callable[[str], str], said: str) -> None:
    assert host("cron", "install", "--yes").code == 0
    crontab = host.cli.folder / CRONTAB
    crontab.write_text(edit(crontab.read_text()))
    message, fix = examine(host).trouble("crontab")
    assert said in message and (fix.startswith("heartbeat cron install") or "crontab -e" in fix)


def test_a_table_that_was_changed_after_the_crontab_was_written(host: Inside) -> None:
    assert host("cron", "install", "--yes").code == 0
    host.cli.write_schedule(TABLE.replace("15 8 * * *", "15 9 * * *"))
    message, fix = examine(host).trouble("crontab")
    assert "torv" in message and typed(host.cli, f"{fix} --yes").code == 0
    assert examine(host).states("crontab") == {"ok"}


def test_a_user_who_may_have_no_crontab(host: Inside) -> None:
    (host.cli.folder / "crontab-refuses").touch()
    message, _ = examine(host).trouble("crontab")
    assert "not allowed to use this program" in message


def test_a_crontab_that_sets_what_our_lines_do_not_expect(host: Inside) -> None:
    (host.cli.folder / CRONTAB).write_text("CRON_TZ=Europe/Berlin\n")
    assert host("cron", "install", "--yes").code == 0
    message, fix = examine(host).trouble("crontab", "warning")
    assert "CRON_TZ" in message and fix == "crontab -e"


def test_no_folder_for_what_cron_says(host: Inside) -> None:
    assert host("cron", "install", "--yes").code == 0
    shutil.rmtree(host.cli.home / "logs")
    message, fix = examine(host).trouble("crontab")
    assert "no line of ours runs" in message and typed(host.cli, fix).code == 0
    assert examine(host).states("crontab") == {"ok"}


def test_agents_that_the_deployment_does_not_watch_as_the_table_says(host: Inside) -> None:
    assert host("apply", "--yes").code == 0
    assert examine(host).states("registered") == {"ok"}
    host.cli.write_schedule(TABLE.replace("15 8 * * *", "15 9 * * *") + "| ines | every 1h | | | |\n")
    found = examine(host)
    said = [finding["message"] for finding in found.of("registered")]
    assert said == [
        "the deployment expects torv at 15 8 * * * UTC; the table says 15 9 * * * UTC",
        "the deployment does not watch ines",
    ]
    sender = {"HEARTBEAT_TOKEN": another_token(host)}
    assert examine(host, env=sender).trouble("registered")[0] == "the deployment does not watch ines"
    assert typed(host.cli, f"{found.of('registered')[0]['fix']} --yes").code == 0
    assert examine(host).states("registered") == examine(host, env=sender).states("registered") == {"ok"}


def test_a_schedule_that_cannot_be_read(host: Inside) -> None:
    host.cli.write_schedule(TABLE.replace("| torv  |", "| Tõrv! |").replace("every 6h", "every blue"))
    found = examine(host)
    said = [finding["message"] for finding in found.of("schedule")]
    assert [text.partition(":")[0] for text in said] == ["line 6 of the schedule", "line 7 of the schedule"]
    assert {"crontab", "registered", "commands"} <= found.unchecked
    host.cli.write_schedule("# Nobody\n\n| agent | schedule |\n|---|---|\n")
    assert "expected at least one agent" in examine(host).trouble("schedule")[0]
    host.cli.write_schedule(TABLE).unlink()
    assert "there is no" in examine(host).trouble("schedule", "warning")[0]


def test_times_that_cron_cannot_keep(host: Inside) -> None:
    host.cli.write_schedule(TABLE.replace("every 6h", "every 7h"))
    message, _ = examine(host).trouble("crontab")
    assert "does not divide a day" in message
    host.cli.write_schedule(TABLE.replace("15 8 * * *", "99 8 * * *"))
    assert "99" in examine(host).trouble("crontab")[0]


def test_a_table_whose_agents_are_all_elsewhere(host: Inside) -> None:
    host.cli.write_schedule("| agent | schedule | host |\n|---|---|---|\n| hint | every 6h | box |\n")
    message, fix = examine(host, env={"HEARTBEAT_HOST": "other"}).trouble("schedule", "warning")
    assert "is on this host, other: they are on box" in message
    assert fix.startswith("export HEARTBEAT_HOST=box")
    assert examine(host, env={"HEARTBEAT_HOST": "box"}).states("schedule") == {"ok"}


def test_a_token_that_only_this_shell_has(host: Inside) -> None:
    file = tokens.path(host.cli.config_dir)
    env = {"HEARTBEAT_TOKEN": kept(host.cli, host.cli.env["HEARTBEAT_URL"])}
    file.unlink()
    message, fix = examine(host, env=env).trouble("cron settings")
    assert message == "cron will have no token: ours is from HEARTBEAT_TOKEN, which is not there"
    assert typed(host.cli, fix, env).code == 0
    assert examine(host, env=env).states("cron settings") == {"ok"}
    other = {"HEARTBEAT_TOKEN": another_token(host)}
    assert "cron uses the token" in examine(host, env=other).trouble("cron settings", "warning")[0]


def test_a_program_that_starts_only_from_this_shell(host: Inside, tmp_path: Path) -> None:
    """Its packages are found through a variable that cron does not have."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    packages = Path(pytest.__file__).parent.parent
    program = (str(tmp_path / "venv" / "bin" / "python"), "-m", "heartbeat_cli")
    env = {"PYTHONPATH": f"{REPOSITORY / 'src'}:{packages}"}
    message, fix = examine(host.cli, program=program, env=env).trouble("program")
    assert "does not start with cron's environment: exit 1" in message and "No module named" in message
    assert "heartbeat cron install" in fix
    assert examine(host).states("program") == {"ok"}


def test_commands_that_cron_does_not_find(host: Inside) -> None:
    tools = host.cli.folder / "tools"
    tools.mkdir()
    for name in ("npx-of-mine", "unrunnable"):
        (tools / name).write_text("#!/bin/sh\n")
    (tools / "npx-of-mine").chmod(0o755)

    def table(*commands: str) -> None:
        rows = "".join(f"| agent{n} | every 6h | {each} |\n" for n, each in enumerate(commands))
        host.cli.write_schedule(f"| agent | schedule | command |\n|---|---|---|\n{rows}")

    table(
        "cd /tmp && X=1 npx-of-mine --now",
        "sh /gone/cache/agent.sh",
        f"{tools}/unrunnable; /gone/too",
        "echo 'never ends",
        "~/gone-from-home && echo $(date) $HOME/what",
        "if true; then echo fine \\| cat; fi > /dev/null # and nosuch",
    )
    path = {"PATH": f"{STANDINS}:{tools}:{os.environ['PATH']}"}
    found = [(each["message"], each["fix"]) for each in examine(host, env=path).of("commands")]
    assert [message for message, _ in found] == [
        "agent0: npx-of-mine is not on cron's PATH (/usr/bin:/bin)",
        "agent1: /gone/cache/agent.sh is not there",
        f"agent2: {tools}/unrunnable may not be run",
        "agent2: /gone/too is not there",
        "agent3: its command has a quote that does not end",
        f"agent4: {pwd.getpwuid(os.getuid()).pw_dir}/gone-from-home is not there",
    ]
    assert found[0][1].endswith(f"write {tools}/npx-of-mine for npx-of-mine")
    (host.cli.folder / CRONTAB).write_text(f"PATH={tools}:/usr/bin:/bin\n")
    table("npx-of-mine --now")
    assert host("cron", "install", "--yes").code == 0
    assert examine(host).states("commands") == {"ok"}, "the crontab may set its PATH"


def test_a_shell_that_is_not_there(host: Inside) -> None:
    (host.cli.folder / CRONTAB).write_text("SHELL=/bin/nosuch\n")
    host.cli.write_schedule("| agent | schedule | command |\n|---|---|---|\n| well | every 6h | true |\n")
    assert host("cron", "install", "--yes").code == 0
    message, fix = examine(host).trouble("commands")
    assert "/bin/nosuch, which is not there" in message and fix == "crontab -e"


def test_a_column_that_nobody_reads_and_a_log_that_grows(host: Inside) -> None:
    host.cli.write_schedule("| agent | schedule | colour |\n|---|---|---|\n| well | every 6h | red |\n")
    assert host("cron", "install", "--yes").code == 0
    log = host.cli.home / "logs" / "cron.log"
    log.touch()
    os.truncate(log, 11_000_000)
    found = examine(host)
    assert "column 'colour'" in found.trouble("schedule", "warning")[0]
    message, fix = found.trouble("crontab", "warning")
    assert "has 11 MB" in message and fix == f"tail {log}; : > {log}"


def test_hosts_that_report_for_one_agent(host: Inside) -> None:
    host.cli.write_schedule("| agent | schedule |\n|---|---|\n| twice | every 6h |\n")
    assert host("apply", "--yes").code == 0
    for name in ("box", "other"):
        assert host("send", "twice", env={"HEARTBEAT_HOST": name}).code == 0
    message, fix = examine(host).trouble("hosts", "warning")
    assert host("agents", "retire", "twice").code == 0
    assert message.startswith("twice was reported for by") and "box" in message and "other" in message
    assert "column host" in fix


def test_agents_that_are_not_well(live: Live) -> None:
    live.move_clock(-10 * MINUTE_MS)

    def report(row: str, *options: str) -> list[dict[str, Any]]:
        live.cli.write_schedule(f"| agent | schedule | act within |\n|---|---|---|\n{row}")
        assert live.inside("apply", "--yes").code == 0
        for line in row.splitlines():
            assert live.inside("send", line.split()[1], *options).code == 0
        return examine(live.inside).of("agents")

    [idle] = report("| idle | every 6h | 1m |\n", "--result", "noop")
    assert re.match(r"idle is on time, and has done nothing for (9|10) min", idle["message"])
    assert idle["fix"] == "heartbeat agents show idle"
    found = report("".join(f"| sick{number} | every 6h | |\n" for number in range(7)), "--error", "no disk")
    assert {each["message"].partition(" for ")[0] for each in found[:5]} <= {
        "idle is on time, and has done nothing",
        *(f"sick{number} is failing" for number in range(7)),
    }
    assert found[5]["message"].startswith("3 more agents are not well (8 agents: 7 failing")
