"""The way to a deployment's internal functions that the owner of an app has already: `npx convex run`.

It is run in the app's folder, with the login, or the variables, that the owner uses it with. What it is given
shows in the list of processes, so it is given nothing secret: the hash of a token, never the token.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartbeat_cli.address import cloud_name, normalise_url
from heartbeat_cli.client import MISSING_ANY_FUNCTION, SENTENCE_MAX
from heartbeat_cli.config_files import env_value
from heartbeat_cli.contact import ADD_FUNCTIONS
from heartbeat_cli.errors import Refused, SettingsProblem, Unreachable

PROGRAM = "node_modules/.bin/convex"  # what `npx convex` runs: in the app's folder or one above it
SELF_HOSTED = "CONVEX_SELF_HOSTED_URL"  # where a self-hosted app's `npx convex` goes, whatever else is said
ENDS_WITHIN_S = 60.0  # it starts in one second; its login may ask the network several times
CONFLICT = '"code":"conflict"'  # our refusal, as it quotes it
SAID_LINES = 12  # of what it said: its error, and not the list of all functions below that


@dataclass(frozen=True, slots=True)
class App:
    """A Convex app on this host: the folder of its package.json, and its own official command line tool,
    which has to end within so many seconds.
    """

    folder: Path
    program: Path
    ends_within_s: float = ENDS_WITHIN_S

    @classmethod
    def at(cls, place: Path) -> App:
        """The app in `place`, its folder or its convex/. Raises `SettingsProblem` where there is none."""
        given = place.absolute()
        above = (given, *given.parents)
        folder = next((each for each in above if (each / "package.json").is_file()), None)
        if not given.is_dir() or folder is None:
            raise SettingsProblem(
                f"there is no app in {place}: no package.json there or above",
                hint="--app names the folder in which you type npx convex",
            )
        found = (each / PROGRAM for each in (folder, *folder.parents))
        program = next((each for each in found if os.access(each, os.X_OK)), None)
        if program is None:
            raise SettingsProblem(
                f"npx convex cannot run in {folder}: there is no {PROGRAM} there or above",
                hint="install its packages (npm install), or pipe a deploy key instead",
            )
        return cls(folder, program)

    def check(self, url: str, environ: Mapping[str, str]) -> None:
        """Before anything is stored: raises `SettingsProblem` where the app deploys to another self-hosted
        deployment than that at `url`.
        """
        found = env_value(self.folder, SELF_HOSTED, environ)
        if found is None:
            return
        text, source = found
        try:
            its = normalise_url(text)
        except SettingsProblem as problem:
            raise SettingsProblem(f"{problem} ({source})", hint=problem.hint) from None
        if its != url:
            raise SettingsProblem(
                f"the app deploys to {its} ({source}), and {url} is another address; nothing was stored",
                hint="connect to the one that is meant, or leave out --app and pipe in its deploy key",
            )

    def run(
        self, path: str, args: Mapping[str, Any], which: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        """Have the deployment that `which` (see `selection`) names run a function.

        Raises `Refused` when it says no (code `conflict` where our function did), `Unreachable` when it has
        no such function, or does not end in time. What it said stands in the error's `notes`.
        """
        command = [str(self.program), "run", path, json.dumps(args), *which]
        try:
            code, said = _bounded(command, self.folder, environ, self.ends_within_s)
        except OSError as error:
            raise SettingsProblem(f"{self.program} cannot be started: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise Unreachable(
                f"npx convex run did not end within {self.ends_within_s:.0f} s in {self.folder}",
                cause="timeout",
                hint=f"try it there yourself: {shlex.join(['npx', 'convex', 'run', path, '{}', *which])}",
            ) from None
        if code == 0:
            return
        if MISSING_ANY_FUNCTION in said:
            raise Unreachable(
                f"the deployment of {self.folder} has no function {path}",
                cause="function_missing",
                hint=ADD_FUNCTIONS,
            )
        refused = Refused(
            f"npx convex run failed in {self.folder} (exit {code}); it said what stands above",
            code="conflict" if CONFLICT in said.replace(" ", "") else None,
            hint="is it logged in (npx convex login), and does it deploy to this address?",
        )
        refused.notes = [f"npx convex: {line}" for line in said.split("\n")[:SAID_LINES] if line.strip()]
        raise refused


def selection(url: str, *, prod: bool) -> list[str]:
    """The options by which the official tool takes the deployment at `url`. In Convex's cloud that is its
    name; elsewhere the app's own variables say which.
    """
    name = cloud_name(url)
    if prod:
        return ["--prod"]
    return [] if name is None else ["--deployment-name", name]


def _bounded(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], seconds: float
) -> tuple[int, str]:
    """Its exit code and what it said on stderr. When this raises, it is gone, and all that it has started."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except BaseException:  # also Ctrl-C, which a session of its own does not hear of
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, said.decode("utf-8", "replace")[:SENTENCE_MAX]
