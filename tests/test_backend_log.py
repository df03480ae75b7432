"""The local backend's log: bounded, read from the end, followed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from conftest import COMMAND_TIMEOUT_S, HEARTBEAT, Local
from heartbeat_cli.backend_log import BackendLog


def test_a_log_that_has_grown_is_cut_at_the_next_start(local: Local) -> None:
    local.folder.mkdir(parents=True)
    log = local.folder / "backend.log"
    log.write_text("".join(f"line {number}\n" for number in range(200_000)))
    local.up("--port", "0")
    assert log.stat().st_size < 300_000
    assert local.cli("local", "logs", "-n", "2", "--json").data["lines"][-1] == "line 199999"
    assert log.read_text().startswith("line ")


def test_logs_follows_what_comes_and_ends_with_ctrl_c(local: Local) -> None:
    local.folder.mkdir(parents=True)
    log = local.folder / "backend.log"
    log.write_text("old\nrecent\n")
    command = [str(HEARTBEAT), "local", "logs", "-n", "1", "--follow"]
    with subprocess.Popen(
        command, cwd=local.cli.folder, env=local.cli.environment(), stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "recent\n"
        with log.open("a") as more:
            more.write("new \x1b[31m\n")
        assert reader.stdout.readline() == "new \\x1b[31m\n", "shown, not obeyed"
        reader.send_signal(signal.SIGINT)
        assert reader.wait(COMMAND_TIMEOUT_S) == 130


def test_follow_and_json_exclude_each_other(local: Local) -> None:
    assert local.cli("local", "logs", "--follow", "--json").code == 2


def test_the_last_lines_are_told_from_a_place_on_and_no_line_in_half(tmp_path: Path) -> None:
    log = BackendLog(tmp_path / "log")
    assert (log.size(), log.lines(5)) == (0, [])
    log.path.write_bytes(b"one\ntwo \xff\nthree\n")
    assert log.lines(2) == ["two \ufffd", "three"]
    assert log.lines(5, since=4) == ["two \ufffd", "three"]
    assert log.lines(0) == []
    log.path.write_text("x" * 1_000_000 + "\n" + "y" * 100 + "\n")
    assert log.lines(5) == ["y" * 100]
