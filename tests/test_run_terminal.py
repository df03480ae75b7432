"""`heartbeat run` typed at a terminal: the command has it as if nobody stood in between."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import COMMAND_TIMEOUT_S, TABLE, Cli, wait_for
from peers import free_port
from wrapped import PROCESSES_MARK, Host, marked

CTRL_C, CTRL_Z, CTRL_BACKSLASH = b"\x03", b"\x1a", b"\x1c"


class Screen:
    """A terminal with one program in front, which leads its session, as a shell does."""

    def __init__(self, words: list[str], env: dict[str, str], cwd: Path) -> None:
        self.mark = str(cwd)
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(cwd)
                os.execvpe(words[0], words, env | {PROCESSES_MARK: self.mark})  # noqa: S606
            finally:
                os._exit(99)
        self.shown = b""
        self.resize(100)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.handle, keys)

    def shows(self, text: str) -> None:
        """Wait until this is on it."""
        wait_for(lambda: text.encode() in self._look())

    def _look(self) -> bytes:
        while select.select([self.handle], [], [], 0)[0]:
            try:
                part = os.read(self.handle, 65_536)
            except OSError:  # how a terminal says that nobody has it open any more
                break
            if not part:
                break
            self.shown += part
        return self.shown

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.handle)

    def ends(self) -> int:
        """The exit code of the program."""
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            self._look()
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.01)
        self.pid = 0
        self._look()
        return os.waitstatus_to_exitcode(ended[1])

    def close(self) -> None:
        os.close(self.handle)
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.pid:
            os.waitpid(self.pid, 0)
        wait_for(lambda: not marked(self.mark))


@pytest.fixture
def host(cli: Cli) -> Host:
    cli.env |= {"HEARTBEAT_TOKEN": "a-token", "HEARTBEAT_URL": f"http://127.0.0.1:{free_port()}"}
    cli.env |= {"HEARTBEAT_HOME": str(cli.home), "TERM": "xterm-256color", "PS1": "shell> "}
    cli.write_schedule(TABLE)
    return Host(cli, "hint")


@pytest.fixture
def screen_of(host: Host) -> Iterator[Any]:
    screens: list[Screen] = []

    def make(*words: str) -> Screen:
        screens.append(Screen(list(words), host.cli.environment(), host.cli.folder))
        return screens[-1]

    yield make
    for screen in screens:
        screen.close()


@pytest.fixture
def typed(host: Host, screen_of: Any) -> Any:
    return lambda script: screen_of(*host.words(["sh", "-c", script], "--quiet"))


@pytest.fixture
def shell(host: Host, screen_of: Any) -> Any:
    """An interactive shell, in which `run SCRIPT` is typed."""

    def make() -> Screen:
        start = "set -m; run() { " + " ".join(host.words([], "--quiet")) + ' sh -c "$1"; }; echo set up'
        # what is typed is echoed as it is
        (host.cli.folder / "inputrc").write_text("set enable-bracketed-paste off\n")
        host.cli.env["INPUTRC"] = str(host.cli.folder / "inputrc")
        screen: Screen = screen_of("bash", "--norc", "-i")
        screen.type(start.encode() + b"\n")
        screen.shows("\nset up")
        return screen

    return make


def finish(host: Host) -> dict[str, Any]:
    return dict(host.spooled()[-1]["run"])


def test_output_is_a_terminal_of_the_same_size_and_arrives_unchanged(host: Host, typed: Any) -> None:
    script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && stty size <&1; printf '\\033[31mred\\033[0m\\n' >&2; exit 4"
    screen = typed(script)
    assert screen.ends() == 4
    assert screen.shown == b"30 100\r\n\x1b[31mred\x1b[0m\r\n"
    assert finish(host)["output"] == "30 100\n\x1b[31mred\x1b[0m\n"


def test_only_the_stream_that_is_a_terminal_is_one(host: Host, screen_of: Any) -> None:
    words = host.words(["sh", "-c", "[ -t 1 ] && echo terminal; [ -t 2 ] || echo none >&2"], "--quiet")
    screen = screen_of("sh", "-c", '"$@" 2>errors', "sh", *words)
    assert screen.ends() == 0
    assert (screen.shown, (host.cli.folder / "errors").read_text()) == (b"terminal\r\n", "none\n")


def test_a_new_size_reaches_the_command(typed: Any) -> None:
    screen = typed("trap 'stty size <&1' WINCH; echo ready; while :; do sleep 0.05; done")
    screen.shows("ready")
    screen.resize(77)
    screen.shows("30 77")


def test_the_command_reads_what_is_typed_and_a_secret_is_not_shown(typed: Any) -> None:
    screen = typed("read line; echo got $line; stty -echo; echo hidden; read line; stty echo; echo got $line")
    screen.type(b"one\n")
    screen.shows("got one")
    screen.shows("hidden")
    screen.type(b"two\n")
    screen.shows("got two")
    assert screen.ends() == 0
    assert screen.shown.count(b"two") == 1


@pytest.mark.parametrize(("key", "number"), [(CTRL_C, signal.SIGINT), (CTRL_BACKSLASH, signal.SIGQUIT)])
@pytest.mark.parametrize("reads", [False, True], ids=["behind", "in front"])
def test_keys_that_end_a_program_end_the_command_and_that_is_reported(
    host: Host, typed: Any, key: bytes, number: int, reads: bool
) -> None:
    first = "read line; " if reads else ""
    screen = typed(f"ulimit -c 0; {first}echo ready; exec sleep 60")
    if reads:
        screen.type(b"x\n")
    screen.shows("ready")
    wait_for(lambda: "sleep 60" in marked(screen.mark).values())
    screen.type(key)
    assert screen.ends() == 128 + number
    assert finish(host)["exitCode"] == 128 + number


@pytest.mark.parametrize("reads", [False, True], ids=["behind", "in front"])
def test_it_stops_and_goes_on_as_a_job_of_the_shell(shell: Any, reads: bool) -> None:
    screen = shell()
    first = (
        "read line; echo ready; read line" if reads else "echo ready; while [ ! -e go ]; do sleep 0.05; done"
    )
    screen.type(f"run '{first}; echo went on $line'\n".encode())
    if reads:
        screen.type(b"x\n")
    screen.shows("\nready")
    screen.type(CTRL_Z)
    screen.shows("Stopped")
    screen.type(b"echo in between\n")
    screen.shows("\nin between")
    (Path(screen.mark) / "go").touch()
    screen.type(b"fg\n")
    if reads:
        screen.type(b"y\n")
    screen.shows("\nwent on y" if reads else "\nwent on")
    screen.type(b"echo code $?\n")
    screen.shows("\ncode 0")


def test_a_pipeline_keeps_the_terminal_for_its_other_programs(shell: Any) -> None:
    screen = shell()
    screen.type(b"run 'echo from the command' | (read line; echo $line; read key </dev/tty; echo key $key)\n")
    screen.shows("\nfrom the command")
    screen.type(b"k\n")
    screen.shows("\nkey k")


def test_a_terminal_that_the_command_left_in_disorder_is_set_up_as_before(typed: Any) -> None:
    screen = typed("read line; stty raw -echo; echo ready; kill -9 $$")
    before = screen.mode()
    screen.type(b"x\n")
    assert screen.ends() == 128 + signal.SIGKILL
    assert screen.mode() == before


def test_a_killed_supervisor_leaves_the_terminal_to_the_shell(shell: Any) -> None:
    screen = shell()
    screen.type(b"run 'read line; echo ready $PPID; exec sleep 60'\n")
    screen.type(b"x\n")
    screen.shows("\nready ")
    wait_for(lambda: "sleep 60" in marked(screen.mark).values())
    supervisor = int(screen.shown.rpartition(b"\nready ")[2].split()[0])
    os.kill(supervisor, signal.SIGKILL)
    screen.shows("Killed")
    screen.type(b"echo still here\n")
    screen.shows("\nstill here")
    wait_for(lambda: "sleep 60" not in marked(screen.mark).values())


def test_a_terminal_that_is_closed_ends_the_command_and_that_is_reported(host: Host, typed: Any) -> None:
    screen = typed("echo ready; exec sleep 60")
    screen.shows("ready")
    wait_for(lambda: "sleep 60" in marked(screen.mark).values())
    closed = os.dup(screen.handle)
    os.close(screen.handle)
    os.close(closed)
    screen.handle = os.open(os.devnull, os.O_RDWR)
    wait_for(lambda: host.spooled() and host.spooled()[-1]["run"]["phase"] == "finish")
    assert finish(host)["exitCode"] == 128 + signal.SIGHUP
