"""The local backend as a unit of the user's own systemd (systemd.service(5), systemd.unit(5)).

`heartbeat local keep --systemd` starts the backend and returns when it is ready; its process id is then in
the PID file, and from there on systemd watches that process: it is `Type=forking` as the manual has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heartbeat_cli import local
from heartbeat_cli.crontab import user
from heartbeat_cli.errors import HeartbeatError
from heartbeat_cli.instance import TURN_WAITS_S, Instance
from heartbeat_cli.private_files import replace, writing

UNIT = "heartbeat-local.service"
ANSWERS_WITHIN_S = 5.0  # it takes milliseconds; one that does not answer is as good as none
# A start waits for its turn, for the backend to end and to be ready; a second each way for Python
STARTS_WITHIN_S = TURN_WAITS_S + local.STOPS_WITHIN_S + local.READY_WITHIN_S + 2
STOPS_WITHIN_S = local.STOPS_WITHIN_S + local.KILLED_WITHIN_S
AGAIN_AFTER_S = 5  # a crash is mended within seconds; one that cannot start costs a twentieth of a core
RUNTIME = "XDG_RUNTIME_DIR"
LINGER = Path("/var/lib/systemd/linger")  # a file for each user whose systemd runs without a login


@dataclass(frozen=True, slots=True)
class UserSystemd:
    """The user's own systemd, which answers; `environ` is what its command needs to find it."""

    systemctl: str
    environ: Mapping[str, str]

    def start_anew(self) -> bool:
        """Stop the unit if it runs, start it, wait until it is ready. False when it is not."""
        return self._call(["reset-failed", UNIT]) and self._call(["restart", UNIT], STARTS_WITHIN_S)

    def stop(self) -> None:
        """Stop the unit, and wait for its end. Raises HeartbeatError when it does not end."""
        if not self._call(["stop", UNIT], STOPS_WITHIN_S + ANSWERS_WITHIN_S):
            raise HeartbeatError(
                f"systemd does not stop {UNIT}", hint=f"See why: systemctl --user status {UNIT}"
            )

    def process(self) -> int | None:
        """The process that it watches as the unit's."""
        told = self._told(["show", "--property=MainPID", "--value", UNIT])
        return int(told) if told.isdecimal() and told != "0" else None

    def enabled(self) -> bool:
        """Whether the unit starts with the user's systemd."""
        return self._told(["is-enabled", UNIT]) == "enabled"

    def enable(self) -> None:
        """Have it read its units again, and start ours from now on with itself. Raises HeartbeatError."""
        self._must(["daemon-reload"])
        self._must(["enable", "--quiet", UNIT])

    def disable(self) -> None:
        """The opposite: to be called while the unit's file is still there."""
        self._must(["disable", "--quiet", UNIT])

    def forget(self) -> None:
        """Have it notice that a unit's file is gone."""
        self._must(["daemon-reload"])

    def _must(self, words: Sequence[str]) -> None:
        if not self._call(words):
            raise HeartbeatError(f"systemctl --user {' '.join(words)} failed")

    def _call(self, words: Sequence[str], seconds: float = ANSWERS_WITHIN_S) -> bool:
        done = _systemctl(self.systemctl, words, self.environ, seconds)
        return done is not None and done.returncode == 0

    def _told(self, words: Sequence[str]) -> str:
        done = _systemctl(self.systemctl, words, self.environ, ANSWERS_WITHIN_S)
        return done.stdout.strip() if done is not None else ""


def find(inherited: Mapping[str, str]) -> UserSystemd | None:
    """The user's own systemd if it runs and answers; else None: on other systems, in most containers, and
    for a user who is not logged in and does not linger.
    """
    systemctl = shutil.which("systemctl", path=inherited.get("PATH", os.defpath))
    if systemctl is None:
        return None
    # Where a login sets it; cron, sudo and su do not
    environ = {RUNTIME: f"/run/user/{os.getuid()}", **inherited}
    done = _systemctl(systemctl, ["show", "--property=Version"], environ, ANSWERS_WITHIN_S)
    return UserSystemd(systemctl, environ) if done is not None and done.returncode == 0 else None


def _systemctl(
    program: str, words: Sequence[str], environ: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            [program, "--user", "--no-ask-password", *words],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def lingers() -> bool:
    """Whether this user's systemd runs from boot on, and not only while the user is logged in."""
    return (LINGER / user()).exists()


def unit(instance: Instance, command: Sequence[str], variables: Mapping[str, str]) -> str:
    """The unit's file; `command` is `heartbeat local keep --systemd`, `variables` what it needs besides."""
    words = [f"{name}={value}" for name, value in variables.items()]
    return "\n".join(
        [
            "# Written by `heartbeat local install`, taken away by `heartbeat local uninstall`",
            "[Unit]",
            "Description=The local backend of heartbeat",
            "# There after `heartbeat local down`, until `heartbeat local up`",
            f"ConditionPathExists=!{_path(instance.stay_down)}",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=forking",
            # of a program's own path systemd takes neither quotes nor dollar signs; of an argument all
            f"ExecStart=/usr/bin/env {' '.join(map(_quoted, [*words, *command]))}",
            f"PIDFile={_path(instance.service_pid)}",
            "Restart=always",
            f"RestartSec={AGAIN_AFTER_S}",
            f"TimeoutStartSec={STARTS_WITHIN_S:g}",
            f"TimeoutStopSec={STOPS_WITHIN_S:g}",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def write(file: Path, text: str) -> None:
    """Make `text` the unit's file in one step. Raises SettingsProblem."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, text.encode())


def _quoted(text: str) -> str:
    """`text` as one word, with nothing in it that systemd would expand."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _path(path: Path) -> str:
    """A path for the settings that are one path to the end of the line."""
    return str(path).replace("%", "%%")
