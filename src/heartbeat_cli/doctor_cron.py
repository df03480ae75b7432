"""What `heartbeat doctor` looks at of cron's world: the schedule, the crontab, the daemon, and how this
program fares with nothing but what cron gives it. (doctor_commands.py: how the agents' own commands do.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from heartbeat_cli import cli, crontab, crontab_check, crontab_lines, crontab_text, schedule, tokens
from heartbeat_cli.config import TOKEN_VARIABLE, Flags, Settings, load
from heartbeat_cli.crontab_job import CRON_LOG
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.doctor_finding import Checks, Finding, NotLooked, Shared, ok, problem, warning, word
from heartbeat_cli.doctor_fleet import Watched
from heartbeat_cli.errors import CrontabProblem, ScheduleProblem, UsageProblem

CRON_PATH = "/usr/bin:/bin"  # what Debian's cron, and most others, give
DAEMONS = ("cron", "crond", "fcron", "dcron")
SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"  # where daemons are, whatever our PATH
LOG_BYTES_MAX = 10_000_000  # of what our lines say under cron, which is nothing while all is well
ASKED_ABOUT = 20  # agents, one call each, where the dashboard may not be read
BACKEND = "backend"  # the kind of difference that is not the crontab's
INSTALL = "make setup in the clone, or install the wheel again; then heartbeat cron install"
ENDS_WITHIN_S = 0.5  # before the deadline: time to tell that it did not


class Cron:
    """This host's cron, and the schedule that it is to keep."""

    def __init__(
        self,
        settings: Settings,
        deadline: Deadline,
        now_ms: Callable[[], int],
        page: Shared[schedule.Schedule],
    ) -> None:
        self.settings = settings
        self.deadline = deadline
        self.now_ms = now_ms
        self.page = page
        self.text = Shared(lambda: crontab.read(settings.inherited, within_s=self._left_s()))
        self.host = Shared(lambda: crontab_lines.host_of(settings, self.text.needed()))
        self.environment = Shared(self._environment)
        self.own_settings = Shared(self._own_settings)

    def rows(self) -> list[schedule.Row]:
        """The rows that concern this host. Raises `NotLooked` where the schedule cannot be read."""
        return crontab_lines.concerned(self.page.needed().rows, self.settings.host)

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """What a command does with nothing but what cron gives. Raises OSError, also when it does not end."""
        environment = self.environment.needed()
        try:
            return subprocess.run(
                command,
                env=environment,
                cwd=environment["HOME"] if os.path.isdir(environment["HOME"]) else "/",  # noqa: PTH112 - raises
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._left_s(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(errno.ETIMEDOUT, "it does not end", command[0]) from None

    def _left_s(self) -> float:
        """How long a process may take, so that nothing of ours is left behind when we leave."""
        return max(ENDS_WITHIN_S, self.deadline.left() - ENDS_WITHIN_S)

    def _environment(self) -> Mapping[str, str]:
        """What a job of ours is given: by cron itself, and by the lines above ours in the crontab."""
        given = crontab_environment(self.settings)
        with contextlib.suppress(NotLooked, CrontabProblem):
            text = self.text.needed() or b""
            given |= crontab_text.variables(text, crontab_text.block_begins(text, self.host.needed().block))
        return given

    def _own_settings(self) -> Settings:
        """The settings that our lines have under cron. Raises `SettingsProblem`."""
        given = {**self.environment.needed(), **dict(self.host.needed().variables)}
        return load(Flags(home=str(self.settings.home)), given, self.settings.home)


def crontab_environment(settings: Settings) -> dict[str, str]:
    """What cron gives a job: the user's name and home from the password file, a shell, and a short PATH."""
    home, name = settings.inherited.get("HOME", "/"), ""
    with contextlib.suppress(ImportError, KeyError):
        import pwd  # noqa: PLC0415 - not on Windows

        entry = pwd.getpwuid(os.getuid())
        home, name = entry.pw_dir, entry.pw_name
    return {"HOME": home, "LOGNAME": name, "PATH": CRON_PATH, "SHELL": crontab_lines.SHELL}


def checks(cron: Cron, watched: Watched) -> Checks:
    """Every check of this group."""
    yield "schedule", partial(schedule_table, cron)
    yield "registered", partial(registered, cron, watched)
    yield "program", partial(program, cron)
    yield "crontab", partial(crontab_block, cron)
    yield "cron daemon", partial(daemon, cron)
    yield "cron settings", partial(settings_under_cron, cron)


def schedule_table(cron: Cron) -> Iterator[Finding]:
    """Can the table be read, and does any of it concern this host?"""
    settings, page = cron.settings, cron.settings.schedule_path
    try:
        found = cron.page.own()
    except ScheduleProblem:
        raise
    except UsageProblem as error:  # there is none, which a host that only sends does without
        yield warning(str(error), error.hint)
        return
    for said in found.warnings:
        yield warning(f"{page}, {said}", f"edit {word(page)}")
    mine = cron.rows()
    if mine:
        yield ok(f"{page}: {len(found.rows)} agents, {len(mine)} of them on this host")
        return
    hosts = sorted({row.host for row in found.rows if row.host})
    yield warning(
        f"none of the {len(found.rows)} agents of {page} is on this host, {settings.host}:"
        f" they are on {', '.join(hosts)}",
        f"export HEARTBEAT_HOST={word(hosts[0])}, or write {settings.host} in the column host",
    )


def registered(cron: Cron, watched: Watched) -> Iterator[Finding]:
    """Does the deployment expect what the table says of this host's agents?"""
    rows = cron.rows()
    if watched.may_read():
        host = crontab_lines.host_of(cron.settings, None)
        agents = watched.rows.needed()
        try:
            found = crontab_check.check(rows, host, None, agents, watched.there.now_ms())
        except ScheduleProblem as error:
            raise NotLooked(str(error)) from None
        differences = [(each.what, each.command) for each in found if each.kind == BACKEND]
    else:
        unknown = watched.unknown([row.agent for row in rows[:ASKED_ABOUT]])
        apply = "heartbeat apply --agents-only, where an admin token is kept"
        differences = [(f"the deployment does not watch {agent}", apply) for agent in unknown]
    for what, command in differences:
        yield problem(what, command)
    if rows and not differences:
        yield ok(f"the deployment watches the {len(rows)} agents of this host as the table says")


def program(cron: Cron) -> Iterator[Finding]:
    """Does this program start with nothing but what cron gives?"""
    command = crontab_lines.program()
    name = " ".join(command)
    try:
        done = cron.run([*command, "--version"])
    except OSError as error:
        why = str(error.strerror)
    else:
        said = done.stdout.strip()
        if done.returncode == 0 and said == cli.version_line():
            version = ".".join(map(str, sys.version_info[:3]))
            yield ok(f"{name} starts under cron: {said}, Python {version} ({sys.executable})")
            return
        said = done.stderr.strip() or said or "nothing"
        why = f"exit {done.returncode}, it says: {said.splitlines()[-1]}"
    yield problem(f"{name} does not start with cron's environment: {why}", INSTALL)


def settings_under_cron(cron: Cron) -> Iterator[Finding]:
    """Do jobs under cron speak to the same deployment, with a token?"""
    settings = cron.settings
    if not cron.rows():
        return
    url = settings.url
    own = cron.own_settings.own()
    if own.url != url:
        fix = f"heartbeat cron install --url {url}" if url else "heartbeat config"
        yield problem(f"under cron the deployment is {own.url or 'not known'}, here it is {url}", fix)
    elif own.token is None and settings.token_source == TOKEN_VARIABLE:
        fix = f"printenv {TOKEN_VARIABLE} | heartbeat token save --url {url}"
        yield problem(f"cron will have no token: ours is from {TOKEN_VARIABLE}, which is not there", fix)
    elif own.token is None:
        raise NotLooked("there is no token")
    elif own.token != settings.token:
        which, ours = tokens.fingerprint(own.token), tokens.fingerprint(settings.token or "")
        say = f"cron uses the token {which} ({own.token_source}), this shell {ours}"
        yield warning(say, f"unset {TOKEN_VARIABLE}")
    else:
        yield ok(f"jobs of cron speak to {url}, with the same token")


def crontab_block(cron: Cron) -> Iterator[Finding]:
    """Does the crontab have the lines that the table asks for, and can they do what they say?"""
    rows = cron.rows()
    try:
        text, host = cron.text.own(), cron.host.own()
    except CrontabProblem:
        if rows:
            raise
        return  # no cron here, and none is needed
    rows = crontab_lines.lined(rows, host)
    found = crontab_check.check(rows, host, text, None, cron.now_ms())
    stands = crontab_text.block_of(text or b"", host.block) is not None
    if rows and not stands:
        names = ", ".join(row.agent for row in rows)
        what = f"the crontab has no lines of {cron.settings.home}: nothing runs {names}"
        yield problem(what, crontab_check.INSTALL)
        found = [difference for difference in found if difference.kind != "missing"]
    elif not found:
        yield ok(f"the crontab has the lines of {len(rows)} agents")
    for difference in found:
        yield problem(difference.what, difference.command)
    for said in crontab_lines.warnings(text, host):
        yield warning(said, "crontab -e")
    folder = host.log_dir
    log = folder / CRON_LOG
    if stands and not folder.is_dir():
        # the shell opens it before it runs anything
        yield problem(f"there is no folder {folder}: no line of ours runs", f"mkdir -p {word(folder)}")
    elif log.is_file() and log.stat().st_size > LOG_BYTES_MAX:
        size = log.stat().st_size // 1_000_000
        say = f"{log} has {size} MB: our lines have much to complain of"
        yield warning(say, f"tail {word(log)}; : > {word(log)}")


def daemon(cron: Cron) -> Iterator[Finding]:
    """Does a cron run at all?"""
    if not cron.rows() or not Path("/proc/self").exists():
        return
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and process.stat().st_uid == 0:
                name = (process / "comm").read_text().strip()
                if name in DAEMONS:
                    yield ok(f"{name} runs (process {process.name})")
                    return
    installed = next((name for name in DAEMONS if shutil.which(name, path=SBIN)), None)
    if installed is None:
        yield problem("no cron is installed here, so nothing fires", "sudo apt install cron")
    else:
        systemd = Path("/run/systemd/system").exists()
        start = f"systemctl enable --now {installed}" if systemd else f"service {installed} start"
        yield problem(f"{installed} does not run, so nothing fires", f"sudo {start}")
