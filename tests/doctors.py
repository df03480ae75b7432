"""`heartbeat doctor` in tests: how it is run, and read. (Its hosts are fixtures of conftest.py.)"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conftest import (
    COMMAND_TIMEOUT_S,
    HEARTBEAT,
    Cli,
    Inside,
    Ran,
)
from heartbeat_cli import tokens

Env = Mapping[str, str | None]
ONLY_LOCAL = {"node", "local backend", "at boot", "http actions"}
CHECKS = ONLY_LOCAL | {
    *("settings", "files", "disk", "log", "spool", "spooled tokens"),
    *("address", "transport", "functions", "token", "clock", "sweep", "agents", "hosts", "linked"),
    *("schedule", "registered", "program", "commands", "crontab", "cron daemon", "cron settings"),
}


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found, by check."""

    ran: Ran

    @property
    def findings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ran.data["findings"]
        return found

    @property
    def unchecked(self) -> set[str]:
        return {entry["check"] for entry in self.ran.data["unchecked"]}

    def of(self, check: str) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["check"] == check]

    def states(self, check: str) -> set[str]:
        return {finding["state"] for finding in self.of(check)}

    def trouble(self, check: str, state: str = "problem") -> tuple[str, str]:
        """The one trouble that this check found: what it saw, what to type."""
        [found] = [finding for finding in self.of(check) if finding["state"] != "ok"]
        assert found["state"] == state, found
        return found["message"], found["fix"]


def examine(run: Cli | Inside, *options: str, env: Env | None = None, **given: Any) -> Diagnosis:
    ran = run("doctor", "--json", *options, env=env, **given)
    assert ran.out, ran.err
    diagnosis = Diagnosis(ran)
    assert ran.code == any(finding["state"] == "problem" for finding in diagnosis.findings)
    assert all(finding["fix"] is None for finding in diagnosis.findings if finding["state"] == "ok")
    return diagnosis


def typed(cli: Cli, command: str, env: Env | None = None) -> Ran:
    """What somebody's shell does with a line that the doctor told."""
    whole = cli.environment(env)
    whole["PATH"] = f"{HEARTBEAT.parent}:{whole['PATH']}"
    bash = ["bash", "-c", command]
    done = subprocess.run(
        bash, cwd=cli.home, env=whole, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def kept(cli: Cli, url: str) -> str:
    token = tokens.stored(cli.config_dir, url, [])
    assert token is not None
    return token.text


def another_token(host: Inside, *options: str) -> str:
    text: str = host("token", "create", "test", *options, "--json").data["token"]
    return text
