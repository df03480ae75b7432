from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import pytest

from calls import FUNCTIONS, RECORD, TRANSPORTS, Call, command, run
from deployment import Deployment, Faults
from peers import Peer, read_request, send_answer, silent

# --- deadlines, signals, streams


@pytest.mark.parametrize("deadline", [1.0, 2.0])
def test_the_deadline_holds_whether_short_or_long(deadline: float) -> None:
    with Peer(silent) as peer:
        outcome = run(command(peer.url, "ws", RECORD, deadline=deadline))

    assert (outcome.code, outcome.error["cause"]) == (75, "timeout")
    assert deadline - 0.5 <= outcome.seconds <= deadline + 1


def test_two_calls_share_one_deadline() -> None:
    with Deployment(FUNCTIONS) as peer:
        calls: list[Call] = [("query", "slow", {})] * 3
        outcome = run(command(peer.url, "ws", *calls, deadline=2))

    assert (outcome.code, outcome.error["cause"]) == (75, "timeout")
    assert outcome.seconds <= 3


def test_a_call_that_was_given_up_never_runs_later() -> None:
    """The official client would send it once the deployment is back, for as long as the process lives."""
    with Deployment(FUNCTIONS, faults=Faults(never_answer=True)) as peer:
        outcome = run(command(peer.url, "ws", RECORD, deadline=1))
        connections = peer.connections
        time.sleep(0.3)  # the client's first reconnect comes after 0.1 s

        assert outcome.code == 75
        assert peer.connections == connections
        assert peer.calls == []


def test_ctrl_c_ends_a_call_that_hangs() -> None:
    with Peer(silent) as peer:
        process = subprocess.Popen(command(peer.url, "ws", RECORD, deadline=10), stderr=subprocess.PIPE)
        while peer.connections < 2:  # the first contact, then the client
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=5)

    assert process.returncode == 130
    assert stderr == b""
    assert time.monotonic() - began < 2.5


AFTERWARDS = """
import os, signal, sys, time
from heartbeat_cli.client import Connection, Deadline, leave
rang = []
handler = lambda *_: rang.append(1)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 60, 7)
print("before", flush=True)
connection = Connection(sys.argv[1], "t", deadline=Deadline(5), transport="ws")
for path in ("record", "refuse"):
    try:
        connection.mutation(path, "request", {})
    except Exception as error:
        print(type(error).__name__)
    assert signal.getsignal(signal.SIGALRM) is handler
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 50 < left <= 60 and interval == 7, (left, interval)
os.kill(os.getpid(), signal.SIGALRM)
assert rang == [1]
print("after")
leave(0)
"""


def test_after_a_call_signals_timers_and_standard_output_are_as_they_were() -> None:
    with Deployment(FUNCTIONS, faults=Faults(log_lines=("noise",))) as peer:
        done = subprocess.run(
            [sys.executable, "-c", AFTERWARDS, peer.url],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["before", "Refused", "after"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_works_where_standard_streams_are_closed_as_some_cron_daemons_do(transport: str) -> None:
    with Deployment(FUNCTIONS, faults=Faults(log_lines=("noise",))) as peer:
        argv = command(peer.url, transport, RECORD)
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], timeout=20, check=False
        )

        assert done.returncode == 0
        assert [path for path, _ in peer.calls] == ["record"]


def test_a_blocked_alarm_signal_does_not_break_the_deadline() -> None:
    with Peer(silent) as peer:
        argv = command(peer.url, "ws", RECORD, deadline=1.5)
        block = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})"
        blocked = f"import os, signal, sys; {block}; os.execv(sys.argv[1], sys.argv[1:])"
        outcome = run([sys.executable, "-c", blocked, *argv])

    assert outcome.code == 75
    assert outcome.seconds <= 2.5


COUNTING = """
import sys
from heartbeat_cli.client import Connection, Deadline, leave
made = []
def body():
    made.append(1)
    return {"attempt": len(made)}
Connection(sys.argv[1], "t", deadline=Deadline(8), transport="ws").mutation("record", "request", body)
print(len(made))
leave(0)
"""


def test_each_attempt_sends_what_is_made_for_it() -> None:
    """A heartbeat's age is reckoned from the instant at which it was sent, not at which the first try was."""
    with Deployment(FUNCTIONS, faults=Faults(slam_first=2)) as peer:
        done = subprocess.run(
            [sys.executable, "-c", COUNTING, peer.url], capture_output=True, text=True, timeout=20, check=True
        )
        attempts = [args["request"]["attempt"] for _, args in peer.calls]

    assert attempts[-1] == int(done.stdout)
    assert attempts == sorted(set(attempts))


@pytest.mark.parametrize("deadline", [1.0, 2.2])
def test_a_short_deadline_is_time_enough_for_an_answer_that_takes_most_of_a_second(deadline: float) -> None:
    def after_a_while(_args: object) -> dict[str, object]:
        time.sleep(0.6)
        return {}

    with Deployment({"record": after_a_while}) as peer:
        outcome = run(command(peer.url, "ws", RECORD, deadline=deadline))

    assert outcome.code == 0, outcome


PAUSED_TOO_LONG = """
import sys
from heartbeat_cli import transport_ws
from heartbeat_cli.client import Connection, Deadline, leave
from heartbeat_cli.errors import Unreachable
transport_ws.PAUSE_S = 1e6  # whatever is drawn of it, no time is left
try:
    Connection(sys.argv[1], "t", deadline=Deadline(4), transport="ws").mutation("record", "request", {})
except Unreachable as problem:
    print(problem.cause)
leave(0)
"""


def test_a_pause_that_takes_the_rest_of_the_time_hides_no_cause() -> None:
    """Three of them: the official client gives up on such a peer more often than not, not always."""
    with Deployment(FUNCTIONS, faults=Faults(no_upgrade="403 Forbidden")) as peer:
        words = [sys.executable, "-c", PAUSED_TOO_LONG, peer.url]
        several = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        told = [process.communicate(timeout=20)[0] for process in several]

    assert told == ["cut\n"] * 3


def test_a_cause_that_was_found_is_told_although_the_next_try_takes_all_of_the_time() -> None:
    """A proxy that lets no WebSocket through, and is too busy for anything by the second try."""
    met: list[str] = []

    def behaviour(connection: socket.socket) -> None:
        request = read_request(connection)
        # the handshake of the client, then the version and the handshake of whoever looks what is wrong
        if met.count("/version") and met[-1] != "/version":
            silent(connection)
        met.append(request.path)
        answer = b"local-test" if request.path == "/version" else b"no"
        send_answer(connection, "200 OK" if request.path == "/version" else "403 Forbidden", answer)

    with Peer(behaviour) as peer:
        outcome = run(command(peer.url, "ws", RECORD, fails=True))
    assert "/version" in met and outcome.error["cause"] == "cut"
