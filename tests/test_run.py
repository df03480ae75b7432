"""`heartbeat run`: the command as if nobody wrapped it, and what the backend knows of it afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attempts import World
from conftest import Cli, Local, wait_for
from heartbeat_cli.heartbeat import OUTPUT_MAX
from wrapped import ending, host_of, runs

__all__ = ["host_of"]  # a fixture

AGENTS = [
    "ends", "fails", "signalled", "missing", "says", "cuts", "none", "secret", "invalid", "alone", "times",
    "json", "both", "slow", "crowd", "late", "fires", "unread",
]  # fmt: skip
LONG = bool(os.environ.get("HEARTBEAT_TEST_LONG"))
FLOOD = 200_000_000 if LONG else 80_000_000  # bytes
MEMORY_MOST_KB = 60_000  # Python alone takes 10 MB; what is wrong takes as much as FLOOD


@pytest.fixture(scope="module")
def world(running: Local) -> World:
    return World(running, AGENTS)


def the_run(world: World, agent: str) -> dict[str, Any]:
    [run] = runs(world, agent)
    return run


def test_a_run_is_a_start_and_a_finish_with_duration_exit_code_and_output(world: World, host_of: Any) -> None:
    host = host_of("ends")
    code, out, err = host.run("sh", "-c", "sleep 0.2; echo done", options=["--summary", "3 files"])
    assert (code, out, err) == (0, b"done\n", b"")
    run = the_run(world, "ends")
    assert (run["open"], run["exitCode"], run["status"], run["summary"]) == (False, 0, "ok", "3 files")
    assert run["output"] == "done\n" and "outputCut" not in run
    assert 200 <= run["durationMs"] < 60_000 and run["startedAt"] < run["finishedAt"]
    assert host.spooled() == []
    log = (host.cli.home / "logs" / "agent-heartbeat.log").read_text().splitlines()
    assert [re.findall(r" (?:run|exit)=\w+", line) for line in log] == [
        [" run=start"],
        [" run=finish", " exit=0"],
    ]


def test_while_it_runs_the_backend_knows_since_when(world: World, host_of: Any, tmp_path: Path) -> None:
    host = host_of("slow")
    with ending(host.begin("sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")) as wrapped:
        wait_for(lambda: runs(world, "slow"))
        assert the_run(world, "slow")["open"] is True
        (tmp_path / "go").touch()
        assert wrapped.end()[0] == 0
        wrapped.leaves_nothing()
    assert the_run(world, "slow")["open"] is False


@pytest.mark.parametrize("code", [1, 255])
def test_the_exit_code_is_the_commands(world: World, host_of: Any, code: int) -> None:
    assert host_of("fails").run("sh", "-c", f"exit {code}")[0] == code
    newest = runs(world, "fails")[0]
    assert (newest["exitCode"], newest["status"], newest["error"]) == (code, "error", f"exit {code}")


@pytest.mark.parametrize("name", ["KILL", "SEGV"])
def test_a_signal_that_ends_the_command_is_128_and_its_number(world: World, host_of: Any, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    assert host_of("signalled").run("sh", "-c", f"ulimit -c 0; kill -{name} $$")[0] == 128 + number
    newest = runs(world, "signalled")[0]
    assert (newest["exitCode"], newest["error"]) == (128 + number, f"killed by SIG{name}")


def test_what_cannot_be_started_ends_as_in_a_shell_and_is_reported(
    world: World, host_of: Any, tmp_path: Path
) -> None:
    host = host_of("missing")
    plain = tmp_path / "plain"
    plain.write_text("no program\n")
    for command, reason in (
        ("no-such-program", "No such file or directory"),
        (str(plain), "Permission denied"),
    ):
        shell = subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode
        code, out, err = host.run(command)
        assert (code, out, err) == (shell, b"", f"heartbeat: {command}: {reason}\n".encode())
        run = runs(world, "missing")[0]
        assert (run["exitCode"], run["error"], run["open"]) == (shell, f"cannot be started: {reason}", False)


def test_a_script_without_a_first_line_runs_in_a_shell_as_it_would_there(
    host_of: Any, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$1"; exit 4\n')
    script.chmod(0o700)
    assert host_of("ends").run(str(script), "word")[:2] == (4, b"word\n")


def test_stdin_is_the_commands_and_both_streams_arrive_apart_byte_for_byte(
    world: World, host_of: Any
) -> None:
    every_byte = bytes(range(256)) * 300
    script = (
        "import os, sys; data = sys.stdin.buffer.read(); os.write(2, data[::-1][:9]);"
        "sys.stdout.buffer.write(data)"
    )
    wrapped = host_of("both").begin(sys.executable, "-c", script, stdin=subprocess.PIPE)
    out, err = wrapped.process.communicate(every_byte, timeout=60)
    assert (out, err) == (every_byte, every_byte[::-1][:9])
    wrapped.leaves_nothing()
    assert len(the_run(world, "both")["output"]) <= OUTPUT_MAX


def test_what_is_written_arrives_before_more_is(host_of: Any) -> None:
    script = "printf one; read line; printf $line >&2; read line; printf $line"
    with ending(host_of("says").begin("sh", "-c", script, stdin=subprocess.PIPE)) as wrapped:
        process = wrapped.process
        assert process.stdin and process.stdout and process.stderr
        assert os.read(process.stdout.fileno(), 100) == b"one"
        os.write(process.stdin.fileno(), b"two\n")
        assert os.read(process.stderr.fileno(), 100) == b"two"
        os.write(process.stdin.fileno(), b"three\n")
        assert os.read(process.stdout.fileno(), 100) == b"three"
        assert process.wait(timeout=60) == 0


def test_streams_that_are_one_file_keep_their_order(host_of: Any, tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out$i; echo err$i >&2; done"
    with (tmp_path / "log").open("wb") as log:
        assert host_of("says").run("sh", "-c", script, stdout=log, stderr=subprocess.STDOUT)[0] == 0
    wanted = [f"{stream}{number}" for number in range(1, 10) for stream in ("out", "err")]
    assert (tmp_path / "log").read_text().split() == wanted


def test_a_reader_that_goes_away_ends_the_command_as_it_would_have(host_of: Any) -> None:
    with ending(host_of("ends").begin("yes")) as wrapped:
        assert wrapped.process.stdout
        assert wrapped.process.stdout.read(2) == b"y\n"
        wrapped.process.stdout.close()
        assert wrapped.process.wait(timeout=60) == 128 + signal.SIGPIPE
        wrapped.leaves_nothing()


def test_a_command_that_closes_its_input_and_output_is_not_held_up(host_of: Any) -> None:
    """Whoever writes to it, or reads from it, learns at once that it wants no more."""
    script = "exec 0<&- 1>&-; exec sleep 60"
    options = {"options": ["--no-output"], "stdin": subprocess.PIPE}
    with ending(host_of("ends").begin("sh", "-c", script, **options)) as wrapped:
        assert wrapped.process.stdin and wrapped.process.stdout
        assert wrapped.process.stdout.read() == b""
        stdin = wrapped.process.stdin.fileno()
        with pytest.raises(BrokenPipeError):
            while True:
                os.write(stdin, b"x" * 65_536)
        assert wrapped.process.poll() is None


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_descriptors_that_were_closed_are_closed_for_the_command(
    host_of: Any, tmp_path: Path, closed: str
) -> None:
    seen = tmp_path / "seen"
    host = host_of("ends")
    command = f"[ -e /proc/self/fd/{closed} ] && echo open >{seen} || echo closed >{seen}"
    words = host.words(["sh", "-c", command])
    line = f'exec "$@" {closed}>&-'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *words],
        env=host.cli.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done
    assert seen.read_text() == "closed\n"


def test_the_end_of_the_output_is_reported_though_nobody_reads_it_yet(world: World, host_of: Any) -> None:
    # more than the pipe to the reader holds, less than it and the command's own together: that ends by itself
    with ending(host_of("unread").begin("sh", "-c", "head -c 100000 /dev/zero; echo the end")) as wrapped:
        wait_for(lambda: [run for run in runs(world, "unread") if not run["open"]])
        assert wrapped.process.poll() is None
        assert wrapped.end()[1].endswith(b"\0the end\n")
    assert the_run(world, "unread")["output"].endswith("\0the end\n")


def test_a_flood_of_output_arrives_in_flat_memory(world: World, host_of: Any) -> None:
    host = host_of("cuts")
    script = f"head -c {FLOOD} /dev/zero | tr '\\0' x; echo the end"
    with ending(host.begin("sh", "-c", script)) as wrapped:
        size = peak = 0
        assert wrapped.process.stdout
        while part := os.read(wrapped.process.stdout.fileno(), 1 << 20):
            size += len(part)
            if size % 50 == 0:
                peak = max(peak, memory_kb(wrapped.pid))
        assert wrapped.process.wait(timeout=60) == 0
    assert size == FLOOD + len("the end\n")
    assert 0 < peak < MEMORY_MOST_KB
    run = the_run(world, "cuts")
    assert run["outputCut"] is True and len(run["output"]) <= OUTPUT_MAX
    note, _, rest = run["output"].partition("\n")
    assert rest.endswith("xxx" + "the end\n")
    cut = int(re.sub(r"\D", "", note))
    assert note == f"[heartbeat: {cut:,} bytes before this were cut]" and cut + len(rest) == size


def memory_kb(pid: int) -> int:
    try:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    except (OSError, IndexError):
        return 0


def test_only_the_wanted_end_of_the_output_is_sent_or_none(world: World, host_of: Any) -> None:
    host = host_of("none")
    assert host.run("seq", "1000", options=["--max-output", "9B"])[1].endswith(b"999\n1000\n")
    assert host.run("seq", "1000", options=["--no-output"])[1].endswith(b"999\n1000\n")
    without, cut = runs(world, "none")
    assert cut["output"] == "[heartbeat: 3,884 bytes before this were cut]\n999\n1000\n"
    assert "output" not in without and "outputCut" not in without


def test_a_secret_of_ours_and_broken_text_in_the_output_do_no_harm(world: World, host_of: Any) -> None:
    host = host_of("secret")
    code, out, _ = host.run("sh", "-c", r"env; printf '\377\376 caf\303\251 \303'")
    assert code == 0 and world.token.encode() in out, "what the command writes is its own"
    output = the_run(world, "secret")["output"]
    assert world.token not in output and "HEARTBEAT_TOKEN=•••" in output
    assert output.endswith("\ufffd\ufffd café \ufffd")


def test_a_secret_that_the_cut_divides_is_not_sent_in_part(world: World, host_of: Any) -> None:
    host = host_of("invalid")
    for kept in (11, len(world.token) - 1):
        host.run("sh", "-c", "printf %s $HEARTBEAT_TOKEN", options=["--max-output", str(kept)])
        output = runs(world, "invalid")[0]["output"]
        assert not any(world.token[place:][:4] in output for place in range(len(world.token) - 4))


# what each of many lines means: test_run_output.py
STATUSES: list[tuple[str, int, dict[str, Any]]] = [
    ('{"status": "blocked", "summary": "who decides?"}', 0, {"status": "blocked", "summary": "who decides?"}),
    ('{"result": "noop", "error": "full"}', 0, {"status": "error", "result": "noop", "error": "full"}),
    ('{"status": "ok", "error": "no quota"}', 5, {"status": "error", "error": "exit 5; no quota"}),
    ('{"status": "dancing"}', 0, {"status": "ok"}),
]


@pytest.mark.parametrize(("line", "code", "wanted"), STATUSES)
def test_an_agent_can_say_in_its_last_line_how_it_went(
    world: World, host_of: Any, line: str, code: int, wanted: dict[str, Any]
) -> None:
    command = f"echo some text; echo '{line}'; echo; exit {code}"
    ended, out, err = host_of("json").run("sh", "-c", command, options=["--status-from-output"])
    assert (ended, out) == (code, f"some text\n{line}\n\n".encode())
    run = runs(world, "json")[0]
    assert {name: run.get(name) for name in wanted} == wanted
    assert (b"the exit code decides" in err) == (line == '{"status": "dancing"}')


def test_a_run_beside_another_one_does_not_begin_where_that_is_not_wanted(
    world: World, host_of: Any, tmp_path: Path
) -> None:
    host = host_of("alone")
    options = ["--no-overlap"]
    first = host.begin("sh", "-c", f"touch {tmp_path}/began; sleep 60", options=options)
    with ending(first):
        wait_for((tmp_path / "began").exists)
        code, out, err = host.run("sh", "-c", "echo ran", options=options)
        assert (code, out) == (75, b"")
        assert re.fullmatch(rb"heartbeat: alone is skipped: a run is going on since \d\d:\d\d UTC .*\n", err)
        history = world.ask("queries/getAgentHistory", {"agent": "alone"})["heartbeats"]
        [skip] = [one for one in history if one.get("result") == "noop"]
        assert skip["status"] == "working" and skip["summary"].startswith("skipped: a run is going on since")
        # a kill releases the lock, and with it goes the command
        first.process.kill()
        first.leaves_nothing()
    assert host.run("sh", "-c", "echo ran", options=options)[:2] == (0, b"ran\n")


def test_a_time_limit_ends_it_asked_first_then_killed(world: World, host_of: Any) -> None:
    host = host_of("times")
    stubborn = "trap '' TERM; sleep 60 & while :; do sleep 0.1; done"
    options = ["--timeout", "1s", "--kill-after", "1s"]
    assert host.run("sh", "-c", "trap 'echo asked; exit 9' TERM; sleep 60 & wait", options=options)[:2] == (
        9,
        b"asked\n",
    )
    assert host.run("sh", "-c", stubborn, options=options)[0] == 128 + signal.SIGKILL
    killed, asked = runs(world, "times")
    for run, code in ((killed, 137), (asked, 9)):
        assert (run["exitCode"], run["status"], run["error"]) == (code, "error", "timed out after 1 s")


def test_what_is_started_in_the_background_is_let_be_and_its_output_still_arrives(
    host_of: Any, tmp_path: Path
) -> None:
    """As without us: the exit code comes when the command ends, and a daemon that it started runs on."""
    host = host_of("late")
    script = f"(while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo later) & echo now; exit 5"
    with ending(host.begin("sh", "-c", script)) as wrapped:
        assert wrapped.process.wait(timeout=60) == 5
        assert wrapped.processes()
        (tmp_path / "go").touch()
        assert wrapped.process.stdout
        assert wrapped.process.stdout.read() == b"now\nlater\n"
        wrapped.leaves_nothing()


def test_many_quick_runs_at_once_leave_no_process_and_nothing_unreported(world: World, host_of: Any) -> None:
    host = host_of("crowd")
    count = 200 if LONG else 5
    crowd = [host.begin("sh", "-c", f"exit {number}") for number in range(count)]
    assert [wrapped.end()[0] for wrapped in crowd] == list(range(count))
    for wrapped in crowd:
        wrapped.leaves_nothing()
    host.cli("spool", "deliver")
    told = runs(world, "crowd")
    assert sorted(run["exitCode"] for run in told if not run["open"]) == list(range(count))


def test_only_at_a_fire_of_its_schedule_anything_happens(world: World, host_of: Any) -> None:
    host = host_of("fires")
    never, always = (
        ["--only-at", "0 0 30 2 *"],
        ["--only-at", "* * * * *", "--tz", "Asia/Kolkata", "--delay", "1s"],
    )
    assert host.run("echo", "ran", options=never) == (0, b"", b"")
    assert host.cli("send", "fires", *never).out == ""
    assert runs(world, "fires") == []
    assert host.run("echo", "ran", options=always) == (0, b"ran\n", b"")
    assert host.cli("send", "fires", *always).out.startswith("fires ok")
    assert len(world.ask("queries/getAgentHistory", {"agent": "fires"})["heartbeats"]) == 3
    code, out, err = host.run("echo", "ran", options=["--only-at", "* * * * *", "--tz", "Mars/Base"])
    assert (code, out) == (0, b"ran\n") and b"--only-at cannot be judged" in err


def test_a_line_that_cannot_be_meant_runs_nothing_and_says_what_is_wrong(cli: Cli) -> None:
    for words, problem in (
        (["hint"], "Missing argument 'command'"),
        (["hint", "--no-such", "--", "echo", "ran"], "No such option: --no-such"),
    ):
        done = cli("run", *words)
        assert (done.code, done.out) == (2, "") and problem in done.err, done
    assert json.loads(cli("run", "hint", "--json", "--timeout").out)["error"]["code"] == "usage"


def test_the_help_tells_each_option_that_is_read(cli: Cli) -> None:
    from heartbeat_cli import run_options  # noqa: PLC0415

    told = set(re.findall(r"--[a-z-]+", cli("run", "--help").out)) - {"--help", "--"}
    assert told >= {*run_options._FLAGS, *run_options._VALUES}
