"""The command `heartbeat`: finds the command's module, runs it, and reports what went wrong in one place.

Only the module of the command that was typed is imported: `send` runs from cron each few minutes, and most of
what it costs is Python starting. Anything else (help, a word that is no command) mounts them all.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import typer

    from heartbeat_cli.command import Invocation
    from heartbeat_cli.errors import HeartbeatError

PROGRAM = "heartbeat"
# What starting imports lives until the end: looking for garbage in it meanwhile costs 20 ms and finds none
OBJECTS_BEFORE_GC = 100_000
INTERRUPTED = 130  # what a shell reports for SIGINT: 128 + 2
BUG = 70  # EX_SOFTWARE of sysexits.h

# Each command, in the order of the help: the module whose `app` holds it, and the help if it is a group
COMMANDS: dict[str, tuple[str, str | None]] = {
    "send": ("heartbeat_cli.commands.send", None),
    "run": ("heartbeat_cli.commands.run", None),
    "dashboard": ("heartbeat_cli.commands.dashboard", None),
    "apply": ("heartbeat_cli.commands.apply", None),
    "connect": ("heartbeat_cli.commands.connect", None),
    "agents": ("heartbeat_cli.commands.agents", "Look at the watched agents; pause, resume, retire them."),
    "tasks": ("heartbeat_cli.commands.tasks", "List an agent's tasks and how each was counted."),
    "spool": ("heartbeat_cli.commands.spool", "What this host keeps until it is delivered."),
    "token": ("heartbeat_cli.commands.token", "Create, list, rotate and revoke access tokens."),
    "cron": ("heartbeat_cli.commands.cron", "The crontab lines of the schedule."),
    "export": ("heartbeat_cli.commands.move", None),
    "import": ("heartbeat_cli.commands.move", None),
    "local": ("heartbeat_cli.commands.local", "The local backend: a Convex deployment on this machine."),
    "doctor": ("heartbeat_cli.commands.doctor", None),
    "config": ("heartbeat_cli.commands.config", None),
    "uninstall": ("heartbeat_cli.commands.uninstall", None),
    "functions": (
        "heartbeat_cli.commands.functions",
        "Our functions in an app that you have; what a push would delete.",
    ),
}


def main() -> NoReturn:
    """The console script. Leaves the process at once, past whatever a client left running."""
    try:
        code = _main(sys.argv[1:])
    except KeyboardInterrupt:  # while starting: commands are caught in `run`
        code = INTERRUPTED
    except Exception:  # a bug: its traceback is shown, but the client that may be left must not hold us back
        import traceback  # noqa: PLC0415 - 5 ms that a wrapped command would wait

        with contextlib.suppress(OSError):
            _tell_of_bug(traceback.format_exc())
        code = BUG
    from heartbeat_cli.client import leave  # noqa: PLC0415

    leave(code)


def _tell_of_bug(trace: str) -> None:
    """A traceback quotes what it was about: the text of an agent, a secret. Both are made harmless."""
    from heartbeat_cli import output  # noqa: PLC0415

    for line in trace.rstrip("\n").split("\n"):
        output.say(line)


def _main(arguments: list[str]) -> int:
    gc.set_threshold(OBJECTS_BEFORE_GC)
    closed = _open_streams()
    if arguments[:1] == ["run"]:
        from heartbeat_cli import run as wrapped  # noqa: PLC0415 - and nothing that is heavy: a command waits

        code = wrapped.main(arguments[1:], closed)
        if code is not None:
            os._exit(code)
    if arguments == ["--version"]:  # answered before any heavy import: crontab lines use it as a probe
        print(version_line())
        sys.exit(0)
    if _unasked(arguments):
        # before any heavy import: a crontab line asks each five minutes
        from heartbeat_cli import config, spool  # noqa: PLC0415

        waiting = spool.idle(config.data_dir(os.environ), time.time_ns() // 1_000_000)
        if waiting is not None:
            return spool.STILL_WAITING if waiting else 0
    if arguments in (["local", "keep"], ["local", "keep", "--systemd"]):
        # the same, each minute
        from heartbeat_cli import service_keep  # noqa: PLC0415

        return service_keep.main(os.environ, systemd="--systemd" in arguments)
    return run(arguments)


def _unasked(arguments: list[str]) -> bool:
    """Whether it is `spool deliver --quiet`, as a crontab has it, with --home or without."""
    match arguments:
        case ["spool", "deliver", "--quiet"] | ["spool", "deliver", "--quiet", "--home", _]:
            return True
        case ["spool", "deliver", "--home", _, "--quiet"]:
            return True
    return False


def _open_streams() -> tuple[int, ...]:
    """Three streams, whatever we were started with: some cron daemons close them, and a closed descriptor
    would be taken by the next file that is opened. Returns those that were closed.
    """
    closed = []
    for handle, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            closed.append(handle)
            # the lowest free descriptor, and so the one that was closed
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        # An agent's emoji must not end in a traceback because cron's locale is not UTF-8
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    return tuple(closed)


def version_line() -> str:
    """What `--version` prints: program and version."""
    from heartbeat_cli import __version__  # noqa: PLC0415

    return f"{PROGRAM} {__version__}"


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code. The only place that catches `HeartbeatError`."""
    import typer  # noqa: PLC0415

    from heartbeat_cli.command import Invocation  # noqa: PLC0415
    from heartbeat_cli.errors import HeartbeatError, UsageProblem  # noqa: PLC0415
    from heartbeat_cli.scrub import forget  # noqa: PLC0415

    forget()
    words = [word for word in arguments if not word.startswith("-")]
    invocation = Invocation(
        command=words[0] if words else "", json="--json" in arguments, words=list(arguments)
    )
    try:
        code = typer.main.get_command(build(words[:1])).main(
            args=list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=invocation
        )
    except HeartbeatError as error:
        return _report(error, invocation)
    except typer.TyperException as error:
        # Typer's own usage errors, in our form: a sentence, what to do next, exit 2
        path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        message = " ".join(error.format_message().split())
        return _report(UsageProblem(message, hint=f"see {path} --help"), invocation)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit as leaving:  # how Typer ends when whoever read our answer has seen enough of it
        code = leaving.code
    return code if isinstance(code, int) else 0


def build(words: Sequence[str]) -> typer.Typer:
    """The Typer application with the command that `words` begins with, or with all of them."""
    import typer  # noqa: PLC0415

    from heartbeat_cli.command import PLAIN  # noqa: PLC0415

    app = typer.Typer(name=PROGRAM, **PLAIN)

    @app.callback()
    def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
        """Watch agents that run on a schedule: each reports in, silence is noticed.

        A heartbeat here is an agent's report that it ran; it wakes nobody up.
        """
        if version:
            print(version_line())
            raise typer.Exit

    wanted = [word for word in words if word in COMMANDS] or list(COMMANDS)
    for name in wanted:
        module, help_text = COMMANDS[name]
        group = importlib.import_module(module).app
        if help_text is None:
            app.add_typer(group)
        else:
            app.add_typer(group, name=name, help=help_text)
    return app


def _report(error: HeartbeatError, invocation: Invocation) -> int:
    from heartbeat_cli import output  # noqa: PLC0415

    if invocation.json:
        output.print_json(output.failure(invocation.command, invocation.deployment, error))
    else:
        output.say_error(error)
        if invocation.deployment and invocation.deployment not in str(error):
            output.say(f"  {invocation.said_deployment}")
    return error.exit_code
