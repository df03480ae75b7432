"""`heartbeat run AGENT [options] -- COMMAND …`: the command, as if we were not there, and reports of it.

    not now ──▶ gone (--only-at: no fire; --no-overlap: another run has the lock, which is reported)
       ▼
    starting ──cannot be started──▶ ended
       ▼
    running ──a signal to us, or --timeout──▶ running, told to end ──--kill-after──▶ killed
       ▼ ended
    ended ── what is left of its group is ended too, if it was told to end; its finish is reported;
       ▼     what it wrote is written
    gone, with its exit code

Processes: this one, which imports nothing that takes time and is killed without harm (the keeper then ends
the command); the command, in a process group of its own; the keeper (run_keeper.py); the reporter
(run_reporter.py). What is left writing in the background when the command ended by itself is let be, and a
relay passes on what it writes.

Whatever is wrong with us, the command runs: where even a process cannot be had, this one becomes the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import NoReturn

from heartbeat_cli import run_command
from heartbeat_cli.run_command import CannotStart, Outlet, Signals
from heartbeat_cli.run_facts import Facts, instant
from heartbeat_cli.run_keeper import Keeper, exists, send
from heartbeat_cli.run_options import Misuse, Options, parse
from heartbeat_cli.run_output import MARGIN_BYTES, NEVER, Stream, Tail, pass_on_later, wait_for
from heartbeat_cli.run_reporter import Reporter
from heartbeat_cli.run_terminal import Terminal
from heartbeat_cli.start_time import is_meant_now, wait_at_random

SKIPPED = 75  # EX_TEMPFAIL of sysexits.h: it was not done, and may be next time
BY_SIGNAL = 128  # what a shell adds to a signal's number
GROUP_POLL_S = 0.02  # how often to look whether a group is gone: nothing tells
SIZE_POLL_S = 0.25  # a terminal that is lent tells its new size to the command only
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PASSED_ON = (*ENDING, signal.SIGTSTP, signal.SIGUSR1, signal.SIGUSR2)
OURS = (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH)
STOPS_OF_A_TERMINAL = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


def main(words: list[str], closed: tuple[int, ...] = ()) -> int | None:
    """Run the command line after `run`; returns the exit code, or None for one that cannot be meant.

    `closed`: the standard descriptors that we were started without.
    """
    try:
        options = parse(words)
    except Misuse:
        return None
    try:
        return Supervisor(options, closed).run()
    except OSError as error:  # no process or no descriptor can be had: then nobody watches
        if Supervisor.began:
            raise
        say(f"heartbeat: the command runs unwatched: {error.strerror}")
        _become(options.command)
    except Exception:  # a bug of ours must not stop the agent's work
        if Supervisor.began:
            raise
        import traceback  # noqa: PLC0415 - 5 ms that the command would wait

        say(traceback.format_exc())
        _become(options.command)


def say(text: str) -> None:
    """Lines for people, on stderr; where they cannot be written, they are not."""
    for line in text.rstrip("\n").split("\n"):
        harmless = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
        try:
            os.write(run_command.STANDARD_ERROR, (harmless + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            return


class Supervisor:
    """One run, from its start to its exit code."""

    began = False  # the command, in this process's life

    def __init__(self, options: Options, closed: tuple[int, ...]) -> None:
        self._options = options
        self._closed = closed
        self._code: int | None = None
        self._pid = 0
        self._told_to_end = False
        self._timed_out = False
        self._kill_at = self._end_at = NEVER
        self._group_until = NEVER
        self._left = False  # somebody does not want to wait for our report
        self._terminal = Terminal()
        self._outlets: list[Outlet] = []
        self._streams: list[Stream] = []
        size = options.max_output
        self._tail = Tail(size)
        self._last = Tail(MARGIN_BYTES) if options.status_from_output else None
        self._lock: int | None = None

    def run(self) -> int:
        """All of it; returns the exit code."""
        options = self._options
        if options.only_at is not None and not is_meant_now(options.only_at, options.tz, say):
            return 0
        if options.delay_s:
            wait_at_random(options.delay_s)
        if options.no_overlap and not self._alone():
            return SKIPPED
        self._take_signals()
        self._keeper = Keeper(options.kill_after_s, *(() if self._lock is None else (self._lock,)))
        began, self._began_ns = instant(), time.monotonic_ns()
        facts = _facts(options) | {"started": began}
        cannot: CannotStart | None = None
        try:
            self._start()
        except CannotStart as problem:
            cannot, self._code = problem, problem.code
        self._reporter = Reporter(facts)
        if cannot is not None:
            say(f"heartbeat: {options.command[0]}: {cannot}")
            self._finish(f"cannot be started: {cannot}")
        if options.timeout_s is not None:
            self._end_at = self._began_ns / 1e9 + options.timeout_s
        while not self._is_over():
            self._wait()
        return self._leave()

    # --- starting ---

    def _alone(self) -> bool:
        """Whether no other run of this agent is going on; reports it if one is."""
        from heartbeat_cli.overlap import take  # noqa: PLC0415 - only where it is asked for

        self._lock, other, problem = take(self._options.agent)
        if problem is not None:
            say(f"heartbeat: {problem}; going on without looking for another run")
        if other is None:
            return True
        skipped = f"skipped: a run is going on since {other}"
        if not self._options.quiet:
            say(f"heartbeat: {self._options.agent} is {skipped}")
        reporter = Reporter(_facts(self._options) | {"started": instant(), "skipped": skipped})
        while not reporter.is_done:
            wait_for(reporter.waits_for, reporter.wakes_at)
            reporter.go_on()
        self._tell(reporter)
        return False

    def _take_signals(self) -> None:
        self._wakes, wake = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(wake, False)
        self._signals = Signals()
        for number in (*PASSED_ON, *OURS):
            # whoever started us with a signal ignored (nohup) wants the command to ignore it
            if number in OURS or signal.getsignal(number) is not signal.SIG_IGN:
                self._signals.take(number, _noted)
        # lent, the terminal would stop us when we write to it
        self._signals.take(signal.SIGTTOU, signal.SIG_IGN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*PASSED_ON, *OURS})

    def _start(self) -> None:
        options = self._options
        if not options.no_output or options.status_from_output:
            wanted = (run_command.STANDARD_OUTPUT, run_command.STANDARD_ERROR)
            self._outlets = run_command.outlets(number for number in wanted if number not in self._closed)
        every = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._pid = run_command.start(
                options.command,
                self._outlets,
                self._signals,
                keeper=self._keeper.handle,
            )
            Supervisor.began = True
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, every)
        self._keeper.watches(self._pid)
        self._streams = run_command.streams(self._outlets, self._tail, self._last)
        # what only the command uses ends when it is done with it
        passed = {stream.target for stream in self._streams}
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, run_command.STANDARD_OUTPUT):
            if number not in passed:
                os.dup2(nowhere, number)
        os.close(nowhere)

    # --- running ---

    def _is_over(self) -> bool:
        if self._code is None or self._group_until != NEVER:
            return False
        written = all(stream.is_written for stream in self._streams)
        return (self._left or self._reporter.is_done) and written

    def _wait(self) -> None:
        wanted = [wait for stream in self._streams if (wait := stream.waits_for) is not None]
        if self._code is not None:  # what others write is passed on by the relay
            wanted = [(handle, event) for handle, event in wanted if event == select.POLLOUT]
        ready = wait_for([(self._wakes, select.POLLIN), *wanted, *self._reporter.waits_for], self._wakes_at())
        if self._wakes in ready:
            self._hear()
        for stream in self._streams:
            if (wait := stream.waits_for) is not None and wait[0] in ready:
                stream.go_on()
        self._reporter.go_on()
        self._look_at_the_clock()

    def _wakes_at(self) -> float:
        soon = time.monotonic()
        polls = [soon + GROUP_POLL_S] if self._group_until != NEVER else []
        polls += [soon + SIZE_POLL_S] if self._terminal.lent_to else []
        return min(self._end_at, self._kill_at, self._reporter.wakes_at, *polls, NEVER)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._terminal.lent_to:
            self._resize()
        if self._code is None and now >= self._end_at:
            self._end_at, self._timed_out = NEVER, True
            self._tell_to_end(signal.SIGTERM)
            self._kill_at = now + self._options.kill_after_s
        if self._code is None and now >= self._kill_at:
            self._kill_at = NEVER
            self._signal(signal.SIGKILL)
        if self._group_until != NEVER:
            if exists(self._pid) and now >= self._group_until:
                send(self._pid, signal.SIGKILL)
                self._group_until = NEVER
            elif not exists(self._pid):
                self._group_until = NEVER
            if self._group_until == NEVER:
                self._drain()

    def _hear(self) -> None:
        try:
            numbers = set(os.read(self._wakes, 4096))
        except BlockingIOError:
            return
        for number in numbers:
            self._heard(signal.Signals(number))

    def _heard(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._children()
        elif number == signal.SIGWINCH:
            self._resize()
        elif self._code is not None:
            self._left = self._left or number in ENDING
        elif number in ENDING:
            self._tell_to_end(number)
        elif number == signal.SIGTSTP:
            self._signal(number)
            self._stop()
        elif number == signal.SIGCONT:
            self._go_on()
        else:  # to the command itself: its children never asked for it
            os.kill(self._pid, number)

    def _tell_to_end(self, number: int) -> None:
        self._told_to_end = True
        self._signal(number)

    def _signal(self, number: int) -> None:
        if not send(self._pid, number):  # it has left its own group
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _stop(self) -> None:
        """As the command was stopped, for a shell to see; where there is none, nobody would wake us."""
        if self._terminal.is_there:
            self._terminal.stop_with_it()

    def _go_on(self) -> None:
        if self._terminal.lent_to:
            self._terminal.lend(self._pid)
        self._signal(signal.SIGCONT)

    def _resize(self) -> None:
        changed = [
            run_command.copy_size(stream.target, stream.source)
            for stream, outlet in zip(self._streams, self._outlets, strict=True)
            if outlet.is_terminal and not stream.at_end
        ]
        if any(changed) and self._code is None:
            self._signal(signal.SIGWINCH)

    def _children(self) -> None:
        if self._keeper.pid and _has_ended(self._keeper.pid):
            os.waitpid(self._keeper.pid, 0)
            self._keeper.ended()
        if self._code is not None:
            return
        pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            self._stopped(os.WSTOPSIG(status))
            return
        self._ended(os.waitstatus_to_exitcode(status))

    def _stopped(self, number: int) -> None:
        if number not in STOPS_OF_A_TERMINAL:
            return
        asks = number in {signal.SIGTTIN, signal.SIGTTOU} and self._terminal.lent_to != self._pid
        if asks and self._terminal.lend(self._pid):
            self._signal(signal.SIGCONT)
        elif asks or self._terminal.lent_to:
            self._stop()

    # --- ended ---

    def _ended(self, status: int) -> None:
        self._code = status if status >= 0 else BY_SIGNAL - status
        self._terminal.take_back(restore=status < 0 or self._timed_out)
        if self._told_to_end:
            self._group_until = time.monotonic() + self._options.kill_after_s
        else:
            self._keeper.dismiss()
        self._drain()
        trouble = f"exit {status}" if status > 0 else f"killed by {_name(-status)}" if status < 0 else None
        if self._timed_out:
            trouble = f"timed out after {_span(self._options.timeout_s or 0)}"
        self._finish(trouble)

    def _drain(self) -> None:
        for stream in self._streams:
            stream.drain()

    def _finish(self, trouble: str | None) -> None:
        duration_ms = (time.monotonic_ns() - self._began_ns) // 1_000_000
        self._reporter.finish(
            {
                "finished": instant(),
                "duration_ms": duration_ms,
                "exit_code": self._code,
                "trouble": trouble,
                "tail": self._tail.kept() if not self._options.no_output else b"",
                "size": self._tail.size,
                "total": self._tail.total if not self._options.no_output else 0,
                "last": self._last.kept() if self._last is not None else b"",
            }
        )

    def _leave(self) -> int:
        self._reporter.stop()
        self._keeper.dismiss()
        self._tell(self._reporter)
        for stream in self._streams:
            trouble = stream.trouble
            if trouble is not None and not isinstance(trouble, BrokenPipeError):
                name = "standard output" if stream.target == run_command.STANDARD_OUTPUT else "standard error"
                say(f"heartbeat: not all of {name} could be written: {trouble.strerror}")
        others = [stream for stream in self._streams if not stream.at_end]
        if others:
            pass_on_later(others)
        return self._code or 0

    def _tell(self, reporter: Reporter) -> None:
        for line in reporter.problems + ([] if self._options.quiet else reporter.notes):
            say(line)


def _facts(options: Options) -> Facts:
    return {
        "agent": options.agent,
        "url": options.url,
        "home": options.home,
        "deadline": options.deadline,
        "transport": options.transport,
        "summary": options.summary,
        "keeps_output": not options.no_output,
        "reads_status": options.status_from_output,
    }


def _noted(_number: int, _frame: object) -> None:
    """Python writes the number into the wake-up pipe; nothing else is to be done here."""


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _span(seconds: float) -> str:
    for unit, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {word}"
    return f"{seconds:g} s"


def _become(words: list[str]) -> NoReturn:
    for name in (*run_command.IGNORED_BY_PYTHON, "SIGTTOU"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        run_command.become(words)
    except OSError as problem:
        say(f"heartbeat: {words[0]}: {problem.strerror}")
        os._exit(CannotStart(problem.errno or 0).code)
    raise AssertionError("a process that became another one goes on")
