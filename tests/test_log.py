"""The log: whole lines whoever writes, whoever rotates; and no problem of it stops anything."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from heartbeat_cli import log

AT = 1_795_413_600_123  # 2026-11-23T06:00:00.123Z

WRITER = """
import sys
from pathlib import Path
from heartbeat_cli import log
path, writer, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    trouble = log.append(path, f"writer={writer} number={number} {'x' * 80}\\n", rotate_bytes=16_000)
    assert trouble is None, trouble
"""


def everything(path: Path) -> list[str]:
    files = [path.with_name(f"{path.name}.{generation}") for generation in (3, 2, 1)] + [path]
    return [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_line_is_logfmt_and_leaves_out_what_is_unknown() -> None:
    fields: dict[str, log.Value] = {
        "agent": "hint",
        "open": 12,
        "ok": True,
        "summary": None,
        "note": "two words",
    }
    assert log.line(AT, fields, {}) == (
        'at=2026-11-23T06:00:00.123Z agent=hint open=12 ok=true note="two words"\n'
    )


def test_texts_are_always_quoted() -> None:
    line = log.line(AT, {"agent": "hint"}, {"summary": "done", "error": None})
    assert line == 'at=2026-11-23T06:00:00.123Z agent=hint summary="done"\n'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", 'v=""'),
        ('say "hi"', r'v="say \"hi\""'),
        ("a=b", 'v="a=b"'),
        ("two\nlines", r'v="two\\nlines"'),
        ("\x1b[31mred", r'v="\\x1b[31mred"'),
        ("\u202eright to left", r'v="\\u202eright to left"'),
        ("\udcff", r'v="\\udcff"'),
        ("grüße", "v=grüße"),
    ],
)
def test_a_value_is_data_and_stays_on_its_line(value: str, written: str) -> None:
    line = log.line(AT, {"v": value}, {})
    assert line == f"at=2026-11-23T06:00:00.123Z {written}\n"


def test_ten_megabytes_of_summary_make_a_line_of_bounded_size() -> None:
    assert len(log.line(AT, {}, {"summary": "x\n" * 5_000_000})) < 25_000


def test_many_processes_that_rotate_all_the_time_lose_and_tear_no_line(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "agent-heartbeat.log"
    writers, each = 6, 100  # 600 lines of 100 bytes: three rotations at 16 kB, so four files hold them all
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(writer), str(each)])
        for writer in range(writers)
    ]
    assert [process.wait(timeout=60) for process in running] == [0] * writers
    lines = everything(path)
    assert sorted(lines) == sorted(
        f"writer={writer} number={number} {'x' * 80}" for writer in range(writers) for number in range(each)
    )
    assert path.with_name("agent-heartbeat.log.3").exists()


def test_rotation_keeps_three_older_files_and_each_within_its_size(tmp_path: Path) -> None:
    path = tmp_path / "agent-heartbeat.log"
    for number in range(100):
        assert log.append(path, f"{number:09}\n", rotate_bytes=100) is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "agent-heartbeat.log",
        *(f"agent-heartbeat.log.{generation}" for generation in (1, 2, 3)),
    ]
    assert all(file.stat().st_size <= 100 for file in tmp_path.iterdir())
    assert everything(path)[-1] == "000000099"


def test_only_its_owner_reads_the_log(tmp_path: Path) -> None:
    path = tmp_path / "agent-heartbeat.log"
    log.append(path, "a line\n")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_is_a_sentence_and_no_exception(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    trouble = log.append(tmp_path / "file" / "agent-heartbeat.log", "a line\n")
    assert trouble is not None and "cannot be written" in trouble
    (tmp_path / "folder").mkdir()
    assert "cannot be written" in str(log.append(tmp_path / "folder", "a line\n"))


def test_a_full_disk_is_a_sentence_too() -> None:
    assert "No space left" in str(log.append(Path("/dev/full"), "a line\n"))


def test_a_writer_that_was_stopped_while_it_held_the_lock_delays_others_only_briefly(tmp_path: Path) -> None:
    import fcntl  # noqa: PLC0415

    path = tmp_path / "agent-heartbeat.log"
    path.touch()
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = threading.Thread(target=log.append, args=(path, "a line\n"))
        writer.start()
        writer.join(timeout=10)
        assert not writer.is_alive()
    assert path.read_text() == "a line\n"
