"""The local backend of this user: up, down, kept up, how it stands.

`up` promises that the backend runs, ready, with the code that is on disk now; `down` that it does not run,
and is not started again by `keep`, which is what cron or systemd calls. All can be repeated, typed twice at
once, and interrupted. Whatever a backend acknowledged is on its disk before (it answers after the commit), so
even `kill -9` loses none of it.

What `up` finds, and what it does about it (the states themselves are in instance.py):

    nothing runs                                      start it
    it runs, ready, the same code, and answers        leave it
    it runs, but: other code is on disk now,          stop it, start it again
      another port or other functions are asked for,
      it never became ready, it does not answer
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from heartbeat_cli.engine import Code, Digests, find_code, find_node
from heartbeat_cli.errors import HeartbeatError, SettingsProblem, Unreachable
from heartbeat_cli.instance import Instance, Record
from heartbeat_cli.ports import instance_name, is_free, taker
from heartbeat_cli.private_files import PRIVATE
from heartbeat_cli.process import Starting, uninterrupted

HOST = "127.0.0.1"
DEFAULT_PORT = 7210  # not 3210: Convex's own local deployments begin there. HTTP actions: the port after it
HIGHEST_PORT = 65_534  # leaves one for the HTTP actions
READY_WITHIN_S = 20.0  # it takes half a second; a cold disk and a busy machine may need more
STOPS_WITHIN_S = 10.0  # it finishes the batch in hand, milliseconds of work; then it is killed
KILLED_WITHIN_S = 5.0  # what the kernel may need to take a killed process away
ANSWERS_WITHIN_S = 5.0  # a function may hold the backend up for a second; longer than this, and it hangs
LOG_LINES_SHOWN = 5  # of a backend that did not start
OWN_SENTENCE = "heartbeat-backend: "  # begins each line in which the backend says itself what is wrong
SAID_MAX = 300  # characters of it: about a document that does not fit it quotes the document and the schema
MISFIT = "does not match the schema"  # of the functions, says the backend of a document

State = Literal["running", "starting", "stopped"]
Outcome = Literal["started", "restarted", "already running"]


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """How the local backend stands. Addresses and version are those of the last time it was ready, if ever.

    `started_at` is in epoch milliseconds and, like `pid`, None unless it is running. `older` names what runs
    in an older form than is on disk now: "functions", "backend". `answers` tells whether it answered a
    request just now, `stays_down` whether it was stopped by `down`.
    """

    state: State
    folder: Path
    url: str | None
    site_url: str | None
    version: str | None
    pid: int | None
    started_at: int | None
    functions: str | None
    older: tuple[str, ...]
    answers: bool
    stays_down: bool
    data_bytes: int

    @property
    def healthy(self) -> bool:
        """What `local status --check` asks for."""
        return self.state == "running" and self.answers and not self.older


@dataclass(frozen=True, slots=True)
class BroughtUp:
    """What `up` did; `reasons` says why it restarted a backend that ran."""

    outcome: Outcome
    reasons: tuple[str, ...]
    record: Record


@dataclass(frozen=True, slots=True)
class BroughtDown:
    """What `down` did: the process it ended, None if there was none; `killed` if asking was not enough."""

    pid: int | None
    killed: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """What `up` is asked for. None: the port of the last time (else 7210), the installation's own functions.

    Port 0 is any free one.
    """

    port: int | None = None
    functions: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What is there when the backend is to be brought up: what runs, if anything, and what was ready last.

    `reasons` says why what runs is to be started again; `well`: it is not.
    """

    pid: int | None
    record: Record | None
    reasons: tuple[str, ...]
    code: Code
    digests: Digests

    @property
    def well(self) -> bool:
        return self.pid is not None and not self.reasons

    @property
    def running(self) -> Record | None:
        """The record of what runs; None while nothing does, or it is not ready."""
        return self.record if self.record is not None and self.record.pid == self.pid else None


def up(
    instance: Instance,
    wish: Wish,
    inherited: Mapping[str, str],
    now_ms: Callable[[], int],
    greet: Callable[[BroughtUp], None],
) -> BroughtUp:
    """See to it that the backend runs, with the code on disk; `inherited` is all that it sees of ours.

    `greet` is called when it does, before another `up` gets its turn: the place to make the first token.
    Raises SettingsProblem (no Node.js, no functions, a taken port, functions that do not load), Unreachable
    (it ended, or was not ready in time).
    """
    with instance.alone():
        found = look(instance, wish)
        instance.stay_down.unlink(missing_ok=True)
        if found.well and found.running is not None:
            brought = BroughtUp("already running", (), found.running)
            greet(brought)
            return brought
        brought = bring(instance, found, planned(found, wish, inherited), inherited, now_ms())
        greet(brought)
        return brought


def look(instance: Instance, wish: Wish) -> Found:
    """What there is to do for `up`; within `instance.alone()`. Raises SettingsProblem for a wish that cannot
    be meant.
    """
    if wish.port is not None and not 0 <= wish.port <= HIGHEST_PORT:
        raise SettingsProblem(f"--port {wish.port} is not a port from 0 to {HIGHEST_PORT}")
    code = find_code(wish.functions)
    digests = code.digests()
    pid, record = instance.process(), instance.record()
    reasons = _reasons_to_restart(pid, record, wish, code, digests) if pid is not None else ()
    return Found(pid, record, reasons, code, digests)


def planned(found: Found, wish: Wish, inherited: Mapping[str, str]) -> Plan:
    """What is to be started. Raises SettingsProblem while what runs is still as it is: no Node.js, or a port
    that another has.
    """
    plan = Plan(find_node(inherited), found.code, found.digests, _ports(wish, found.record))
    if found.running is not None:
        _check_ports(plan.ports, but_not=_ports_of(found.running))
    return plan


def bring(
    instance: Instance, found: Found, plan: Plan, inherited: Mapping[str, str], now_ms: int
) -> BroughtUp:
    """Start what is planned, in place of what runs; within `instance.alone()`. Raises as `up` does."""
    if found.pid is not None:
        end(instance, found.pid)
    instance.log.cut()
    _check_ports(plan.ports)
    outcome: Outcome = "restarted" if found.pid is not None else "started"
    return BroughtUp(outcome, found.reasons, _start(instance, plan, inherited, now_ms))


def down(instance: Instance) -> BroughtDown:
    """See to it that no backend of this user runs, until the next `up`. Raises HeartbeatError when it cannot
    be ended.
    """
    if not instance.folder.exists():
        return BroughtDown(None, killed=False)
    with instance.alone():
        instance.stay_down.touch(PRIVATE)
        pid = instance.process()
        return BroughtDown(pid, killed=pid is not None and end(instance, pid))


def status(instance: Instance, *, ask: bool = True) -> LocalStatus:
    """Look, and change nothing. `ask`: also whether it answers, which takes a while where it does not."""
    pid, record = instance.process(), instance.record()
    ready = record is not None and record.pid == pid
    return LocalStatus(
        state="stopped" if pid is None else "running" if ready else "starting",
        folder=instance.folder,
        url=record.url if record else None,
        site_url=record.siteUrl if record else None,
        version=record.version if record else None,
        pid=pid,
        started_at=record.startedAt if record and ready else None,
        functions=record.functions if record else None,
        older=_older(record) if record and ready else (),
        answers=bool(ask and record and ready and _answers(record)),
        stays_down=instance.stay_down.exists(),
        data_bytes=instance.data_bytes(),
    )


def _reasons_to_restart(
    pid: int, record: Record | None, wish: Wish, code: Code, digests: Digests
) -> tuple[str, ...]:
    if record is None or record.pid != pid:
        return ("it had not become ready",)
    reasons = []
    if wish.port and wish.port != _ports_of(record)[0]:
        reasons.append(f"it listened on port {_ports_of(record)[0]}")
    if record.functions != _chosen(code):
        reasons.append(f"it served other functions ({record.functions or 'those of the installation'})")
    elif record.functionsDigest != digests.functions:
        reasons.append("the functions have changed")
    if record.backendDigest != digests.backend:
        reasons.append("the backend's own code has changed")
    if not reasons and not _answers(record):
        reasons.append(f"it did not answer within {ANSWERS_WITHIN_S:g} s")
    return tuple(reasons)


def _older(record: Record) -> tuple[str, ...]:
    try:
        digests = find_code(Path(record.functions) if record.functions else None).digests()
    except SettingsProblem:
        return ("functions",)  # they are gone: what runs is certainly not what is there
    return tuple(
        name
        for name, then, now in (
            ("functions", record.functionsDigest, digests.functions),
            ("backend", record.backendDigest, digests.backend),
        )
        if then != now
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started: on these ports, this code, whose digests were taken before it is read."""

    node: Path
    code: Code
    digests: Digests
    ports: tuple[int, int]

    def command(self, instance: Instance) -> list[str]:
        return [
            *(str(self.node), str(self.code.program)),
            *("--functions", str(self.code.functions)),
            *("--data", str(instance.database)),
            *("--port", str(self.ports[0])),
            *("--site-port", str(self.ports[1])),
            *("--admin-key-file", str(instance.admin_key)),
            *("--host", HOST),
        ]

    def record(self, told: Mapping[str, Any], now_ms: int) -> Record:
        """What became of it; `told` is the backend's own line about itself."""
        return Record(
            pid=told["pid"],
            url=told["url"],
            siteUrl=told["siteUrl"],
            version=told["version"],
            functionsHash=told["functionsHash"],
            startedAt=now_ms,
            functions=_chosen(self.code),
            functionsDigest=self.digests.functions,
            backendDigest=self.digests.backend,
        )


def _start(instance: Instance, plan: Plan, inherited: Mapping[str, str], now_ms: int) -> Record:
    log_before = instance.log.size()
    starting: Starting | None = None
    try:
        with uninterrupted():
            starting = instance.start(plan.command(instance), {**_process_settings(instance), **inherited})
        told = starting.wait_until_ready(READY_WITHIN_S)
        if told is None:
            raise _did_not_start(starting.exit_code(), instance.log.lines(LOG_LINES_SHOWN, since=log_before))
        record = plan.record(told, now_ms)
        instance.write_record(record)
    except BaseException:  # also Ctrl-C: what nobody knows of must not stay behind
        if starting is not None:
            starting.end(STOPS_WITHIN_S)
        raise
    return record


def _process_settings(instance: Instance) -> dict[str, str]:
    """Variables for the process; what the user has set himself goes before."""
    return {
        # Compiled code is kept for the next start, which takes half the time then: in the instance's own
        # folder, for in Node's default, a shared one, others could leave theirs
        "NODE_COMPILE_CACHE": str(instance.folder / "cache"),
    }


def _did_not_start(exit_code: int | None, lines: list[str]) -> HeartbeatError:
    own = [line.removeprefix(OWN_SENTENCE) for line in lines if line.startswith(OWN_SENTENCE)]
    said = own[-1] if own else " / ".join(lines) or "it said nothing"
    hint = "More of what it said: heartbeat local logs"
    if MISFIT in said:
        hint += "; to go back to older functions, restore a backup from before: heartbeat local restore FILE"
    said = said if len(said) <= SAID_MAX else said[:SAID_MAX] + "…"
    if exit_code is None:
        return Unreachable(
            f"the local backend was not ready within {READY_WITHIN_S:g} s: {said}", cause="timeout", hint=hint
        )
    if exit_code == SettingsProblem.exit_code:
        return SettingsProblem(f"the local backend did not start: {said}", hint=hint)
    return Unreachable(
        f"the local backend ended with exit code {exit_code} before it was ready: {said}",
        cause="server_error",
        hint=hint,
    )


def end(instance: Instance, pid: int) -> bool:
    """End the process under the lock; true when it had to be killed. Only ever called with `process()`'s
    answer of this very moment: a process id that somebody else has got meanwhile is not under the lock.
    """
    _signal(pid, signal.SIGTERM)
    if instance.wait_until_stopped(STOPS_WITHIN_S):
        return False
    still = instance.process()
    if still is None:
        return False
    _signal(still, signal.SIGKILL)
    if not instance.wait_until_stopped(KILLED_WITHIN_S):
        raise HeartbeatError(f"the local backend, process {still}, cannot be ended")
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it has just ended by itself
        pass
    except PermissionError:
        raise HeartbeatError(f"the local backend, process {pid}, belongs to another user") from None


def _ports(wish: Wish, record: Record | None) -> tuple[int, int]:
    if wish.port == 0:
        return 0, 0
    if wish.port is not None:
        return wish.port, wish.port + 1
    return _ports_of(record) if record is not None else (DEFAULT_PORT, DEFAULT_PORT + 1)


def _ports_of(record: Record) -> tuple[int, int]:
    return _port(record.url), _port(record.siteUrl)


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _check_ports(ports: tuple[int, int], but_not: tuple[int, ...] = ()) -> None:
    for port, use in zip(ports, ("", ", for its HTTP actions,"), strict=True):
        if port not in but_not and not is_free(HOST, port):
            raise SettingsProblem(
                f"the local backend's port {port}{use} is taken by {taker(HOST, port)}",
                hint="End that, or choose another: heartbeat local up --port N",
            )


def _answers(record: Record) -> bool:
    return instance_name(HOST, _port(record.url), ANSWERS_WITHIN_S) is not None


def _chosen(code: Code) -> str | None:
    return str(code.functions) if code.chosen else None
