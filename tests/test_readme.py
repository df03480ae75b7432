"""The README is executed: its session is what the program prints, its commands, flags and verbs exist."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from socket import gethostname

from conftest import REPOSITORY, Inside, Live, Newcomer
from heartbeat_cli import tokens
from heartbeat_cli.heartbeat import heartbeat_id

README = REPOSITORY / "README.md"
SESSION = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
CRON = re.compile(r"(?<=has a row like this:\n\n```console\n).*?(?=```)", re.DOTALL)
LATER = re.compile(r"(?<=with nobody paying attention:\n\n```\n).*?(?=```)", re.DOTALL)
HOUR_MS = 3_600_000
# what differs from one run to the next: instants, ages, process ids, sizes
WHEN = (
    r"(?:(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?\d\d:\d\d(?: UTC)?|in \d+ \w+|\d+ \w+ ago|tomorrow|today|now)"
)
EVERY = {"hint": "6h", "torv": "1d", "rams": "1d", "kami": "1d"}
# whether a cron is installed is the machine's, and it alone
DAEMON = re.compile(r"^problem  cron daemon .*\n +-> .*\n|^\d+ problems?, .*\n", re.MULTILINE)
COMMANDS = re.compile(r"`(heartbeat [^`]+)`")


def check(found: re.Pattern[str], real: str) -> None:
    """Hold the README's block to what was really printed, or write it there (`make readme`)."""
    text = README.read_text(encoding="utf-8")
    block = found.search(text)
    assert block, f"the README has lost its block {found.pattern}"
    if os.environ.get("UPDATE_README"):
        README.write_text(text[: block.start()] + real + text[block.end() :], encoding="utf-8")
    else:
        assert plain(block[0]) == plain(real)


def plain(session: str) -> list[str]:
    """The lines of a session without what differs from run to run; columns are as wide as their cells."""
    session = re.sub(WHEN, "<when>", DAEMON.sub("", session))
    session = re.sub(r"\n {12,}(?=\S)", " ", session)  # lines are broken where a path is long
    session = re.sub(r"process \d+", "process <pid>", session)
    session = re.sub(r"\b\d+ s\b", "<seconds>", session)
    return [re.sub(r" +", " ", line) for line in session.splitlines()]


def test_the_session_is_what_the_program_prints(newcomer: Newcomer) -> None:
    session = SESSION.search(README.read_text(encoding="utf-8"))
    assert session
    commands = [line[2:] for line in session[0].splitlines() if line.startswith("$ ")]
    check(SESSION, "".join(f"$ {command}\n{newcomer.type(command)}" for command in commands))


def test_apply_writes_the_crontab_and_the_doctor_finds_what_is_wrong_as_shown(newcomer: Newcomer) -> None:
    block = CRON.search(README.read_text(encoding="utf-8"))
    assert block
    home = Path(newcomer.env["HOME"])
    (home / "fleet").mkdir()
    table = re.search(r"(?<=cat ~/fleet/cron-schedule.md\n)(?:\|.*\n)+", block[0])
    assert table
    (home / "fleet" / "cron-schedule.md").write_text(table[0], encoding="utf-8")
    del newcomer.env["HEARTBEAT_LOG"]
    newcomer.type("heartbeat local up")
    user = pwd.getpwuid(os.getuid())

    def typed(command: str) -> str:
        shown = newcomer.type(command)
        # cron starts jobs in the home of the user's account, which the home of a test is not
        for name, folder in (("XDG_CONFIG_HOME", "~/.config"), ("XDG_DATA_HOME", "~/.local/share")):
            shown = shown.replace(f"{name}={folder} ", "").replace(f"-u {name} ", "")
        shown = shown.replace("/usr/bin/env /bin/sh", "/bin/sh").replace(f"{user.pw_dir}/", "~/")
        return shown.replace(f"crontab of {user.pw_name} on {gethostname()}", "crontab of ada on box")

    commands = [line[2:] for line in block[0].splitlines() if line.startswith("$ ")]
    check(CRON, "".join(f"$ {command}\n{typed(command)}" for command in commands))


def test_the_neglected_fleet_looks_as_shown(live: Live) -> None:
    now = int(live.clock.read_text())

    def send(agent: str, **said: object) -> None:
        at = int(live.clock.read_text())
        token = tokens.stored(live.cli.config_dir, live.url, [])
        heartbeat = {"heartbeatId": heartbeat_id(at, os.urandom(10)), "agent": agent, "sentAt": at}
        args = {
            "token": token and token.text,
            "heartbeat": {**heartbeat, "deliveredAt": at, "openTasks": 0, "staleTasks": 0, **said},
        }
        live.admin("mutations/recordHeartbeat", args)

    rows = "\n".join(f"| {agent} | every {every} | audit |" for agent, every in EVERY.items())
    live.cli.write_schedule(f"| agent | schedule | summary |\n|---|---|---|\n{rows}\n")
    live.clock.write_text(str(now - 20 * HOUR_MS))
    assert live.cli("apply", "--yes").code == 0
    send("hint", status="working", summary="3 files drifted", openTasks=12, staleTasks=3)
    live.clock.write_text(str(now - 9 * HOUR_MS))
    send("kami", status="blocked", summary="needs the new style guide", openTasks=4)
    live.clock.write_text(str(now - 4 * HOUR_MS))
    send("torv", status="error", error="the review queue did not answer", openTasks=1)
    for _ in range(6):
        send("rams", status="ok", result="noop")
        live.move_clock(1)
    # the sweep was away in between, so that it holds back for ten minutes before it flips
    for minutes_ago in (11, 7, 3, 0):
        live.clock.write_text(str(now - minutes_ago * 60_000))
        live.admin("heartbeat/maintenance:sweep", {})
    check(LATER, live.cli("dashboard").out.replace(live.url, "http://127.0.0.1:7210 (local)"))


def test_every_command_and_flag_of_the_readme_exists(inside: Inside) -> None:
    helps: dict[str, str] = {}
    for command in set(COMMANDS.findall(README.read_text(encoding="utf-8"))):
        words = command.split()[1:]
        path = [words.pop(0)]
        if path[0] in {"agents", "tasks", "token", "cron", "local", "functions"} and words:
            path.append(words.pop(0))
        name = " ".join(path)
        if name not in helps:
            done = inside(*path, "--help")
            assert done.code == 0, f"there is no `heartbeat {name}`: {done.err}"
            helps[name] = done.out
        for flag in (word for word in words if word.startswith("--")):
            assert flag in helps[name], f"`{command}`: `heartbeat {name}` has no {flag}"
    assert helps


def test_every_verb_of_the_readme_exists() -> None:
    verbs = re.findall(
        r"^([a-z-]+):.*##", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    named = set(re.findall(r"(?:^    |`)make ([a-z]+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= set(verbs)
