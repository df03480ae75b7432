"""What is reported of a run: its start and its finish as heartbeats, each kept first, then delivered.

Facts of a run (made by run.py, which knows nothing of heartbeats):
    agent, url, home, deadline, transport     what was typed
    summary                                   of the finish; None if none was given
    keeps_output, reads_status                whether the output is sent; whether its last line is the status
    started: (wall ms, boot ms, random)       the instant, by both clocks; the run id and the start's own id
    skipped                                   instead of a start: why there is none

Facts of a finish:
    finished: (wall ms, boot ms, random)      as above
    duration_ms, exit_code
    trouble                                   a sentence, if it did not end well
    tail, size, total                         bytes of its output, how many are wanted, how many there were
    last                                      bytes, the last lines of its standard output
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heartbeat_cli import clock, config, deliver, output, send
from heartbeat_cli.client import Connection
from heartbeat_cli.clock import Moment
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.errors import HeartbeatError, Lost, Refused, Unreachable, UsageProblem
from heartbeat_cli.heartbeat import OUTPUT_MAX, RESULTS, Run, heartbeat_id, normalise_status
from heartbeat_cli.run_facts import DEADLINE, KEPT, NOTE, PROBLEM, Facts, Tell
from heartbeat_cli.scrub import scrubbed
from heartbeat_cli.send import Report, Sent

LINES_MOST = 10  # of the last ones, in which the status is looked for: stderr may follow it
STATUS_FIELDS = frozenset({"status", "summary", "error", "result"})
CONTINUATION = range(0x80, 0xC0)  # bytes that begin no character in UTF-8
CHARACTER_BYTES = 4  # at most
KEEP_TRIES = 5  # each waits for two seconds, where the spool is locked: nobody comes after us


def serve(facts: Facts, wait: Callable[[], Facts | None], tell: Tell, *, begin: bool) -> None:
    """Report the start (if it is to `begin`), then the finish that `wait` brings. Raises nothing."""
    try:
        reporting = Reporting(facts, tell)
        if begin:
            try:
                reporting.start()
            except HeartbeatError as error:  # the finish may still be wanted, later
                tell_problem(tell, error)
        finish = None if "skipped" in facts else wait()
        if finish is not None:
            reporting.finish(finish)
    except HeartbeatError as error:
        tell_problem(tell, error)
        tell(KEPT, "")  # nothing more can be done about it
    except Exception:  # a bug, which must not become the command's
        _tell_bug(tell)


def keep(facts: Facts, finish: Facts, tell: Tell) -> None:
    """Only keep the finish, to be delivered by whoever comes next. Raises nothing."""
    try:
        Reporting(facts, tell).only_keep(finish)
    except HeartbeatError as error:
        tell_problem(tell, error)
    except Exception:  # as above
        _tell_bug(tell)


def _tell_bug(tell: Tell) -> None:
    for line in traceback.format_exc().splitlines():
        tell(PROBLEM, output.shown(scrubbed(line)))


class Reporting:
    """The reports of one run, over one connection. Methods raise `HeartbeatError`."""

    def __init__(
        self, facts: Facts, tell: Tell, environ: Mapping[str, str] = os.environ, cwd: Path | None = None
    ) -> None:
        self._facts = facts
        self._tell = tell
        flags = config.Flags(*(facts[name] for name in ("url", "home", "deadline", "transport")))
        self._settings = config.load(flags, environ, cwd or config.working_directory())
        for warning in self._settings.warnings:
            tell(NOTE, f"heartbeat: {output.shown(warning)}")
        self._deadline = Deadline(self._settings.deadline_s)
        tell(DEADLINE, f"{self._settings.deadline_s:g}")
        self._connection: Connection | None = None
        self.away: HeartbeatError | None = None  # why nobody was reached a moment ago

    def start(self, kept: Callable[[], None] = lambda: None) -> None:
        """Report that it runs, or why it does not; `kept` is called once that is on the disk."""
        started = self._facts["started"]
        report = Report(self._facts["agent"], "working", at=_moment(started), heartbeat_id=_id(started))
        if "skipped" in self._facts:
            report.summary, report.result = self._facts["skipped"], "noop"
        else:
            report.run = Run(run_id=_id(started), phase="start", started_at=started[0])
        self._send(report, kept)

    def finish(self, finish: Facts) -> None:
        """Report how it ended."""
        report = self._finish_report(finish)
        if self.away is not None:
            self._keep(report, self.away)
            return
        self._deadline.renew()
        self._send(report, lambda: self._tell(KEPT, ""))

    def only_keep(self, finish: Facts) -> None:
        """Have the finish in the spool, however many others write there now."""
        report = self._finish_report(finish)
        for left in reversed(range(KEEP_TRIES)):
            try:
                self._keep(report, None)
            except Lost:
                if not left:
                    raise
            else:
                return

    def _send(self, report: Report, kept: Callable[[], None]) -> None:
        sent = send.send(report, self._settings, self._deadline, self._connect, clock.now, kept=kept)
        self._told(sent)
        if isinstance(sent.problem, Unreachable) and not deliver.answered(sent.problem):
            self.away = sent.problem

    def _keep(self, report: Report, problem: HeartbeatError | None) -> None:
        self._told(send.keep(report, self._settings, clock.now, problem))
        self._tell(KEPT, "")

    def _told(self, sent: Sent) -> None:
        if sent.problem is not None:
            why = output.shown(str(sent.problem))
            self._tell(NOTE, f"heartbeat: {sent.heartbeat.agent} is spooled, not delivered: {why}")
        for note in sent.notes:
            self._tell(NOTE, f"heartbeat: {output.shown(note)}")

    def _connect(self, deadline: Deadline) -> Connection:
        if self._connection is None:
            settings = self._settings
            self._connection = Connection(
                settings.deployment(),
                settings.needed_token(),
                deadline=deadline,
                transport=settings.transport,
                proxied=settings.proxied,
            )
        return self._connection

    def _finish_report(self, finish: Facts) -> Report:
        started, finished = self._facts["started"], finish["finished"]
        text, cut = output_text(finish["tail"], finish["size"], finish["total"])
        wanted = self._facts["keeps_output"]
        said, trouble = self._said_status(finish["last"]), finish["trouble"]
        status = "error" if trouble else said.get("status") or ("error" if "error" in said else "ok")
        return Report(
            self._facts["agent"],
            status,
            summary=said.get("summary") or self._facts["summary"],
            error="; ".join(filter(None, [trouble, said.get("error")])) or None,
            result="error" if trouble else said.get("result"),
            at=_moment(finished),
            heartbeat_id=_id(finished),
            run=Run(
                run_id=_id(started),
                phase="finish",
                started_at=started[0],
                finished_at=max(started[0], finished[0]),
                duration_ms=finish["duration_ms"],
                exit_code=finish["exit_code"],
                output=text if wanted else None,
                output_cut=(cut or None) if wanted else None,
            ),
        )

    def _said_status(self, last: bytes) -> dict[str, str]:
        if not self._facts["reads_status"]:
            return {}
        said, problem = status_of(last.decode("utf-8", "replace"))
        if problem:
            self._tell(PROBLEM, f"heartbeat: {output.shown(problem)}; the exit code decides")
        return said


def output_text(tail: bytes, size: int, total: int) -> tuple[str, bool]:
    """The end of an output as text, and whether anything was cut: `size` bytes at most, and no more than a
    deployment takes. It begins with how much was cut.

    `tail`: those bytes and some before them, so that secrets are found that the cut would divide.
    """
    text = scrubbed(tail.decode("utf-8", "replace"))
    if total <= size and len(text) <= OUTPUT_MAX:
        return text, False
    wanted = text.encode("utf-8")[-size:]
    begin = 0
    while begin < min(CHARACTER_BYTES, len(wanted)) and wanted[begin] in CONTINUATION:
        begin += 1
    kept = wanted[begin:].decode("utf-8", "replace")
    kept = kept[-(OUTPUT_MAX - len(_cut_note(total))) :]
    return _cut_note(max(0, total - len(kept.encode("utf-8")))) + kept, True


def _cut_note(count: int) -> str:
    return f"[heartbeat: {count:,} bytes before this were cut]\n"


def status_of(text: str) -> tuple[dict[str, str], str | None]:
    """What an agent said of its run in a last line of JSON, and what is wrong with it, if anything is."""
    lines = [line for line in text.splitlines() if line.strip()][-LINES_MOST:]
    for line in reversed(lines):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and STATUS_FIELDS & value.keys():
            return _checked(value)
    return {}, "its output does not end with a line of JSON that has a status"


def _checked(value: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    said = {name: value[name] for name in STATUS_FIELDS & value.keys() if value[name] is not None}
    for name, word in said.items():
        if not isinstance(word, str):
            return {}, f"the {name} in its output is no text"
    if "status" in said:
        try:
            normalise_status(said["status"])
        except UsageProblem as problem:
            return {}, f"in its output: {problem}"
    if said.get("result", RESULTS[0]) not in RESULTS:
        return {}, f"in its output: unknown result {said['result']!r}, not one of {', '.join(RESULTS)}"
    return said, None


def _moment(instant: tuple[int, int, bytes]) -> Moment:
    wall_ms, boot_ms, _ = instant
    boot = clock.now().boot
    return Moment(wall_ms, boot, boot_ms if boot else 0)


def _id(instant: tuple[int, int, bytes]) -> str:
    return heartbeat_id(instant[0], instant[2])


def tell_problem(tell: Tell, error: HeartbeatError) -> None:
    """Say that something is lost, or refused."""
    hint = f" ({output.shown(error.hint)})" if error.hint else ""
    why = "refused" if isinstance(error, Refused) else "not reported"
    tell(PROBLEM, f"heartbeat: this run is {why}: {output.shown(scrubbed(str(error)))}{hint}")
