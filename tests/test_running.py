"""`heartbeat_cli.running`: the same run, reported from within; it harms no thread, loop, test or exit."""

from __future__ import annotations

import ast
import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

import heartbeat_cli
from conftest import COMMAND_TIMEOUT_S, TABLE, Cli, wait_for
from deployment import Deployment
from heartbeat_cli import running
from peers import Peer, free_port, silent
from wrapped import Host

NO_TIME_S = 2.0  # far more than leaving may take, far less than the deadline
DEADLINE_S = 20


class Backend:
    """A deployment that lists the heartbeats it was sent, and the environment to reach it with."""

    def __init__(self) -> None:
        self.got: list[Mapping[str, Any]] = []
        self.deployment = Deployment({"mutations/recordHeartbeat": self._record})

    def _record(self, args: Mapping[str, Any]) -> object:
        self.got.append(args["heartbeat"])
        return {"outcome": "recorded", "health": "ok"}

    def reports(self, count: int) -> list[Mapping[str, Any]]:
        """That many heartbeats, once they came, in the order in which they were sent."""
        wait_for(lambda: len(self.got) >= count)
        return sorted(self.got, key=lambda one: (one["sentAt"], one["heartbeatId"]))

    def finish(self) -> Mapping[str, Any]:
        start, finish = sorted(self.reports(2), key=lambda one: str(one["run"]["phase"]), reverse=True)
        assert (start["run"]["phase"], finish["run"]["phase"]) == ("start", "finish")
        assert start["run"]["runId"] == finish["run"]["runId"] and start["status"] == "working"
        return finish


@pytest.fixture
def backend(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    cli.write_schedule(TABLE)
    backend = Backend()
    with backend.deployment as deployment:
        cli.env |= {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token-of-the-test"}
        cli.env |= {"HEARTBEAT_HOME": str(cli.home), "HEARTBEAT_DEADLINE": str(DEADLINE_S)}
        environment = cli.environment()
        for name in os.environ:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield backend
        for thread in threading.enumerate():
            if thread.name == "heartbeat":
                thread.join(COMMAND_TIMEOUT_S)


def test_a_block_reports_its_start_and_its_finish_with_what_it_said(backend: Backend) -> None:
    with running("hint", summary="a scan") as run:
        time.sleep(0.05)
        run.result = "acted"
    finish = backend.finish()
    assert (finish["status"], finish["summary"], finish["result"]) == ("ok", "a scan", "acted")
    assert finish["run"]["exitCode"] == 0 and finish["run"]["durationMs"] >= 50
    with running("hint", summary="a scan") as run:
        run.summary, run.status = "3 files drifted", "blocked"
    [_, finish] = [one for one in backend.reports(4) if one["run"]["phase"] == "finish"]
    assert (finish["summary"], finish["status"]) == ("3 files drifted", "blocked")


ENDINGS: list[tuple[BaseException, int, str | None]] = [
    (ValueError("no such file"), 1, "ValueError: no such file"),
    (SystemExit(0), 0, None),
    (SystemExit(3), 3, "exit 3"),
    (SystemExit("no quota"), 1, "no quota"),
    (KeyboardInterrupt(), 130, "interrupted"),
]


@pytest.mark.parametrize(("error", "code", "said"), ENDINGS, ids=[repr(error) for error, _, _ in ENDINGS])
def test_an_exception_passes_and_is_an_error_with_its_traceback(
    backend: Backend, error: BaseException, code: int, said: str | None
) -> None:
    with pytest.raises(type(error)) as caught, running("hint"):
        raise error
    assert caught.value is error
    finish = backend.finish()
    assert (finish["run"]["exitCode"], finish.get("error")) == (code, said)
    assert finish["status"] == ("error" if said else "ok")
    assert ("test_running.py" in finish["run"].get("output", "")) == bool(said)


def test_a_secret_in_an_exception_is_not_sent(backend: Backend) -> None:
    with pytest.raises(ValueError, match="token"), running("hint"):
        raise ValueError(f"bad token {os.environ['HEARTBEAT_TOKEN']}")
    assert "a-token-of-the-test" not in str(backend.finish())


def test_a_decorated_function_is_a_run_each_time_and_keeps_its_ways(backend: Backend) -> None:
    @running("hint")
    def double(number: int, *, plus: int = 0) -> int:
        """Twice."""
        return 2 * number + plus

    assert (double(2, plus=1), double(3)) == (5, 6)
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    assert len({one["run"]["runId"] for one in backend.reports(4)}) == 2


def test_a_generator_runs_from_its_first_step_to_its_last(cli: Cli, backend: Backend) -> None:
    @running("hint")
    def numbers() -> Iterator[int]:
        got: Any = yield 1
        yield 10 * got

    steps = numbers()
    assert [*backend.got, *Host(cli, "hint").spooled()] == []
    assert next(steps) == 1
    assert steps.send(4) == 40  # type: ignore[attr-defined]
    assert [one["run"]["phase"] for one in backend.reports(1)] == ["start"]
    assert list(steps) == []
    assert backend.finish()["status"] == "ok"


def test_a_generator_that_nobody_wants_to_the_end_ended_well(backend: Backend) -> None:
    @running("hint")
    def numbers() -> Iterator[int]:
        yield from range(100)

    steps = numbers()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert backend.finish()["status"] == "ok"


def test_coroutines_and_asynchronous_generators_run_until_they_end(backend: Backend) -> None:
    @running("hint")
    async def fetch() -> int:
        await asyncio.sleep(0)
        return 7

    @running("hint")
    async def numbers() -> AsyncIterator[int]:
        yield await fetch()
        raise LookupError("no more")

    async def main() -> list[int]:
        found = []
        with pytest.raises(LookupError):
            async for number in numbers():
                found.append(number)
        return found

    assert asyncio.run(main()) == [7]
    ended = [one.get("error") for one in backend.reports(4) if one["run"]["phase"] == "finish"]
    assert ended == [None, "LookupError: no more"]


def test_a_task_that_is_cancelled_is_reported_so_and_others_go_on_meanwhile(backend: Backend) -> None:
    ticks = 0

    async def work() -> None:
        async with running("hint"):
            await asyncio.sleep(60)

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    async def main() -> None:
        task, clock = asyncio.create_task(work()), asyncio.create_task(tick())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        clock.cancel()

    asyncio.run(main())
    assert ticks > 5
    assert backend.finish()["error"] == "cancelled"


def test_many_threads_at_once_report_each_its_own_run(backend: Backend) -> None:
    def work(number: int) -> None:
        with running("hint") as run:
            run.summary = str(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finishes = [one for one in backend.reports(16) if one["run"]["phase"] == "finish"]
    assert sorted(one["summary"] for one in finishes) == [str(number) for number in range(8)]
    assert len({one["run"]["runId"] for one in finishes}) == 8


def test_signals_and_handlers_stay_as_they_are(backend: Backend) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with running("hint"):
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    backend.finish()
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


WRONG: list[tuple[str, dict[str, str], str]] = [
    ("an agent's name", {}, "cannot be the name of an agent"),
    ("the address", {"HEARTBEAT_URL": "nonsense:"}, "nonsense"),
    ("the deadline", {"HEARTBEAT_DEADLINE": "soon"}, "the deadline 'soon'"),
    ("the spool", {"XDG_DATA_HOME": "/dev/null", "HEARTBEAT_URL": ""}, "not reported"),
]


@pytest.mark.parametrize(("what", "env", "said"), WRONG, ids=[what for what, _, _ in WRONG])
@pytest.mark.usefixtures("backend")
def test_what_is_wrong_with_us_is_logged_and_nothing_is_raised(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
    env: dict[str, str],
    said: str,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with (
        caplog.at_level(logging.WARNING, "heartbeat_cli"),
        running("Hint!" if "name" in what else "hint") as run,
    ):
        run.status = "dancing"
        result = 5
    assert result == 5
    wait_for(lambda: said in caplog.text)
    assert "a-token-of-the-test" not in caplog.text


def test_a_word_that_is_none_costs_only_itself(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    with running("hint") as run:
        run.status = "dancing"
    assert backend.finish()["status"] == "ok"
    wait_for(lambda: "unknown status 'dancing'" in caplog.text)


def test_a_dead_or_silent_backend_holds_nobody_up(
    cli: Cli, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTBEAT_DEADLINE", "1")
    with Peer(silent) as peer:
        for url in (f"http://127.0.0.1:{free_port()}", peer.url):
            monkeypatch.setenv("HEARTBEAT_URL", url)
            began = time.monotonic()
            with running("hint"):
                assert time.monotonic() - began < NO_TIME_S
            assert time.monotonic() - began < NO_TIME_S
        host = Host(cli, "hint")
        wait_for(lambda: len(host.spooled()) == 4)
    assert [one["run"]["phase"] for one in host.spooled()] == ["start", "finish"] * 2


def script(backend: Backend, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of somebody's own, to its end."""
    return subprocess.run(
        [
            sys.executable,
            *words,
            "-c",
            "import os, sys, threading, time\nimport heartbeat_cli\n" + textwrap.dedent(text),
        ],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


def test_a_program_that_ends_after_the_block_has_reported_it(backend: Backend) -> None:
    done = script(backend, 'with heartbeat_cli.running("hint"): sys.exit(3)')
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert backend.finish()["error"] == "exit 3"


def test_work_in_a_daemon_thread_that_an_exit_cuts_off_is_a_start_without_a_finish(backend: Backend) -> None:
    done = script(
        backend,
        """
        def work():
            with heartbeat_cli.running("hint"):
                entered.set()
                time.sleep(60)
        entered = threading.Event()
        threading.Thread(target=work, daemon=True).start()
        entered.wait()
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [one["run"]["phase"] for one in backend.reports(1)] == ["start"]


def test_work_that_ends_while_the_interpreter_does_raises_nothing_and_is_kept(
    cli: Cli, backend: Backend
) -> None:
    done = script(
        backend,
        """
        import atexit
        run = heartbeat_cli.running("hint")
        run.__enter__()
        atexit.register(lambda: run.__exit__(None, None, None))
        """,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    phases = [one["run"]["phase"] for one in [*backend.got, *Host(cli, "hint").spooled()]]
    assert set(phases) == {"start", "finish"}


def test_a_program_that_leaves_at_once_has_its_finish_kept(cli: Cli, backend: Backend) -> None:
    done = script(backend, 'with heartbeat_cli.running("hint"): time.sleep(1)\nos._exit(0)')
    assert (done.returncode, done.stderr) == (0, "")
    host = Host(cli, "hint")
    kept = {one["heartbeatId"]: one["run"]["phase"] for one in [*backend.got, *host.spooled()]}
    assert sorted(kept.values()) == ["finish", "start"]


def test_a_fork_that_leaves_the_block_reports_nothing(backend: Backend) -> None:
    done = script(
        backend,
        """
        with heartbeat_cli.running("hint"):
            time.sleep(0.5)
            child = os.fork()
        if child == 0:
            time.sleep(1)
            os._exit(0)
        os.waitpid(child, 0)
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert backend.finish()["status"] == "ok" and len(backend.got) == 2


def test_importing_the_package_loads_nothing_of_it(backend: Backend) -> None:
    done = script(backend, "print(sorted(name for name in sys.modules if name.startswith('heartbeat_cli')))")
    assert ast.literal_eval(done.stdout) == ["heartbeat_cli"]
    with pytest.raises(AttributeError):
        assert heartbeat_cli.no_such_thing
