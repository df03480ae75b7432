"""Files that are their owner's alone: replaced in one step, locked for a while."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from heartbeat_cli.private_files import alone_in, lock, open_private, replace


def test_a_file_is_its_owners_alone_whatever_it_was_and_whatever_the_umask(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o644)
    before = os.umask(0)
    try:
        os.close(open_private(file))
        replace(tmp_path / "other", b"x")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o600


def test_whoever_reads_while_a_file_is_replaced_finds_the_old_or_the_new(tmp_path: Path) -> None:
    file, whole = tmp_path / "file", {b"a" * 50_000, b"b" * 50_000}
    replace(file, min(whole))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in whole:
                replace(file, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(file.read_bytes() in whole for _ in range(300))
    finally:
        stop.set()
        writer.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_replacement_that_fails_leaves_the_old_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace(tmp_path / "folder", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_lock_that_somebody_holds_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as held, (tmp_path / "file").open("w") as wanted:
        fcntl.flock(held, fcntl.LOCK_EX)
        began = time.monotonic()
        assert lock(wanted.fileno(), 0.1) is False
        assert 0.1 <= time.monotonic() - began < 2
        threading.Timer(0.1, fcntl.flock, (held, fcntl.LOCK_UN)).start()
        assert lock(wanted.fileno(), 10) is True


def test_one_at_a_time_changes_a_folder_and_a_stopped_one_keeps_nobody_out(tmp_path: Path) -> None:
    with alone_in(tmp_path, 1), alone_in(tmp_path, 0.05):
        pass
    handle = os.open(tmp_path, os.O_RDONLY)
    with alone_in(tmp_path, 0):
        assert lock(handle, 0) is False
    assert lock(handle, 0) is True
    os.close(handle)
